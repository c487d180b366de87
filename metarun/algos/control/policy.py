"""Policies of many tasks at once, each with weights of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from metarun.algos.control.actions import Actions, Gaussian
from metarun.ops.functional import Params


class Policy(nn.Module):
    """A fully connected network with tanh. Its weights are given to it, for each task [B, ...].

    The deviation of an action does not depend on the observation; its log is a parameter.

    Shapes: observations [B, R, inputs] -> outputs [B, R, kind.outputs].
    Args:
        inputs: size of an observation.
        kind: which actions there are.
        widths: units of each layer.
        first_std: deviation of actions at first, > 0.
    """

    def __init__(self, inputs: int, kind: Actions, widths: Sequence[int], first_std: float) -> None:
        super().__init__()
        self.depth, self.gaussian = len(widths), isinstance(kind, Gaussian)
        sizes = [inputs, *widths, kind.size]
        for layer, (before, after) in enumerate(pairwise(sizes)):
            weight = torch.empty(before, after)
            nn.init.xavier_uniform_(weight)
            if layer == self.depth:
                weight.mul_(0.1)  # first actions depend little on the observation
            self.register_parameter(f"weight{layer}", nn.Parameter(weight))
            self.register_parameter(f"bias{layer}", nn.Parameter(torch.zeros(1, after)))
        if self.gaussian:
            self.log_std = nn.Parameter(torch.full((1, kind.size), math.log(first_std)))

    def forward(self, params: Params, observations: Tensor) -> Tensor:
        h = observations
        for layer in range(self.depth + 1):
            h = torch.baddbmm(params[f"bias{layer}"], h, params[f"weight{layer}"])
            h = h.tanh() if layer < self.depth else h
        return torch.cat([h, params["log_std"].expand_as(h)], -1) if self.gaussian else h
