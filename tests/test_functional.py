"""Calls with other parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metarun.ops.functional import call


class Twice(nn.Module):
    """One layer under two names, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("in_vmap", [False, True])
def test_a_module_registered_twice_has_its_own_weights_again_after_a_call(in_vmap: bool) -> None:
    """With weights 2 I and biases 1 it makes 2 (2 x + 1) + 1 of x: 7 of 1. torch leaves them in their place."""
    net = Twice()
    own = dict(net.named_parameters())
    given = {"first.weight": 2 * torch.eye(2), "first.bias": torch.ones(2)}
    if in_vmap:
        out = torch.func.vmap(lambda x: call(net, given, x))(torch.ones(3, 1, 2))
    else:
        out = call(net, given, torch.ones(1, 2))
    assert (out == 7).all()
    assert net.first is net.second
    assert dict(net.named_parameters()).keys() == own.keys() == given.keys()
    assert all(value is own[name] for name, value in net.named_parameters())
