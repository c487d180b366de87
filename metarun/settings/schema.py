"""Types and ranges of the settings. Groups are open (each mirrors its constructor); their common keys are not."""

from __future__ import annotations

from collections.abc import Sequence
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
    threads: Any = "auto"
    precision: str = "float32"
    deterministic: bool = False
    bn: str = "transductive"
    paper: Any = None
    sweep: Sweep = field(default_factory=Sweep)
    paths: Paths = field(default_factory=Paths)
    data: Any = MISSING
    backbone: Any = MISSING
    algo: Any = MISSING
    optim: Any = MISSING
    optims: Any = field(default_factory=dict)
    run: Any = MISSING
    logger: Any = MISSING


@dataclass(frozen=True)
class Number:
    """A number with a least value; `above` excludes it, `whole` wants an int; `optional` allows null, `word` itself.

    `span` takes one, or the least and the greatest of a range.
    """

    least: float
    above: bool = False
    whole: bool = True
    optional: bool = False
    span: bool = False
    word: str | None = None

    def problem(self, key: str, value: Any) -> str | None:
        """What is wrong with `value`, if anything."""
        if (value is None and self.optional) or value == self.word is not None:
            return None
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        if self.span and listed and len(value) == 2 and all(map(self._fits, value)) and value[0] <= value[1]:
            return None
        if not listed and self._fits(value):
            return None
        kind = "a whole number" if self.whole else "a number"
        bound = f"{'above' if self.above else 'of at least'} {self.least:g}"
        other = " or null" if self.optional else ", or a range: [3,50]" if self.span else ""
        other = f" or {self.word}" if self.word else other
        return f"{key}={value} must be {kind} {bound}{other}"

    def _fits(self, value: Any) -> bool:
        kinds = (int,) if self.whole else (int, float)
        of_kind = isinstance(value, kinds) and not isinstance(value, bool)
        return of_kind and bool(value > self.least if self.above else value >= self.least)


COUNT = Number(1)
RATE = Number(0, above=True, whole=False)

RANGES = {
    "seed": Number(0),
    "threads": Number(1, word="auto"),
    "data.n_way": Number(2),
    "data.k_shot": COUNT,
    "data.n_query": COUNT,
    "data.train.n_way": Number(2),
    "data.train.k_shot": Number(1, span=True),
    "data.train.n_query": COUNT,
    "data.eval_seed": Number(0),
    "data.wide": Number(2),
    "optim.lr": RATE,
    "optim.weight_decay": Number(0, whole=False),
    "optim.clip_norm": Number(0, above=True, whole=False, optional=True),
    "run.processes": Number(1, word="auto"),
}
"""Of settings that build.py reads, or that go to torch, by key; all others stand on the constructor that takes them."""

CHOICES = {
    "sweep.rerun": ("interrupted", "failed", "all"),
    "precision": ("float32", "tf32", "bf16"),
    "bn": ("transductive", "support", "running", "none"),
    "run.compile": ("auto", True, False, "inductor"),
}
"""As RANGES."""


def register() -> None:
    """Make the schema known to Hydra as the config `schema`."""
    ConfigStore.instance().store(name="schema", node=Config)
