"""A rule that updates each number of a network by its own gradient and its own memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metarun.ops.functional import flatten, unflatten
from metarun.ops.lstm import LSTMCell

Memory = tuple[Tensor, ...]
"""Hidden and cell [n, units] of each layer, one after the other."""


class CoordinateRule(nn.Module):
    """From gradients [n] to updates [n], by layers of long short-term memory that all numbers share.

    Args:
        units, layers: of the memory; without layers the update is minus a learned rate times the gradient.
        rate: factor of the output, or the rate that learning begins with.
        p: sizes of gradients from e^-p to 1 are told apart; 0 hands them on as they are.
    Reference: Andrychowicz et al. NeurIPS 2016. arXiv:1606.04474, section 2.1 and appendix A.
    """

    def __init__(self, units: int, layers: int, rate: float, p: float) -> None:
        super().__init__()
        self.units, self.p = units, p
        if not layers:
            self.rate: float | Tensor = nn.Parameter(torch.tensor(rate))
            self.cells, self.head = nn.ModuleList(), None
            return
        self.rate = rate
        inputs = [2 if p else 1] + [units] * (layers - 1)
        self.cells = nn.ModuleList(LSTMCell(size, units, units) for size in inputs)
        self.head = nn.Linear(units, 1)
        nn.init.normal_(self.head.weight, std=0.1 / math.sqrt(units))  # weights begin to move slowly
        nn.init.zeros_(self.head.bias)

    def start(self, weights: Tensor) -> Memory:
        """Return an empty memory of so many numbers [n]."""
        return tuple(weights.new_zeros(len(weights), self.units) for _ in range(2 * len(self.cells)))

    def forward(self, grads: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        if self.head is None:
            return -self.rate * grads, memory
        seen = preprocess(grads, self.p) if self.p else grads[:, None]
        after: list[Tensor] = []
        for cell, hidden, kept in zip(self.cells, memory[::2], memory[1::2], strict=True):
            seen, kept = cell(seen, hidden, kept)
            after += [seen, kept]
        return self.rate * self.head(seen)[:, 0], tuple(after)


def scale_start(net: nn.Module, scale: float, noise: Tensor) -> Tensor:
    """Make the weights [n] that a network begins with: matrices normal by their inputs, factors 1, summands 0.

    Args:
        scale: factor of the matrices.
        noise: normal numbers [n].
    """
    parts = {}
    for name, drawn in unflatten(noise, dict(net.named_parameters())).items():
        if drawn.dim() < 2:
            parts[name] = torch.full_like(drawn, float(name.endswith("weight")))
        else:
            parts[name] = scale / math.sqrt(drawn[0].numel()) * drawn
    return flatten(parts)


def preprocess(values: Tensor, p: float = 10.0) -> Tensor:
    """Turn numbers [...] of all sizes into pairs [..., 2] of moderate ones: size and sign, or a scaled small number.

    Reference: Andrychowicz et al. Learning to Learn by Gradient Descent by Gradient Descent. NeurIPS 2016, appendix A.
    """
    large = values.abs() >= math.exp(-p)
    size = torch.where(large, values.abs().clamp_min(math.exp(-p)).log() / p, -torch.ones_like(values))
    return torch.stack([size, torch.where(large, values.sign(), values * math.exp(p))], -1)
