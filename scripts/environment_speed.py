"""Environment steps a second: data=navigation, here and in gymnasium's vector environments.

uv run python scripts/environment_speed.py
uv run python scripts/environment_speed.py --rounds 9 --tasks 20 --episodes 20

Theirs is the same task as one plain numpy environment, made many times by SyncVectorEnv, or by AsyncVectorEnv, which
gives each a process. All take turns, a round each, on given actions; rewards are compared before anything is timed.
Ratios are of times of one round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.navigation import Navigation

REACH, STRIDE, LENGTH = 0.5, 0.1, 100
Times = dict[str, list[float]]


class Point(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """The task as one would write it for gymnasium; at the goal it goes on, so that all episodes are of one length."""

    def __init__(self, goal: NDArray[np.float32]) -> None:
        self.goal = goal
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-STRIDE, STRIDE, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = np.zeros(2, np.float32), 0
        return self.place, {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.place = self.place + np.clip(action, -STRIDE, STRIDE)
        self.steps += 1
        away = self.place - self.goal
        return self.place, -float(np.hypot(*away)), False, self.steps >= LENGTH, {}


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Measure, print, and return the median of steps a second by contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=20, help="side by side in each task")
    parser.add_argument("--processes", type=int, default=4, help="environments of AsyncVectorEnv; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shape = EpisodeShape(0, 0, 0)
    source = Navigation(EpisodePlan(shape, shape, 0, 0), torch.device("cpu"), REACH, STRIDE, LENGTH, asked.episodes)
    tasks = next(source.environments("test", 0, asked.tasks))
    goals = tasks.goal.numpy().repeat(asked.episodes, 0).astype(np.float32)  # [B R, 2]
    moves = np.random.default_rng(0).normal(0, STRIDE, (LENGTH, len(goals), 2)).astype(np.float32)
    makers = [lambda goal=goal: Point(goal) for goal in goals]
    theirs = {"gymnasium, one process": SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)}
    if asked.processes:
        few = makers[: asked.processes]
        theirs["gymnasium, a process each"] = AsyncVectorEnv(few, autoreset_mode=AutoresetMode.DISABLED)
    contestants: dict[str, Callable[[], float]] = {
        "metarun": lambda: run_ours(tasks, moves, asked.episodes),
        **{name: (lambda worlds=worlds: run_theirs(worlds, moves)) for name, worlds in theirs.items()},
    }
    check(tasks, theirs["gymnasium, one process"], moves, asked.episodes)
    rates: Times = {name: [] for name in contestants}
    for _ in range(asked.rounds):
        for name, run in contestants.items():
            rates[name].append(run())
    for worlds in theirs.values():
        worlds.close()
    ours = np.array(rates["metarun"])
    for name, found in rates.items():
        ratio = ours / np.array(found)
        print(
            f"{name:28} {np.median(found):12,.0f} steps/s ({min(found):,.0f} to {max(found):,.0f})"
            f"   metarun is {np.median(ratio):.1f} times as fast ({ratio.min():.1f} to {ratio.max():.1f})"
        )
    return {name: float(np.median(found)) for name, found in rates.items()}


def run_ours(tasks: Any, moves: NDArray[np.float32], episodes: int) -> float:
    """Return steps a second of one episode in each environment."""
    actions = torch.from_numpy(moves).view(LENGTH, tasks.n_tasks, episodes, 2)
    started = time.perf_counter()
    tasks.reset(episodes, 0)
    for action in actions:
        tasks.step(action)
    return actions[..., 0].numel() / (time.perf_counter() - started)


def run_theirs(worlds: Any, moves: NDArray[np.float32]) -> float:
    """Return the same of gymnasium's."""
    started = time.perf_counter()
    worlds.reset()
    for action in moves:
        worlds.step(action[: worlds.num_envs])
    return LENGTH * worlds.num_envs / (time.perf_counter() - started)


def check(tasks: Any, worlds: Any, moves: NDArray[np.float32], episodes: int) -> None:
    """Compare all rewards of an episode until it reaches the goal, from where ours pays nothing."""
    tasks.reset(episodes, 0)
    worlds.reset()
    over = np.zeros(len(moves[0]), bool)
    for action in moves:
        _, reward, done = tasks.step(torch.from_numpy(action).view(tasks.n_tasks, episodes, 2))
        other = worlds.step(action)[1]
        assert np.allclose(reward.flatten().numpy()[~over], other[~over], atol=1e-4), "the two tasks are not the same"
        over |= done.flatten().numpy().astype(bool)


if __name__ == "__main__":
    main()
