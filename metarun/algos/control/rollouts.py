"""Episodes that a policy acts in, and what was better in them than expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarun.algos.control.actions import Actions
from metarun.algos.control.advantages import find_advantages, standardise, sum_discounted
from metarun.core.control import Environments


class Rollouts(NamedTuple):
    """R episodes of T steps of each of B tasks: observations [B, R, T, D], actions [B, R, T, ...], rewards [B, R, T],
    and `alive` [B, R, T]: 1 for a step that its episode still had, else 0."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    alive: Tensor

    def returns(self) -> Tensor:
        """Return the mean sum of rewards of an episode of each task, [B]."""
        return self.rewards.sum(-1).mean(-1)


@torch.no_grad()
def roll_out(
    batch: Environments, policy: Callable[[Tensor], Tensor], kind: Actions, n: int, episode: int, greedy: bool = False
) -> Rollouts:
    """Act in `n` episodes of each task, of the numbers episode, episode + 1, ...

    Args:
        policy: from observations [B, R, D] to outputs [B, R, ...].
        kind: draws actions from these.
        greedy: take the most likely actions instead.
    """
    observation, chance = batch.reset(n, episode), batch.draw(n, episode, kind.numbers)
    over = torch.zeros_like(observation[..., 0])
    steps: list[tuple[Tensor, ...]] = []
    for step in range(chance.shape[2]):
        output = policy(observation)
        action = kind.best(output) if greedy else kind.draw(output, chance[:, :, step])
        moved = batch.step(action)
        steps.append((observation, action, moved.reward, 1 - over))
        observation, over = moved.observation, moved.done.to(over.dtype)
    return Rollouts(*(torch.stack(kept, 2) for kept in zip(*steps, strict=True)))


@torch.no_grad()
def judge(rollouts: Rollouts, discount: float, trace: float) -> Tensor:
    """Return how much better than expected each step was, standardised over the steps of a task: [B, R, T].

    Expected is what a linear function of observation and time, fitted to the task's own episodes, says.

    Reference: Duan et al. Benchmarking Deep Reinforcement Learning for Continuous Control. ICML 2016.
        arXiv:1604.06778, section 4.3, linear feature baseline.
    """
    values = fit_returns(rollouts, discount) * rollouts.alive
    return standardise(find_advantages(rollouts.rewards, values, discount, trace), (1, 2), rollouts.alive)


def fit_returns(rollouts: Rollouts, discount: float) -> Tensor:
    """Return the values [B, R, T] of the linear function of features that is nearest to the returns, per task."""
    seen, returns = rollouts.observations, sum_discounted(rollouts.rewards, discount)
    time = torch.arange(seen.shape[2], device=seen.device, dtype=seen.dtype) / 100
    times = torch.stack([time**power for power in range(4)], -1).expand(*seen.shape[:3], 4)
    features = torch.cat([seen, seen.square(), times], -1).flatten(1, 2).double()  # [B, RT, F]
    weighted = features * rollouts.alive.flatten(1, 2)[..., None]
    ridge = 1e-5 * torch.eye(features.shape[-1], dtype=features.dtype, device=seen.device)
    right = weighted.mT @ returns.flatten(1, 2)[..., None].double()
    values: Tensor = features @ torch.linalg.solve(weighted.mT @ features + ridge, right)
    return values.view_as(returns).to(seen.dtype)
