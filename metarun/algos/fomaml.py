from __future__ import annotations

from torch import nn

from metarun.algos.maml import MAML


class FOMAML(MAML):
    """First-order MAML: the meta-gradient is the query gradient at phi, as if the inner steps were constants.

    Args: as for MAML.
    Reference: Finn, Abbeel, Levine. MAML. ICML 2017. arXiv:1703.03400, section 5.2;
        Nichol, Achiam, Schulman. On First-Order Meta-Learning Algorithms. 2018. arXiv:1803.02999, section 3.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_way: int,
        inner_lr: float,
        inner_steps: int,
        test_inner_steps: int,
        engine: str,
        task_chunk: int,
    ) -> None:
        super().__init__(backbone, n_way, inner_lr, inner_steps, test_inner_steps, True, engine, task_chunk)
