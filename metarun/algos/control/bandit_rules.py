"""Rules for bandits that score each arm by its successes and failures, and pull the best."""

from __future__ import annotations

from abc import abstractmethod

import torch
from scipy.special import betaincinv
from torch import Tensor

from metarun.algos.control.rule import Rule
from metarun.core.control import Control, Environments
from metarun.core.ranges import NonNegativeFloat


class BanditRule(Rule):
    """Pulls the arm of the greatest index, which depends on the arm's successes and failures; of several, any.

    Every arm begins with one success and one failure, as a uniform prior has it: Beta(1, 1).
    """

    kinds = ("bandits",)

    def rewards(self, batch: Environments) -> Tensor:
        arms = self.control.actions
        counts = torch.ones(batch.n_tasks, arms, 2, dtype=torch.float64)  # successes, failures
        rows = torch.arange(batch.n_tasks)
        rewards = []
        for pull in range(self.control.episodes):
            batch.reset(1, pull)
            drawn = batch.draw(1, pull, 2 * arms)[:, 0, 0]  # [B, 2k]
            u = drawn.cpu().double()
            arm = choose(self.index(counts, u[:, :arms]), u[:, arms:])
            reward = batch.step(arm[:, None].to(drawn.device)).reward
            won = reward[:, 0].cpu().double()
            counts[rows, arm] += torch.stack([won, 1 - won], 1)
            rewards.append(reward)
        return torch.cat(rewards, 1)

    @abstractmethod
    def index(self, counts: Tensor, u: Tensor) -> Tensor:
        """Return the index of each arm [B, k], given counts [B, k, 2] and random numbers u [B, k]."""


class Greedy(BanditRule):
    """Learns nothing: pulls the arm that has paid best so far, a posterior mean.

    Args:
        control: from the source.
    """

    def index(self, counts: Tensor, u: Tensor) -> Tensor:
        return counts[..., 0] / counts.sum(-1)


class Thompson(BanditRule):
    """Learns nothing: draws what each arm may pay from its posterior, and pulls the best of these.

    Args:
        control: from the source.
    Reference: Thompson. On the likelihood that one unknown probability exceeds another. Biometrika 1933; Chapelle, Li.
        An Empirical Evaluation of Thompson Sampling. NIPS 2011, Algorithm 2.
    """

    def index(self, counts: Tensor, u: Tensor) -> Tensor:
        return torch.from_numpy(betaincinv(*counts.numpy().transpose(2, 0, 1), u.numpy()))


class UCB1(BanditRule):
    """Learns nothing: pulls the arm of the greatest upper confidence bound, mean + c sqrt(2 ln t / n).

    t counts all pulls and n those of the arm, the success and the failure that each arm begins with among them: so no
    arm has an infinite bound. RL2's paper tunes `bonus`, and at few pulls far below the 1 of the theory.

    Args:
        control: from the source.
        bonus: c, >= 0.
    Reference: Auer, Cesa-Bianchi, Fischer. Finite-time Analysis of the Multiarmed Bandit Problem. 2002, Figure 1.
    """

    def __init__(self, control: Control, bonus: NonNegativeFloat) -> None:
        super().__init__(control)
        self.bonus = bonus

    def index(self, counts: Tensor, u: Tensor) -> Tensor:
        n = counts.sum(-1)
        return counts[..., 0] / n + self.bonus * (2 * n.sum(-1, keepdim=True).log() / n).sqrt()


def choose(index: Tensor, ties: Tensor) -> Tensor:
    """Return the arm of the greatest index [B, k]; of several, the one with the greatest of the numbers `ties`."""
    best = index >= index.amax(-1, keepdim=True) - 1e-9
    return torch.where(best, ties, -1.0).argmax(-1)
