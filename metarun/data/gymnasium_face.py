"""The program's environments as gymnasium knows them, for other programs' learners and tools."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from metarun.core.control import Control
from metarun.data.environments import MOST_EPISODES, SimulatedTasks, Simulation

Numbers = NDArray[Any]


class TaskEnv(gymnasium.Env[Numbers, Any]):
    """One task of a source at a time, one episode at a time.

    reset(seed=...) makes all episodes that follow repeatable; reset(options={"task": i}) goes to task i of the split.

    Args:
        source: of the tasks.
        split: train, val or test.
        task: number of the first task.
    """

    def __init__(self, source: SimulatedTasks, split: str = "train", task: int = 0) -> None:
        self.source, self.split = source, split
        self.observation_space, self.action_space = make_spaces(source.control)
        self._go_to(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Numbers, dict[str, Any]]:
        super().reset(seed=seed)
        if options and "task" in options:
            self._go_to(int(options["task"]))
        observation = self.world.reset(1, int(self.np_random.integers(MOST_EPISODES)))
        return _to_numpy(observation)[0, 0], {"task": self.task}

    def step(self, action: Any) -> tuple[Numbers, float, bool, bool, dict[str, Any]]:
        observation, reward, done = self.world.step(_to_actions(np.asarray(action)[None, None], self.source.control))
        ended = bool(self.world.ended[0, 0])
        return _to_numpy(observation)[0, 0], float(reward), ended, bool(done) and not ended, {"task": self.task}

    def _go_to(self, task: int) -> None:
        self.task = task
        self.world: Simulation = next(self.source.environments(self.split, task, 1))


class TaskVectorEnv(gymnasium.vector.VectorEnv[Numbers, Any, Numbers]):
    """The tasks first, first + 1, ... of a split side by side, an episode of each.

    Nothing is reset by itself: an episode that has ended stays where it is and pays nothing until all are reset.

    Args:
        source: of the tasks.
        num_envs: how many tasks.
        split: train, val or test.
        first: number of the first task.
    """

    def __init__(self, source: SimulatedTasks, num_envs: int, split: str = "train", first: int = 0) -> None:
        self.source, self.num_envs = source, num_envs
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}
        self.single_observation_space, self.single_action_space = make_spaces(source.control)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.world: Simulation = next(source.environments(split, first, num_envs))

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Numbers, dict[str, Any]]:
        super().reset(seed=seed)
        if options and not np.all(options.get("reset_mask", True)):
            raise ValueError("all episodes are reset together")
        return _to_numpy(self.world.reset(1, int(self.np_random.integers(MOST_EPISODES))))[:, 0], {}

    def step(self, actions: Any) -> tuple[Numbers, Numbers, Numbers, Numbers, dict[str, Any]]:
        found = self.world.step(_to_actions(np.asarray(actions)[:, None], self.source.control))
        ended = self.world.ended[:, 0].cpu().numpy()
        observation, reward = _to_numpy(found.observation)[:, 0], found.reward[:, 0].cpu().numpy()
        return observation, reward.astype(np.float64), ended, found.done[:, 0].cpu().numpy() & ~ended, {}


def make_spaces(control: Control) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Return the spaces of one environment's observations and actions."""
    observation = spaces.Box(-np.inf, np.inf, (control.observation,), np.float32)
    if control.discrete:
        return observation, spaces.Discrete(control.actions)
    bound = np.inf if control.bound is None else control.bound
    return observation, spaces.Box(-bound, bound, (control.actions,), np.float32)


def _to_actions(actions: Numbers, control: Control) -> torch.Tensor:
    return torch.as_tensor(actions, dtype=torch.int64 if control.discrete else torch.get_default_dtype())


def _to_numpy(observation: torch.Tensor) -> Numbers:
    return observation.cpu().numpy().astype(np.float32)
