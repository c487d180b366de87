from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict, Unpack

from torch import Tensor, nn

from metarun.algos.base.inner_optimizer import Rule
from metarun.algos.gradient.maml import MAML
from metarun.core.batches import merge_sides
from metarun.core.ranges import NonNegativeInt, PositiveFloat
from metarun.core.tasks import Batch, Metrics, Objective


class TuningSettings(TypedDict):
    """Settings of the inner loop in tests, which is all that adapts; see InnerSettings."""

    inner_lr: PositiveFloat
    test_inner_steps: NonNegativeInt
    inner_optimizer: NotRequired[Rule]
    inner_clip_norm: NotRequired[PositiveFloat | None]
    report_steps: Sequence[NonNegativeInt]
    task_chunk: NonNegativeInt


class FollowLeader(MAML):
    """One network for all tasks, trained on all their examples; in tests a few gradient steps fine-tune it to a task.

    With `run=online` it is follow-the-leader, and without fine-tuning (`test_inner_steps=0`) training on everything:
    what online meta-learning is held against. With `run.updates=0` it is learning each task from scratch. Support and
    query examples of a training task count alike.

    Args: as for MAML, without what is for its training.
    Reference: Finn, Rajeswaran, Kakade, Levine. Online Meta-Learning. ICML 2019. arXiv:1902.08438, section 5.
    """

    many_shapes = False

    recordable = True

    def __init__(
        self, backbone: nn.Module, outputs: int, objective: Objective, **settings: Unpack[TuningSettings]
    ) -> None:
        super().__init__(backbone, outputs, objective, inner_steps=0, first_order=True, engine="vectorized", **settings)

    def meta_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        return super().meta_loss(merge_sides(batch))

    def meta_gradient(self, batch: Batch) -> Metrics:
        return super().meta_gradient(merge_sides(batch))
