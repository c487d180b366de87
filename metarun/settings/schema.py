"""The settings: those of the root, and those keys of a group that go to no constructor of ours.

A group mirrors its constructor, where ranges and choices stand. They stand here for seed, threads, precision, bn and
sweep.rerun, which belong to no group; for what build.py reads of a group itself; and for torch's optimizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from annotated_types import Ge
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from metarun.core.ranges import Ascending, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

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
class Settings:
    """All that a person chose for one run, checked and resolved.

    Attributes:
        choices: what was chosen in each group, by the group's name; empty where nobody asks.
        optims: what optimizers other than the outer one have of their own, by name.
        The others are the keys of conf/config.yaml.
    """

    seed: NonNegativeInt
    device: str
    threads: PositiveInt | Literal["auto"]
    precision: Literal["float32", "tf32", "bf16"]
    deterministic: bool
    bn: Literal["transductive", "support", "running", "none"]
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

    def as_dict(self) -> dict[str, Any]:
        """All of them by key, as conf/config.yaml has them."""
        return {name: value for name, value in vars(self).items() if name != "choices"}


class TaskKeys(TypedDict):
    """What build.py makes an EpisodeShape of, for validation and test tasks."""

    n_way: Annotated[int, Ge(2)]
    k_shot: PositiveInt
    n_query: PositiveInt


class TrainTaskKeys(TypedDict):
    """Likewise for training tasks, which may have another number of points in each meta-batch."""

    n_way: Annotated[int, Ge(2)]
    k_shot: PositiveInt | Annotated[Sequence[PositiveInt], Ascending()]
    n_query: PositiveInt


class DataKeys(TaskKeys):
    """What build.py reads of `data`, or other settings refer to."""

    train: TrainTaskKeys
    eval_seed: NonNegativeInt
    steps: int
    wide: Annotated[int, Ge(2)]


class OptimKeys(TypedDict):
    """What build.py reads of `optim`."""

    clip_norm: PositiveFloat | None
    schedule: Node


class TorchOptimKeys(TypedDict):
    """What optimizers of torch are given, whose constructors name no range."""

    lr: PositiveFloat
    weight_decay: NonNegativeFloat


class RunKeys(TypedDict):
    """What build.py and app/jobs/workers.py read of `run`."""

    compile: Literal["auto", True, False, "inductor"]
    processes: PositiveInt | Literal["auto"]


class SweepKeys(TypedDict):
    """Of `sweep`, which is no setting of a run."""

    rerun: Literal["interrupted", "failed", "all"]


BUILD_KEYS = {
    "data": set(get_type_hints(DataKeys)),
    "optim": set(get_type_hints(OptimKeys)),
    "run": set(get_type_hints(RunKeys)),
}
"""Keys of a group that its constructor is not given."""

_OWN = (
    ("", Settings), ("data.", DataKeys), ("data.train.", TrainTaskKeys), ("optim.", OptimKeys),
    ("optim.", TorchOptimKeys), ("run.", RunKeys), ("sweep.", SweepKeys),
)  # fmt: skip
ANNOTATIONS: dict[str, Any] = {
    f"{prefix}{name}": annotation
    for prefix, keys in _OWN
    for name, annotation in get_type_hints(keys, include_extras=True).items()
}
"""Of the settings that no constructor of ours takes, by dotted key; those of all others stand on the constructor."""


def register() -> None:
    """Make the schema known to Hydra as the config `schema`."""
    ConfigStore.instance().store(name="schema", node=Config)
