"""Rules for tabular Markov decision processes: plans by what is known of a process, or by the process itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from scipy.special import gammaincinv
from torch import Tensor

from metarun.algos.control.rule import Rule
from metarun.core.control import Control
from metarun.core.ranges import Share
from metarun.ops.quantiles import to_normal


class Model(NamedTuple):
    """Processes: where each action leads from each state [B, S, A, S], and what it pays on average [B, S, A]."""

    transition: Tensor
    pays: Tensor


class ValueIteration(Rule):
    """Learns nothing: knows the process and plans exactly. The most that any learner can reach.

    Args:
        control: from the source.
    Reference: Puterman. Markov Decision Processes. 1994. Section 4.5, backward induction.
    """

    kinds = ("mdp",)

    def rewards(self, batch: Any) -> Tensor:
        plans = plan(Model(batch.transition, batch.pays), self.control.length)
        rows = torch.arange(batch.n_tasks, device=batch.pays.device)
        rewards = []
        for episode in range(self.control.episodes):
            state = batch.reset(1, episode)[:, 0].argmax(-1)
            for actions in plans:
                observation, reward, _ = batch.step(actions[rows, state][:, None])
                state = observation[:, 0].argmax(-1)
                rewards.append(reward)
        return torch.cat(rewards, 1)


class PosteriorPlans(Rule):
    """Learns nothing: plans each episode by what the steps so far tell of the process.

    The prior is that of the tasks: flat Dirichlet, and N(1, 1) with noise of deviation 1. The plan is the best one for
    the posterior mean, or, with `sampled`, for a process that is drawn from the posterior. Each step departs from it
    for a random action with probability `epsilon`.

    Args:
        control: from the source.
        sampled: draw the process to plan for (posterior sampling, PSRL).
        epsilon: probability of a random action.
    Reference: Strens. A Bayesian Framework for Reinforcement Learning. ICML 2000 (PSRL); Duan et al. RL2. 2016.
        arXiv:1611.02779, section 3.2, which compares with both.
    """

    kinds = ("mdp",)

    def __init__(self, control: Control, sampled: bool, epsilon: Share) -> None:
        super().__init__(control)
        self.sampled, self.epsilon = sampled, epsilon

    def rewards(self, batch: Any) -> Tensor:
        s, a = self.control.observation, self.control.actions
        went = batch.pays.new_zeros(batch.n_tasks, s, a, s)
        paid = batch.pays.new_zeros(batch.n_tasks, s, a)
        rows = torch.arange(batch.n_tasks, device=paid.device)
        rewards = []
        for episode in range(self.control.episodes):
            chance = batch.draw(1, episode, 2)[:, 0]  # [B, T, 2]
            plans = plan(self._guess(batch, went, paid, episode), self.control.length)
            state = batch.reset(1, episode)[:, 0].argmax(-1)
            for step, actions in enumerate(plans):
                other = (chance[:, step, 1] * a).long()
                action = torch.where(chance[:, step, 0] < self.epsilon, other, actions[rows, state])
                observation, reward, _ = batch.step(action[:, None])
                to = observation[:, 0].argmax(-1)
                went[rows, state, action, to] += 1
                paid[rows, state, action] += reward[:, 0]
                state = to
                rewards.append(reward)
        return torch.cat(rewards, 1)

    def _guess(self, batch: Any, went: Tensor, paid: Tensor, episode: int) -> Model:
        """Return the posterior mean of the processes, or processes drawn from the posterior."""
        count = went.sum(-1)
        mean = (1 + paid) / (1 + count)
        if not self.sampled:
            return Model((went + 1) / (count + went.shape[-1])[..., None], mean)
        numbers = paid[0].numel() + went[0].numel()
        # the episode's first random numbers are spent on actions; these are those of an episode that is never acted in
        u = batch.draw(1, episode + self.control.episodes, -(-numbers // self.control.length)).reshape(len(went), -1)
        normal, uniform = u[:, : paid[0].numel()], u[:, paid[0].numel() : numbers]
        drawn = gammaincinv((went + 1).cpu().numpy(), uniform.reshape(went.shape).cpu().numpy())
        weight = torch.as_tensor(drawn, dtype=paid.dtype, device=paid.device).clamp_min(1e-12)
        spread = to_normal(normal.reshape(paid.shape)) / (1 + count).sqrt()
        return Model(weight / weight.sum(-1, keepdim=True), mean + spread)


def plan(model: Model, length: int) -> list[Tensor]:
    """Return the best action in each state [B, S] for each of `length` steps, by backward induction."""
    value = torch.zeros_like(model.pays[..., 0])  # [B, S]
    plans = []
    for _ in range(length):
        worth = model.pays + torch.einsum("bsat,bt->bsa", model.transition, value)
        value, actions = worth.max(-1)
        plans.append(actions)
    return plans[::-1]
