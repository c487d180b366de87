"""Types and ranges of the settings. Groups are open (each mirrors its constructor); their common keys are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class Paths:
    data: str = MISSING
    cache: str = MISSING
    outputs: str = MISSING


@dataclass
class Sweep:
    rerun: str = "interrupted"


@dataclass
class Config:
    """The root of the settings; conf/config.yaml says what each key means."""

    seed: int = 0
    device: str = "auto"
    bn: str = "transductive"
    paper: Any = None
    sweep: Sweep = field(default_factory=Sweep)
    paths: Paths = field(default_factory=Paths)
    data: Any = MISSING
    backbone: Any = MISSING
    algo: Any = MISSING
    optim: Any = MISSING
    run: Any = MISSING
    logger: Any = MISSING


GROUPS = ("data", "backbone", "algo", "optim", "run", "logger")


@dataclass(frozen=True)
class Number:
    """A number with a least value; `above` excludes it, `whole` asks for an int, `optional` allows null."""

    least: float
    above: bool = False
    whole: bool = True
    optional: bool = False

    def problem(self, key: str, value: Any) -> str | None:
        """What is wrong with `value`, if anything."""
        if value is None and self.optional:
            return None
        kinds = (int,) if self.whole else (int, float)
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if fits and (value > self.least if self.above else value >= self.least):
            return None
        kind = "a whole number" if self.whole else "a number"
        bound = f"{'above' if self.above else 'of at least'} {self.least:g}"
        return f"{key}={value} must be {kind} {bound}" + (" or null" if self.optional else "")


COUNT = Number(1)
RATE = Number(0, above=True, whole=False)

RANGES = {
    "seed": Number(0),
    "data.n_way": Number(2),
    "data.k_shot": COUNT,
    "data.n_query": COUNT,
    "data.train.n_way": Number(2),
    "data.train.k_shot": COUNT,
    "data.train.n_query": COUNT,
    "data.eval_seed": Number(0),
    "data.image_size": COUNT,
    "backbone.hidden": COUNT,
    "backbone.layers": COUNT,
    "algo.inner_lr": RATE,
    "algo.inner_steps": COUNT,
    "algo.test_inner_steps": Number(0),
    "algo.inner_batch_size": COUNT,
    "algo.test_inner_batch_size": COUNT,
    "algo.temperature": RATE,
    "algo.task_chunk": Number(0),
    "optim.lr": RATE,
    "optim.weight_decay": Number(0, whole=False),
    "optim.clip_norm": Number(0, above=True, whole=False, optional=True),
    "run.steps": COUNT,
    "run.meta_batch_size": COUNT,
    "run.val_every": Number(1, optional=True),
    "run.val_tasks": Number(2),
    "run.test_tasks": Number(2),
    "run.eval_batch_size": COUNT,
    "run.checkpoint_every": COUNT,
    "run.log_every": COUNT,
}
"""Checked wherever the key is there."""

CHOICES = {
    "sweep.rerun": ("interrupted", "failed", "all"),
    "bn": ("transductive", "support", "running"),
    "algo.engine": ("auto", "vectorized", "learn2learn"),
    "algo.distance": ("euclidean", "cosine"),
    "backbone.downsample": ("pool", "stride"),
    "data.rotation": ("none", "class", "random"),
    "logger.mode": ("auto", "online", "offline", "disabled"),
}
"""Checked wherever the key is there."""


def register() -> None:
    """Make the schema known to Hydra as the config `schema`."""
    ConfigStore.instance().store(name="schema", node=Config)
