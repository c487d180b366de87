from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from metarun.algos.gradient.anil import ANIL
from metarun.algos.gradient.maml import Adapted, MAMLSettings
from metarun.core.ranges import NonNegativeFloat, PositiveFloat
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params, flatten_name, unflatten, within
from metarun.ops.noise import draw_normal


class MRMAML(ANIL):
    """MAML that must not learn the training tasks by heart: what its shared weights can hold has a price.

    Where each class has the same label in all training tasks (`data.labels=fixed`), one network solves them without
    their support sets, and learns nothing for new classes. Here the backbone, which the inner loop leaves as it is, is
    a Gaussian over weights, drawn once for each training task, and pays for its distance to a standard normal one. The
    head adapts, as in ANIL; tests take the means.

    Shapes: as MAML.
    Args:
        backbone, outputs, objective: as for MAML.
        beta: price of a nat of the shared weights, in the meta-loss; with 0 and a small `start_std` this is ANIL.
        start_std: deviation of all shared weights at the start, > 0.
        settings: see MAMLSettings.
    Reference: Yin, Tucker, Zhou, Levine, Finn. Meta-Learning without Memorization. ICLR 2020. arXiv:1912.03820,
        equation 5 and algorithm 1, on weights.
    """

    goal = "bound"

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        *,
        beta: NonNegativeFloat,
        start_std: PositiveFloat,
        **settings: Unpack[MAMLSettings],
    ) -> None:
        super().__init__(backbone, outputs, objective, **settings)
        self.beta = beta
        self.log_std = nn.ParameterDict(
            {flatten_name(n): torch.full_like(value, math.log(start_std)) for n, value in self._list_shared()}
        )

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        return super().adapt(params | self.draw_shared(params) if self.training else params, support, n_way)

    def draw_shared(self, params: Params) -> Params:
        """Draw the shared weights, by their names in `params`."""
        gaussians = self._list_gaussians(params)
        means = {name: mean for name, mean, _ in gaussians}
        noise = draw_normal(sum(mean.numel() for mean in means.values()), like=gaussians[0][1])
        drawn = unflatten(noise, means)
        return {f"net.backbone.{name}": mean + log_std.exp() * drawn[name] for name, mean, log_std in gaussians}

    def score(self, params: Params, state: Adapted, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        if not self.training:
            return scores
        information = measure_information(self._list_gaussians(params))
        return scores | {"bound": scores["loss"] + self.beta * information, "information": information}

    def _list_shared(self) -> list[tuple[str, Tensor]]:
        return list(self.net.backbone.named_parameters())

    def _list_gaussians(self, params: Params) -> list[tuple[str, Tensor, Tensor]]:
        backbone = within(params, "net.backbone")
        return [(n, backbone[n], params[f"log_std.{flatten_name(n)}"]) for n, _ in self._list_shared()]


def measure_information(gaussians: list[tuple[str, Tensor, Tensor]]) -> Tensor:
    """Return the divergence in nats of Gaussians (name, mean, log deviation) from standard normal ones."""
    each = [((torch.exp(2 * log_std) + mean.square() - 1) / 2 - log_std).sum() for _, mean, log_std in gaussians]
    return torch.stack(each).sum()
