"""Distributions of actions: drawn by given random numbers, so that whoever acts again acts alike."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, kl_divergence

from metarun.algos.base.gaussian import make_gaussian
from metarun.core.control import Control
from metarun.ops.functional import one_hot
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
    def encode(self, actions: Tensor) -> Tensor:
        """Return actions as inputs of a network, [..., size]."""

    @abstractmethod
    def distribute(self, output: Tensor) -> Distribution:
        """Return the distribution of actions."""

    def log_prob(self, output: Tensor, actions: Tensor) -> Tensor:
        """Return log pi(action) in nats, [...]."""
        found: Tensor = self.distribute(output).log_prob(actions)
        return found

    def entropy(self, output: Tensor) -> Tensor:
        """Return the entropy of the actions in nats, [...]."""
        found: Tensor = self.distribute(output).entropy()
        return found

    def divergence(self, before: Tensor, output: Tensor) -> Tensor:
        """Return KL(before || now) in nats, [...]."""
        found: Tensor = kl_divergence(self.distribute(before), self.distribute(output))
        return found


class Discrete(Actions):
    """One of n actions by its logits [..., n]; an action is a whole number [...]."""

    numbers = 1

    def __init__(self, n: int) -> None:
        self.outputs = self.size = n

    def distribute(self, output: Tensor) -> Distribution:
        return Categorical(logits=output, validate_args=False)

    def draw(self, output: Tensor, u: Tensor) -> Tensor:
        bounds = output.softmax(-1).cumsum(-1)[..., :-1]  # the last action has what rounding leaves
        return (u >= bounds).sum(-1)

    def best(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def encode(self, actions: Tensor) -> Tensor:
        return one_hot(actions, self.size, torch.get_default_dtype())


class Gaussian(Actions):
    """Numbers with independent normal distributions, by their means and the logs of their deviations [..., 2 A]."""

    def __init__(self, n: int) -> None:
        self.numbers = self.size = n
        self.outputs = 2 * n

    def distribute(self, output: Tensor) -> Distribution:
        mean, log_std = output.chunk(2, -1)
        return make_gaussian(mean, log_std.exp())

    def draw(self, output: Tensor, u: Tensor) -> Tensor:
        mean, log_std = output.chunk(2, -1)
        return mean + log_std.exp() * to_normal(u)

    def best(self, output: Tensor) -> Tensor:
        mean: Tensor = output.chunk(2, -1)[0]
        return mean

    def encode(self, actions: Tensor) -> Tensor:
        return actions


def make_actions(control: Control) -> Actions:
    """Return the distribution of the actions that environments take."""
    return Discrete(control.actions) if control.discrete else Gaussian(control.actions)
