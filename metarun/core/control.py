"""Tasks to act in: what a policy must know of them, and how it acts.

Shape letters: B tasks, R episodes side by side, T steps, D numbers of an observation, A of an action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Moved(NamedTuple):
    """What a step of environments shows: observation [B, R, D], reward [B, R], and done [B, R], whether it was the last
    of its episode; rewards after it are 0."""

    observation: Tensor
    reward: Tensor
    done: Tensor


class Environments(Protocol):
    """Tasks to act in: R episodes of each of B tasks go on side by side.

    All that is random in an episode, the actions of a policy included, is a function of the seed, the split, the task,
    the number of the episode and the step.
    """

    @property
    def n_tasks(self) -> int: ...

    def reset(self, n: int, episode: int) -> Tensor:
        """Start `n` episodes of each task and return what they show, [B, n, D].

        Args:
            episode: number of the first of them in the task's life; the others have the next numbers.
        """
        ...

    def step(self, actions: Tensor) -> Moved:
        """Act in each episode: whole numbers [B, R] where actions are discrete, else numbers [B, R, A]."""
        ...

    def draw(self, n: int, episode: int, numbers: int) -> Tensor:
        """Draw numbers in [0, 1) for the policy in the same episodes: [B, n, T, numbers]."""
        ...

    def tasks(self, first: int, last: int) -> Environments: ...


@dataclass(frozen=True)
class Control:
    """What a policy must know of environments.

    Attributes:
        observation: numbers that a step shows.
        actions: how many discrete actions there are, or how many numbers an action has.
        discrete: which of the two.
        length: steps of an episode, at most.
        episodes: episodes that a learner has in a task to find out what is to be done.
        bound: the numbers of an action are cut to -bound..bound; None if they are not, or if actions are discrete.
    """

    observation: int
    actions: int
    discrete: bool
    length: int
    episodes: int
    bound: float | None = None
