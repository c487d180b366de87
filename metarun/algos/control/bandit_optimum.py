from __future__ import annotations

import torch
from torch import Tensor

from metarun.algos.control.bandit_rules import BanditRule
from metarun.core.control import Control

Counts = tuple[tuple[int, int], ...]
"""Successes and failures of each arm that was pulled, sorted; arms that were not are alike."""

MOST_STATES = 1_000_000


class BanditOptimum(BanditRule):
    """Learns nothing: pulls as no learner can do better on average, by dynamic programming over all that can be known.

    What is known of a bandit are the successes and failures of its arms, in any order. The value of each such state is
    worked out exactly, so `value` is the highest return that can be expected. The number of states grows fast with the
    pulls: 10 to 30 pulls are feasible.

    Args:
        control: from the source.
    Reference: Bellman. A Problem in the Sequential Design of Experiments. Sankhya 1956.
    """

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        if not is_feasible(control):
            count = count_states(control.actions, control.episodes)
            raise ValueError(
                f"the exact optimum of {control.actions} arms and {control.episodes} pulls has {count:.1e} states, "
                "more than can be worked through: set data.episodes=10, or take algo=gittins"
            )
        self.values: dict[tuple[Counts, int], float] = {}

    @property
    def value(self) -> float:
        """The highest expected return."""
        return self._value((), self.control.episodes)

    def index(self, counts: Tensor, u: Tensor) -> Tensor:
        """Return what pulling each arm now, and as well as possible afterwards, is expected to bring."""
        found: dict[Counts, list[float]] = {}
        rows = []
        for row in (counts.long() - 1).tolist():
            arms = tuple(map(tuple, row))
            if arms not in found:
                left = self.control.episodes - sum(map(sum, arms))
                pulled = tuple(sorted(arm for arm in arms if arm != (0, 0)))
                each = {arm: self._pull(pulled, arm, left) for arm in set(arms)}
                found[arms] = [each[arm] for arm in arms]
            rows.append(found[arms])
        return torch.tensor(rows, dtype=torch.float64)

    def _value(self, known: Counts, left: int) -> float:
        if left == 0:
            return 0.0
        if (known, left) not in self.values:
            arms = set(known) | ({(0, 0)} if len(known) < self.control.actions else set())
            self.values[known, left] = max(self._pull(known, arm, left) for arm in arms)
        return self.values[known, left]

    def _pull(self, known: Counts, arm: tuple[int, int], left: int) -> float:
        won, lost = arm
        p = (won + 1) / (won + lost + 2)
        others = list(known)
        if arm in others:
            others.remove(arm)
        after = [tuple(sorted([*others, new])) for new in ((won + 1, lost), (won, lost + 1))]
        return p * (1 + self._value(after[0], left - 1)) + (1 - p) * self._value(after[1], left - 1)


def is_feasible(control: Control) -> bool:
    """Return whether the optimum of such bandits can be worked out."""
    return count_states(control.actions, control.episodes) <= MOST_STATES


def count_states(arms: int, pulls: int) -> float:
    """Count the states of a bandit: sets of up to `arms` pairs (won, lost) whose sums add up to at most `pulls`."""
    ways = [[0.0] * (arms + 1) for _ in range(pulls + 1)]
    ways[0][0] = 1.0
    for size in range(1, pulls + 1):
        for _ in range(size + 1):  # the pairs of this sum
            for total in range(size, pulls + 1):
                for used in range(1, arms + 1):
                    ways[total][used] += ways[total - size][used - 1]
    return sum(map(sum, ways))
