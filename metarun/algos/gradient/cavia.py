from __future__ import annotations

from typing import Annotated, Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base.film import count_channels_before_relus, modulate
from metarun.algos.base.network import Network
from metarun.algos.gradient.maml import MAML, MAMLSettings
from metarun.core.ranges import NonNegativeInt, PositiveInt, UpTo
from metarun.core.tasks import Objective
from metarun.ops.functional import Params


class CAVIA(MAML):
    """MAML whose inner loop adapts only a short context vector, an input of a network that all tasks share.

    The context starts at 0 on every task. A learned linear map turns it into a shift, and with `film_scale` also a
    factor, of each channel that enters one ReLU of the backbone (FiLM). A shift before the first ReLU equals the
    paper's network for functions, where the context joins the inputs. The factor is 1 plus the map, so that context 0
    gives the bare network; the paper's code learns the factor from a start near 0.

    Args: as for MAML, but
        inner_lr: step size of the context, > 0. On images the paper's 1.0 learns very slowly at first: the maps start
            small, so a step changes the network very little, and the meta-gradient is small.
        n_context: length of the context vector, >= 0.
        layer: which of the backbone's ReLUs, counted from 1; the last where there are fewer.
        film_scale: whether the context scales as well as shifts.
        engine: `vectorized`; learn2learn has no CAVIA.
    Reference: Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson. Fast Context Adaptation via Meta-Learning. ICML 2019.
        arXiv:1810.03642.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        *,
        n_context: NonNegativeInt,
        layer: Annotated[PositiveInt, UpTo("ReLUs of the network")],
        film_scale: bool,
        **maml: Unpack[MAMLSettings],
    ) -> None:
        self.context = (n_context, layer, film_scale)
        super().__init__(backbone, outputs, objective, **maml)

    def network(self, backbone: nn.Module, outputs: int) -> Network:
        return ContextNetwork(backbone, outputs, *self.context)

    def select_adapted(self, net: Params) -> Params:
        return {"context": torch.zeros_like(net["film.weight"][0])}


class ContextNetwork(Network):
    """A network whose buffer `context` shifts, and with `scale` scales, what enters the `layer`-th ReLU."""

    context: Tensor

    def __init__(self, backbone: nn.Module, outputs: int, n_context: int, layer: int, scale: bool) -> None:
        super().__init__(backbone, outputs)
        channels = count_channels_before_relus(backbone, "cavia")
        self.site = list(channels)[min(layer, len(channels)) - 1]
        self.register_buffer("context", torch.zeros(n_context), persistent=False)
        self.film = nn.Linear(n_context, channels[self.site] * (2 if scale else 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        with modulate(self.backbone, {self.site: self.film(self.context)}):
            return super().forward(x)
