from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.core.control import Control
from metarun.core.ranges import PositiveInt
from metarun.core.seeding import derive_seed
from metarun.core.tasks import EpisodePlan
from metarun.data.environments import SimulatedTasks, Simulation, Stream

if TYPE_CHECKING:
    import gymnasium

Values = dict[str, float]
"""What one task's environment is made with, by name."""


class GymnasiumTasks(SimulatedTasks):
    """Environments of gymnasium, one's own or others': the tasks differ in what they are made with.

    Each number in `tasks` is drawn for each task, evenly from its range: whole where both ends are. An environment is
    reset with a seed of its own for each episode, so it must take all that is random from its own generator. Such
    environments go on one after the other, so they are far slower than those that metarun simulates.

    Args:
        plan, device: from the runner.
        id: as gymnasium.make takes it; `module:Name-v0` imports the module first.
        tasks: least and greatest value of what gymnasium.make is given, by its name: a list of such mappings.
        length: steps of an episode, at most.
        episodes: episodes that a learner has.
    Raises: ValueError if gymnasium is not installed, or there is no such environment.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        id: str,
        tasks: Sequence[Mapping[str, Sequence[float]]],
        length: PositiveInt,
        episodes: PositiveInt,
    ) -> None:
        self.id, self.ranges = id, {name: _read_range(name, ends) for one in tasks for name, ends in one.items()}
        self.numbers = max(1, len(self.ranges))
        first = self.open(self.values(np.zeros(self.numbers)))
        self.spaces = _read_spaces(first, id)
        first.close()
        observation, actions, discrete, bound = self.spaces
        control = Control(observation, actions, discrete, length, episodes, bound)
        super().__init__(plan, device, control, {"id": id, "tasks": self.ranges})

    def values(self, u: NDArray[np.float64]) -> Values:
        """Return what a task's environment is made with, from random numbers [numbers]."""
        found: Values = {}
        for share, (name, (low, high)) in zip(u, self.ranges.items(), strict=False):
            whole = isinstance(low, int) and isinstance(high, int)
            found[name] = low + int(share * (high - low + 1)) if whole else low + float(share) * (high - low)
        return found

    def open(self, values: Values) -> gymnasium.Env[Any, Any]:
        """Make the environment of a task."""
        gymnasium = import_gymnasium()
        try:
            return gymnasium.make(self.id, disable_env_checker=True, **values)  # type: ignore[no-any-return]
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"data.id={self.id} with {values or 'no tasks'} cannot be made: {reason}") from error

    def simulate(self, stream: Stream) -> Simulation:
        drawn = stream.draw(self.numbers)
        worlds = Worlds(self.control, stream, {}, self.device)
        worlds.open = [partial(self.open, self.values(row)) for row in drawn]
        return worlds


class Worlds(Simulation):
    """Environments of gymnasium, each stepped by itself.

    Attributes:
        open: makes an environment of each task.
        made: those of each task that there are.
    """

    open: list[Any]
    made: list[list[gymnasium.Env[Any, Any]]]

    def tasks(self, first: int, last: int) -> Worlds:
        part = super().tasks(first, last)
        part.open, part.made = self.open[first:last], []
        return part

    def reset(self, n: int, episode: int) -> Tensor:
        self.episode = episode
        return super().reset(n, episode)

    def begin(self, n: int, u: Tensor) -> Tensor:
        self.made = getattr(self, "made", None) or [[] for _ in self.open]
        shown = []
        for place, (make, worlds) in enumerate(zip(self.open, self.made, strict=True)):
            worlds += [make() for _ in range(n - len(worlds))]
            task = int(self.stream.indices[place])
            names = [f"{self.stream.split}/{task}/{self.episode + i}" for i in range(n)]
            seeds = [derive_seed(self.stream.seed, name) >> 32 for name in names]
            shown.append([world.reset(seed=seed)[0] for world, seed in zip(worlds, seeds, strict=False)])
        return self._observe(shown)

    def move(self, actions: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chosen = actions.detach().cpu().numpy()
        shown, rewards, ended = [], np.zeros(chosen.shape[:2]), np.zeros(chosen.shape[:2], bool)
        over = self.over.cpu().numpy()
        for task, worlds in enumerate(self.made):
            shown.append(list(self.last[task]))
            for place in range(chosen.shape[1]):
                if not over[task, place]:
                    world, action = worlds[place], chosen[task, place]
                    observation, reward, end, cut, _ = world.step(self._translate(world, action))
                    shown[-1][place] = observation
                    rewards[task, place], ended[task, place] = reward, end or cut
        paid = torch.as_tensor(rewards).to(torch.get_default_dtype()).to(self.device)
        return self._observe(shown), paid, torch.as_tensor(ended).to(self.device)

    def _translate(self, world: Any, action: NDArray[Any]) -> Any:
        """Return the action as the environment takes it."""
        if self.control.discrete:
            return int(action) + int(world.action_space.start)
        space = world.action_space
        return np.clip(action.astype(space.dtype).reshape(space.shape), space.low, space.high)

    def _observe(self, shown: list[list[Any]]) -> Tensor:
        self.last = shown
        flat = [[_flatten(world, one) for one in row] for (world, *_), row in zip(self.made, shown, strict=True)]
        return torch.as_tensor(np.array(flat)).to(torch.get_default_dtype()).to(self.device)


def import_gymnasium() -> Any:
    """Return the package gymnasium. Raises: ValueError if it is not installed."""
    try:
        import gymnasium
    except ImportError as error:
        raise ValueError("data=gymnasium needs gymnasium: uv sync, or pip install 'gymnasium>=1.2,<2'") from error
    return gymnasium


def _flatten(world: Any, observation: Any) -> NDArray[Any]:
    from gymnasium.spaces.utils import flatten

    return np.asarray(flatten(world.observation_space, observation))


def _read_range(name: str, ends: Any) -> tuple[float, float]:
    numbers = isinstance(ends, Sequence) and all(isinstance(end, int | float) for end in ends)
    if not numbers or len(ends) != 2 or ends[0] > ends[1]:
        raise ValueError(
            f"data.tasks: {name}={ends} must be the least and the greatest value: [{{{name}: [1.0, 2.0]}}]"
        )
    return ends[0], ends[1]


def _read_spaces(world: Any, id: str) -> tuple[int, int, bool, float | None]:
    """Return the size of an observation, the number or size of actions, whether these are discrete, and their bound."""
    from gymnasium import spaces
    from gymnasium.spaces.utils import flatdim

    actions = world.action_space
    if isinstance(actions, spaces.Discrete):
        return flatdim(world.observation_space), int(actions.n), True, None
    if isinstance(actions, spaces.Box):
        bound = float(np.abs([actions.low, actions.high]).max())  # infinite where they are not cut
        return (
            flatdim(world.observation_space),
            int(np.prod(actions.shape)),
            False,
            bound if np.isfinite(bound) else None,
        )
    raise ValueError(
        f"data.id={id} has actions of the kind {type(actions).__name__}, and only Discrete and Box are known"
    )
