from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metarun.ops import context, norm


class Network(nn.Module):
    """A backbone and a linear head. The `outputs` are logits of classes, or values of a function."""

    def __init__(self, backbone: nn.Module, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module = nn.Linear(int(backbone.out_features), outputs)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


def with_support(module: nn.Module, forward: Callable[[Tensor], Tensor], support_x: Tensor, x: Tensor) -> Tensor:
    """Return `forward(x)`; layers of `module` with `bn=support` normalise it by the support set's statistics."""
    if not norm.uses_support_statistics(module):
        return forward(x)
    rows = support_x.shape[0]
    with context.support_rows(rows):
        return forward(torch.cat([support_x, x]))[rows:]


def check_adaptable(backbone: nn.Module, method: str, instead: str) -> None:
    """Raise ValueError, which says what to set `instead`, if a method that adapts the network gets a frozen one."""
    if not any(True for _ in backbone.parameters()):
        raise ValueError(f"{method} adapts its network to each task, and this one is frozen: {instead}")
