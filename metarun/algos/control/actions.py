"""Distributions of actions: drawn by given random numbers, so that whoever acts again acts alike."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from metarun.core.control import Control
from metarun.ops.quantiles import to_normal


class Actions(ABC):
    """Actions that are drawn from what a policy puts out.

    Attributes:
        outputs: numbers that a policy puts out for a step.
        numbers: random numbers that an action takes.
        size: numbers of an action as the input of a network.
    """

    outputs: int
    numbers: int
    size: int

    @abstractmethod
    def draw(self, output: Tensor, u: Tensor) -> Tensor:
        """Draw actions by random numbers u [..., numbers] in [0, 1)."""

    @abstractmethod
    def best(self, output: Tensor) -> Tensor:
        """Return the most likely actions."""

    @abstractmethod
    def log_prob(self, output: Tensor, actions: Tensor) -> Tensor:
        """Return log pi(action) in nats, [...]."""

    @abstractmethod
    def entropy(self, output: Tensor) -> Tensor:
        """Return the entropy of the actions in nats, [...]."""

    @abstractmethod
    def divergence(self, before: Tensor, output: Tensor) -> Tensor:
        """Return KL(before || now) in nats, [...]."""

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """Return actions as inputs of a network, [..., size]."""


class Discrete(Actions):
    """One of n actions by its logits [..., n]; an action is a whole number [...]."""

    numbers = 1

    def __init__(self, n: int) -> None:
        self.outputs = self.size = n

    def draw(self, output: Tensor, u: Tensor) -> Tensor:
        bounds = output.softmax(-1).cumsum(-1)[..., :-1]  # the last action has what rounding leaves
        return (u >= bounds).sum(-1)

    def best(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def log_prob(self, output: Tensor, actions: Tensor) -> Tensor:
        return output.log_softmax(-1).gather(-1, actions[..., None])[..., 0]

    def entropy(self, output: Tensor) -> Tensor:
        log_probs = output.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def divergence(self, before: Tensor, output: Tensor) -> Tensor:
        was, now = before.log_softmax(-1), output.log_softmax(-1)
        return (was.exp() * (was - now)).sum(-1)

    def encode(self, actions: Tensor) -> Tensor:
        return (actions[..., None] == torch.arange(self.size, device=actions.device)).to(torch.get_default_dtype())


class Gaussian(Actions):
    """Numbers with independent normal distributions, by their means and the logs of their deviations [..., 2 A]."""

    def __init__(self, n: int) -> None:
        self.numbers = self.size = n
        self.outputs = 2 * n

    def draw(self, output: Tensor, u: Tensor) -> Tensor:
        mean, log_std = output.chunk(2, -1)
        return mean + log_std.exp() * to_normal(u)

    def best(self, output: Tensor) -> Tensor:
        mean: Tensor = output.chunk(2, -1)[0]
        return mean

    def log_prob(self, output: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = output.chunk(2, -1)
        z = (actions - mean) * (-log_std).exp()
        return -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, output: Tensor) -> Tensor:
        return (output.chunk(2, -1)[1] + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def divergence(self, before: Tensor, output: Tensor) -> Tensor:
        (was, log_was), (mean, log_std) = before.chunk(2, -1), output.chunk(2, -1)
        apart = (2 * (log_was - log_std)).exp() + ((was - mean) * (-log_std).exp()).square()
        return (log_std - log_was + 0.5 * apart - 0.5).sum(-1)

    def encode(self, actions: Tensor) -> Tensor:
        return actions


def make_actions(control: Control) -> Actions:
    """Return the distribution of the actions that environments take."""
    return Discrete(control.actions) if control.discrete else Gaussian(control.actions)
