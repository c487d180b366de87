from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from metarun.algos.gradient.maml import MAML
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
        inner_lr: float,
        inner_steps: int,
        test_inner_steps: int,
        report_steps: Sequence[int],
        engine: str,
        task_chunk: int,
        inner_optimizer: str = "sgd",
        inner_clip_norm: float | None = None,
    ) -> None:
        steps, inner = (inner_steps, test_inner_steps, report_steps), (inner_optimizer, inner_clip_norm)
        super().__init__(backbone, outputs, objective, inner_lr, *steps, True, engine, task_chunk, *inner)
