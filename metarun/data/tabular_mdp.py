from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from metarun.core.control import Control
from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.environments import SimulatedTasks, Simulation, Stream
from metarun.data.functions import to_normal
from metarun.ops.functional import one_hot
from metarun.ops.quantiles import to_normal as normal_of


class TabularMDP(SimulatedTasks):
    """Random Markov decision processes. The observation is the state, one-hot; each episode starts in state 0.

    Where an action leads from a state is drawn from a flat Dirichlet distribution. What it pays is normal with
    deviation 1 around a mean that is drawn from N(1, 1).

    Args:
        plan, device: from the runner.
        states, actions: how many there are, >= 2.
        length: steps of an episode, T.
        episodes: episodes that a learner has, n.
    Reference: Duan et al. RL2. 2016. arXiv:1611.02779, section 3.2.
    """

    kinds = ("control", "mdp")

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        states: Annotated[int, Ge(2)],
        actions: Annotated[int, Ge(2)],
        length: PositiveInt,
        episodes: PositiveInt,
    ) -> None:
        self.sizes = (states, actions)
        self.numbers = states * actions * (states + 1)
        sizes = {"states": states, "actions": actions}
        super().__init__(plan, device, Control(states, actions, True, length, episodes), sizes)

    def simulate(self, stream: Stream) -> Simulation:
        s, a = self.sizes
        u = stream.draw(self.numbers).reshape(len(stream.indices), s, a, s + 1)
        weight = -np.log1p(-u[..., :s])  # exponential, so that the shares are flat Dirichlet
        facts = {
            "transition": self.tensor(weight / weight.sum(-1, keepdims=True)),  # [B, S, A, S]
            "pays": self.tensor(1 + to_normal(u[..., s])),  # [B, S, A]
        }
        return Walks(self.control, stream, facts, self.device)


class Walks(Simulation):
    """Processes with `transition` [B, S, A, S] and mean rewards `pays` [B, S, A]."""

    numbers = 2

    def begin(self, n: int, u: Tensor) -> Tensor:
        self.state = torch.zeros(self.n_tasks, n, dtype=torch.int64, device=self.device)
        self.bounds = self.transition.cumsum(-1)[..., :-1].contiguous()
        self.rows = torch.arange(self.n_tasks, device=self.device)[:, None]
        return self._observe(u.dtype)

    def move(self, actions: Tensor, u: Tensor) -> tuple[Tensor, Tensor, bool]:
        reward = self.pays[self.rows, self.state, actions] + normal_of(u[..., 1])
        bounds = self.bounds[self.rows, self.state, actions]  # [B, R, S - 1]
        self.state = (u[..., :1] >= bounds).sum(-1)
        return self._observe(u.dtype), reward, False

    def _observe(self, dtype: torch.dtype) -> Tensor:
        return one_hot(self.state, self.control.observation, dtype)
