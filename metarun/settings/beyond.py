"""Settings above the number of what they count, as parts of what cannot be cut so often: they do less than they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from metarun.core.command import find_key
from metarun.core.ranges import BY_SIZE, UpTo
from metarun.settings.conf import GROUPS
from metarun.settings.ranges import find_marks


class Count(NamedTuple):
    """How many there are of something, as settings say; None where they do not. `keys` are those settings."""

    find: Callable[[DictConfig], int | None]
    keys: tuple[str, ...]


def find_beyond(config: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    """Find settings above the number that they count up to, where they or what that number comes from were typed."""
    keys = {find_key(word) for word in typed}
    for group in GROUPS:
        for name, mark in find_marks(config[group]["_target_"], UpTo).items():
            count, key = COUNTS[mark.number], f"{group}.{name}"
            if keys.isdisjoint((key, *count.keys)) or (most := count.find(config)) is None:
                continue
            if isinstance(value := OmegaConf.select(config, key), int) and value > most:
                yield f"{key}={value} is above the number of {mark.number}, {most}, and does what {most} does"


def find_unreached(config: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    """Find outer steps at which a schedule that was typed would change the rate, and which come after the run."""
    schedule, steps = config.optim.get("schedule") or {}, config.run.get("steps")
    if steps and any(find_key(word).replace("/", ".").startswith("optim.schedule") for word in typed):
        for name in CHANGES:
            value = schedule.get(name, [])
            late = [str(step) for step in ([value] if isinstance(value, int) else value) if step >= steps]
            if late:
                told = f"optim.schedule.{name}={value} changes no rate at {', '.join(late)}"
                yield f"{told}: the run ends after run.steps={steps}"


def _count_support(config: DictConfig, tasks: str) -> int | None:
    """Count the support examples of the largest of the tasks that `tasks`, data or data.train, describes."""
    node = OmegaConf.select(config, tasks) or {}
    shots = _find_largest(node.get("k_shot"))
    return None if shots is None else _find_largest(node.get("n_way", 1)) * shots


def _count_other_queries(config: DictConfig) -> int:
    return int(_find_largest(config.data.get("n_way", 1)) * config.data.n_query) - 1


def _count_validations(config: DictConfig) -> int | None:
    steps = config.run.get("steps")
    return -(-steps // (config.run.val_every or max(1, -(-steps // 10)))) if steps else None


def _count_pixels(config: DictConfig) -> int | None:
    size = config.data.get("image_size")
    return size // 2 ** (len(config.backbone.widths) - 1) if size else None


def _count_relus(config: DictConfig) -> int | None:
    """Return one for each layer of a convolutional or fully connected network; None for others."""
    return config.backbone.get("layers") or len(config.backbone.get("widths", ())) or None


def _count_values(config: DictConfig) -> int | None:
    """Return 1 if each hyper-parameter of a Gaussian process has one value."""
    drawn = PRIOR if config.data.kernel == "periodic" else PRIOR[:2]
    return 1 if all(low == high for low, high in (config.data[key] for key in drawn)) else None


def _find_largest(value: Any) -> Any:
    """Return the number, or the largest of a range; None for shots that classes decide."""
    return None if value in (None, BY_SIZE) else max(value) if OmegaConf.is_list(value) else value


CHANGES = ("at", "milestones", "step_size")
"""Settings of schedules that say at which outer steps, or every how many, the rate changes."""

PRIOR = ("length_scale", "scale", "period")

COUNTS = {
    "tasks of an outer step": Count(lambda config: config.run.meta_batch_size, ("run.meta_batch_size",)),
    "support examples of a training task": Count(
        lambda config: _count_support(config, "data.train"), ("data.train.n_way", "data.train.k_shot")
    ),
    "support examples of a test task": Count(
        lambda config: _count_support(config, "data"), ("data.n_way", "data.k_shot")
    ),
    "other queries of a test task": Count(_count_other_queries, ("data.n_way", "data.n_query")),
    "inner steps": Count(lambda config: config.algo.inner_steps, ("algo.inner_steps",)),
    "tasks of a stream": Count(lambda config: config.run.tasks, ("run.tasks",)),
    "validations": Count(_count_validations, ("run.steps", "run.val_every")),
    "pixels of a side of the last map but one": Count(_count_pixels, ("data.image_size", "backbone.widths")),
    "ReLUs of the network": Count(_count_relus, ("backbone.layers", "backbone.widths")),
    "values that each hyper-parameter has": Count(_count_values, tuple(f"data.{key}" for key in (*PRIOR, "kernel"))),
}
"""How many there are, by what UpTo calls them."""
