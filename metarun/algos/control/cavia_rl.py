from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from metarun.algos.control.maml_rl import MAMLRL, Outer, PolicySettings, Radius
from metarun.algos.control.policy import Policy
from metarun.core.control import Control
from metarun.core.ranges import PositiveInt
from metarun.ops.functional import Params


class CAVIARL(MAMLRL):
    """MAML for policies whose inner loop adapts only a short context vector, which the policy sees beside its task.

    The context starts at 0 on every task. All weights are shared by all tasks.

    Args: as for MAMLRL, but
        n_context: length of the context vector.
        inner_lr: step size of the context.
    Reference: Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson. Fast Context Adaptation via Meta-Learning. ICML 2019.
        arXiv:1810.03642, section 4.3.
    """

    def __init__(
        self,
        control: Control,
        n_context: PositiveInt,
        outer: Outer,
        radius: Radius,
        **settings: Unpack[PolicySettings],
    ) -> None:
        self.n_context = n_context
        super().__init__(control, outer, radius, **settings)

    def make_policy(self, more_inputs: int = 0) -> Policy:
        return super().make_policy(more_inputs + self.n_context)

    def start(self, n_tasks: int) -> Params:
        weight = self.policy.get_parameter("weight0")
        return {"context": weight.new_zeros(n_tasks, 1, self.n_context).requires_grad_()}

    def output(self, adapted: Params, observations: Tensor) -> Tensor:
        context = adapted["context"]
        shared = {name: value.expand(len(context), *value.shape) for name, value in self.policy.named_parameters()}
        seen = torch.cat([observations, context.expand(-1, observations.shape[1], -1)], -1)
        found: Tensor = self.policy(shared, seen)
        return found
