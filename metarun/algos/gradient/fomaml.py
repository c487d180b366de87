from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from metarun.algos.base.inner_optimizer import Rule
from metarun.algos.base.learn2learn import Engine
from metarun.algos.gradient.maml import MAML
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from metarun.core.tasks import Objective


class FOMAML(MAML):
    """First-order MAML: the meta-gradient is the query gradient at phi, as if the inner steps were constants.

    Args: as for MAML.
    Reference: Finn, Abbeel, Levine. MAML. ICML 2017. arXiv:1703.03400;
        Nichol, Achiam, Schulman. On First-Order Meta-Learning Algorithms. 2018. arXiv:1803.02999.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        inner_lr: PositiveFloat,
        inner_steps: PositiveInt,
        test_inner_steps: NonNegativeInt,
        report_steps: Sequence[NonNegativeInt],
        engine: Engine,
        task_chunk: NonNegativeInt,
        inner_optimizer: Rule = "sgd",
        inner_clip_norm: PositiveFloat | None = None,
    ) -> None:
        steps, inner = (inner_steps, test_inner_steps, report_steps), (inner_optimizer, inner_clip_norm)
        super().__init__(backbone, outputs, objective, inner_lr, *steps, True, engine, task_chunk, *inner)
