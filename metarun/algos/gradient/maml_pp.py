from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metarun.algos.base.count import Count
from metarun.algos.gradient.maml import MAML, Adapted, MAMLSettings
from metarun.core.ranges import CountsWith, NonNegativeInt
from metarun.core.tasks import Batch, Examples, Metrics, Objective
from metarun.ops.functional import Params, flatten_name, gradient
from metarun.ops.layer_norm import MapLayerNorm
from metarun.ops.norm import BatchNorm

EACH_LOSS_WEIGHT, LAST_LOSS_WEIGHT = "weight of each loss", "weight of the last loss"


class MAMLPlusPlus(MAML):
    """MAML with changes that make its training stable, each with a switch of its own; without all of them it is MAML.

    Learned rates: one for each weight tensor and inner step. Multi-step loss: early in training, the query losses
    after all inner steps count, later only the last one. Derivative order: the first updates are first-order. Per-step
    normalisation: in each inner step BatchNorm (or layer normalisation) has weights and biases of its own, which the
    inner loop does not change. The paper's annealed outer rate is optim/schedule=cosine. The paper also keeps running
    statistics for each step, but its code never uses them; here an inner step always normalises by its own batch. Test
    steps beyond the trained ones use the last step's rates, weights and biases.

    Args: as for MAML, but
        inner_lr: where learned rates start, or the rate.
        learn_rates: whether a rate is learned for each weight tensor and inner step.
        multi_step: outer steps over which the weight moves from all inner steps' losses to the last; 0: only the last.
        first_order_steps: number of first outer steps without second derivatives.
        per_step_norm: whether each inner step has its own weights and biases of the layers that normalise.
        engine: `vectorized`; learn2learn has no MAML++.
    Reference: Antoniou, Edwards, Storkey. How to Train Your MAML. ICLR 2019. arXiv:1810.09502.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        *,
        learn_rates: bool,
        multi_step: NonNegativeInt,
        first_order_steps: Annotated[NonNegativeInt, CountsWith("first_order", (False,))],
        per_step_norm: bool,
        **maml: Unpack[MAMLSettings],
    ) -> None:
        super().__init__(backbone, outputs, objective, **maml)
        self.multi_step, self.first_order_steps = multi_step, first_order_steps
        self.outer_steps = Count()
        weights = dict(self.net.named_parameters())
        self.normed = _find_norm_parameters(self.net) if per_step_norm else []
        rated = [name for name in weights if learn_rates and name not in self.normed]
        self.rates = nn.ParameterDict(
            {flatten_name(name): torch.full((self.inner.steps,), self.inner.lr) for name in rated}
        )
        self.norms = nn.ParameterDict(
            {
                flatten_name(name): weights[name].detach().expand(self.inner.steps + 1, -1).clone()
                for name in self.normed
            }
        )
        for name in self.normed:  # each call puts a row of the stack in its place
            layer, _, parameter = name.rpartition(".")
            delattr(self.net.get_submodule(layer), parameter)
            self.net.get_submodule(layer).register_buffer(parameter, torch.empty(0), persistent=False)

    def meta_step(self, batch: Batch, optims: dict[str, Optimizer]) -> Metrics:
        metrics = super().meta_step(batch, optims)
        self.outer_steps.number += 1
        return metrics

    def theta(self) -> Params:
        theta = super().theta()
        if not (self.training and self.spread):
            return theta
        others = [self.spread / self.inner.steps] * (self.inner.steps - 1)
        some = next(iter(theta.values()))
        return theta | {
            EACH_LOSS_WEIGHT: some.new_full((), others[0] if others else 0),
            LAST_LOSS_WEIGHT: some.new_full((), 1 - sum(others)),
        }

    def phase(self) -> Hashable:
        return (self.first_order, self.spread > 0) if self.training else None

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        state = super().adapt(params, support, n_way)
        after = {steps: phi | self.norms_of(params, steps) for steps, phi in state.after.items()}
        return Adapted(state.phi | self.norms_of(params, self.steps), support, after)

    def list_reported_steps(self) -> Sequence[int]:
        return range(1, self.inner.steps) if self.training and self.spread else super().list_reported_steps()

    def inner_gradient(self, loss: Callable[[Params], Tensor], phi: Params, params: Params, step: int) -> Params:
        norms = self.norms_of(params, step)
        return gradient(lambda moved: loss(moved | norms), phi, self.first_order)

    def rate(self, params: Params, step: int, name: str) -> Tensor | float:
        learned = params.get(f"rates.{flatten_name(name)}")
        return self.inner.lr if learned is None else learned[min(step, self.inner.steps - 1)]

    def extra_scores(self, params: Params, state: Adapted, query: Examples) -> dict[str, Tensor]:
        if not self.training:
            return super().extra_scores(params, state, query)
        if not state.after:
            return {}
        losses = [params[EACH_LOSS_WEIGHT] * self.query_loss(params, state, phi, query) for phi in state.after.values()]
        last = params[LAST_LOSS_WEIGHT] * self.query_loss(params, state, state.phi, query)
        return {"loss": torch.stack([*losses, last]).sum()}

    def query_loss(self, params: Params, state: Adapted, phi: Params, query: Examples) -> Tensor:
        """Return the query loss at phi."""
        return self.objective(self.predict(params, state._replace(phi=phi), query.x), query.y)["loss"]

    @property
    def first_order(self) -> bool:
        """Whether the present outer step is without second derivatives."""
        return self.inner.first_order or self.outer_steps.number < self.first_order_steps

    @property
    def spread(self) -> float:
        """How evenly the losses of the inner steps count: from 1, all equally, to 0, only the last."""
        return max(0.0, 1 - self.outer_steps.number / self.multi_step) if self.multi_step else 0.0

    def norms_of(self, params: Params, step: int) -> Params:
        """Return the BatchNorm weights and biases after so many inner steps."""
        row = min(step, self.inner.steps)
        return {name: params[f"norms.{flatten_name(name)}"][row] for name in self.normed}


def _find_norm_parameters(net: nn.Module) -> list[str]:
    """Find the names of the weights and biases of layers that normalise."""
    layers = [name for name, module in net.named_modules() if isinstance(module, BatchNorm | MapLayerNorm)]
    return [f"{name}.{parameter}" for name in layers for parameter in ("weight", "bias")]
