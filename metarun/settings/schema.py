"""The settings: those of the root, and those keys of a group that go to no constructor of ours.

A group mirrors its constructor, where ranges and choices stand. They stand here for seed, threads, precision, bn and
sweep.rerun, which belong to no group, and for what build.py reads of a group itself; for torch's classes they stand in
torch_ranges.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from annotated_types import Ge, Le
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from metarun.core.ranges import (
    Ascending,
    CountsWith,
    FilePath,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Node = Mapping[str, Any]
"""The settings of one group: `_target_` and what its constructor is given, as plain values."""


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
    """The root of the settings as Hydra composes them; conf/config.yaml says what each key means."""

    seed: int = 0
    device: str = "auto"
    threads: Any = "auto"
    precision: str = "float32"
    deterministic: Any = False  # OmegaConf takes 9 and "yes" for true
    bn: str = "transductive"
    inspect: str = "none"
    tags: Any = field(default_factory=list)
    notes: Any = None
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
class Settings:
    """All that a person chose for one run, checked and resolved.

    Attributes:
        choices: what was chosen in each group, by the group's name; empty where nobody asks.
        own: folders of YAML files of one's own, in which a source may look for others.
        optims: what optimizers other than the outer one have of their own, by name.
        The others are the keys of conf/config.yaml.
    """

    seed: NonNegativeInt
    device: str
    threads: Annotated[int, Ge(1), Le(4096)] | Literal["auto"]
    precision: Literal["float32", "tf32", "bf16"]
    deterministic: bool
    bn: Literal["transductive", "support", "running", "layer", "none"]
    inspect: Literal["none", "profile", "anomaly"]
    tags: Sequence[str]
    notes: str | None
    paper: Node | None
    paths: Mapping[str, str]
    data: Node
    backbone: Node
    algo: Node
    optim: Node
    optims: Mapping[str, Node]
    run: Node
    logger: Node
    choices: Mapping[str, str]
    own: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all settings by key, as conf/config.yaml has them."""
        return {name: value for name, value in vars(self).items() if name not in ("choices", "own")}


Ways = Annotated[int, Ge(2)] | Annotated[Sequence[Annotated[int, Ge(2)]], Ascending()]
"""Classes of a task; each task draws its own number from a range."""


class TaskKeys(TypedDict):
    """What build.py reads to make the EpisodeShape of validation and test tasks."""

    n_way: Ways
    k_shot: PositiveInt | Literal["by_size"]
    n_query: PositiveInt
    query: Literal["balanced", "dirichlet"]
    alpha: PositiveFloat


class TrainTaskKeys(TypedDict):
    """The same for training tasks, whose number of points may vary from meta-batch to meta-batch."""

    n_way: Ways
    k_shot: PositiveInt | Annotated[Sequence[PositiveInt], Ascending()] | Literal["by_size"]
    n_query: PositiveInt


class DataKeys(TaskKeys):
    """What build.py reads from `data`, or other settings refer to."""

    train: TrainTaskKeys
    eval_seed: NonNegativeInt
    steps: PositiveInt
    wide: Ways


class BackboneKeys(TypedDict):
    """What build.py reads from `backbone`, where its constructor does not take it: another run's folder."""

    weights: FilePath | None


class OptimKeys(TypedDict):
    """What build.py reads from `optim`."""

    clip_norm: PositiveFloat | None
    warmup: NonNegativeInt
    parts: Mapping[str, Any]
    schedule: Node


class RunKeys(TypedDict):
    """What build.py and app/jobs/workers.py read from `run`."""

    compile: Literal["auto", True, False, "inductor"]
    processes: PositiveInt | Literal["auto"]


class PathKeys(TypedDict):
    """The folders in `paths`."""

    data: str
    cache: str
    outputs: str


class PaperKeys(TypedDict):
    """The keys of `paper`, if an experiment has one."""

    value: float
    ci95: NonNegativeFloat | None
    source: str


class SweepKeys(TypedDict):
    """The keys of `sweep`, which are not settings of a run."""

    rerun: Literal["interrupted", "failed", "all"]


def _annotations(keys: type) -> dict[str, Any]:
    return get_type_hints(keys, include_extras=True)


BUILD_ANNOTATIONS = {
    group: _annotations(keys)
    for group, keys in (("data", DataKeys), ("backbone", BackboneKeys), ("optim", OptimKeys), ("run", RunKeys))
}
"""Of the keys of a group that its constructor is not given."""

BUILD_CONDITIONS = {"data": {"alpha": CountsWith("query", ("dirichlet",))}}
"""Of those keys, the ones that count only with certain values of another."""

BUILD_KEYS = {group: set(annotations) for group, annotations in BUILD_ANNOTATIONS.items()}

OWN_ANNOTATIONS = {
    "": _annotations(Settings),
    "data.train": _annotations(TrainTaskKeys),
    "paths": _annotations(PathKeys),
    "paper": _annotations(PaperKeys),
    "sweep": _annotations(SweepKeys),
}
"""Of the settings that belong to no constructor, by the key that they stand under."""


def register() -> None:
    """Register the schema with Hydra as the config `schema`."""
    ConfigStore.instance().store(name="schema", node=Config)
