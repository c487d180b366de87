from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from metarun.algos.base.inner_optimizer import Rule
from metarun.algos.base.learn2learn import Engine, learn2learn
from metarun.algos.base.network import with_support
from metarun.algos.gradient.maml import MAML
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params, flat


class MetaSGD(MAML):
    """MAML that learns, beside the initial weights, a step size for every single weight: also which way to go.

    Rates may become negative. The paper draws their start from a small range; here all start at `inner_lr`, as
    in learn2learn.

    Args: as for MAML, but
        inner_lr: where every learned rate starts.
        engine: `learn2learn` wraps the network in learn2learn's MetaSGD.
    Reference: Li, Zhou, Chen, Li. Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. 2017.
        arXiv:1707.09835.
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
        first_order: bool,
        engine: Engine,
        task_chunk: NonNegativeInt,
        inner_optimizer: Rule = "sgd",
        inner_clip_norm: PositiveFloat | None = None,
    ) -> None:
        steps, inner = (inner_steps, test_inner_steps, report_steps), (inner_optimizer, inner_clip_norm)
        super().__init__(backbone, outputs, objective, inner_lr, *steps, first_order, engine, task_chunk, *inner)
        self.rates = nn.ParameterDict(
            {flat(name): torch.full_like(value, inner_lr) for name, value in self.net.named_parameters()}
        )

    def rate(self, params: Params, step: int, name: str) -> Tensor | float:
        return params[f"rates.{flat(name)}"]  # alpha

    def adapt_learn2learn(self, support: Examples, n_way: int) -> Callable[[Tensor], Tensor]:
        rates = [self.rates[flat(name)] for name, _ in self.net.named_parameters()]
        with torch.enable_grad():
            first_order = self.first_order or not self.training
            task = learn2learn().algorithms.MetaSGD(self.net, lrs=rates, first_order=first_order).clone()
            for _ in range(self.steps):
                task.adapt(self.objective(task(support.x), support.y)["loss"])
        return partial(with_support, self.net, task, support.x)
