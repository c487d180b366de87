"""What is to be reproduced: the targets of conf/targets.yaml, and whether a run is one of a target."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from metarun.core.dotted import leaves
from metarun.core.errors import ConfigError, suggest
from metarun.settings.compose import compose
from metarun.settings.conf import CONF
from metarun.settings.names import LONGEST
from metarun.settings.saved import open_settings

TARGETS = CONF / "targets.yaml"

ASIDE = ("hydra", "paths", "sweep", "logger", "paper", "seed", "device", "threads", "defaults")
"""Settings at the root that do not make another experiment."""

SPEED = (
    "run.processes", "run.compile", "run.log_every", "run.checkpoint_every", "run.eval_batch_size",
    "algo.engine", "algo.task_chunk", "deterministic",
)  # fmt: skip
"""Settings that change numbers by no more than rounding."""

NAMED = ("precision", "run.val_every", "run.val_tasks", "run.test_tasks")
"""Settings that a run of a target may have otherwise, if it is said beside its number."""


@dataclass(frozen=True)
class Paper:
    """A paper's number.

    Attributes:
        value, plus_minus: as in results.json, accuracies as fractions; None where the paper has no interval.
        over: what the interval is over, None where we do not know.
        source: the paper and its table.
    """

    value: float
    plus_minus: float | None
    over: str | None
    source: str


@dataclass(frozen=True)
class Target:
    """A number that runs are to come to.

    Attributes:
        name: of the target.
        experiment, overrides: what a run of it is.
        score: of results.json.
        seeds: of the runs.
        paper: its number; None where it has none.
        protocol: how the paper tests, by n_query, bn and test_tasks; None is what we do not know.
        differences: of our run and its test from the paper's, beside those.
        minutes: of a seed by hardware, None where not known.
    """

    name: str
    experiment: str
    paper: Paper | None
    protocol: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    score: str = "accuracy"
    seeds: tuple[int, ...] = (0, 1, 2)
    differences: tuple[str, ...] = ()
    minutes: Mapping[str, float | None] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """What is typed for a run, the seed aside: targets that share it share their runs."""
        return f"+experiment={self.experiment}", *self.overrides

    def folder(self, runs: Path, seed: int) -> Path:
        """Where the run of a seed lies under `runs`: by its words, for targets share runs."""
        name = re.sub(r"[^\w.=,+-]", "_", ",".join([self.experiment, *self.overrides]))
        if len(name) > LONGEST:
            name = f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return runs / name / f"seed={seed}"


def read_targets(file: Path = TARGETS) -> dict[str, Target]:
    """The targets by name. Raises: ConfigError for a file that cannot be read, or a target that is not whole."""
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    return {name: _target(name, values) for name, values in found.items()}


def _target(name: str, values: Mapping[str, Any]) -> Target:
    try:
        lists = {key: tuple(values[key]) for key in ("overrides", "seeds", "differences") if key in values}
        paper = Paper(**values["paper"]) if values["paper"] else None
        return Target(**{"name": name, "experiment": name, **values, **lists, "paper": paper})
    except (TypeError, KeyError) as error:
        raise ConfigError(f"target {name}: {error}; conf/targets.yaml says what a target has") from error


def choose(asked: Sequence[str], targets: Mapping[str, Target]) -> list[Target]:
    """The targets of these names, or every one for `all`. Raises: ConfigError for another name."""
    for name in asked:
        if name not in targets and name != "all":
            raise ConfigError(f"there is no target {name}{suggest(name, targets)}; scripts/reproduce.py lists them")
    return [target for name, target in targets.items() if name in asked or "all" in asked]


def check_words(words: Sequence[str]) -> None:
    """Raises: ConfigError for a setting that would make another experiment of a target."""
    for word in words:
        key = word.partition("=")[0]
        if not (key in (*SPEED, *NAMED, "device", "threads", "logger") or key.startswith(("paths.", "logger."))):
            raise ConfigError(
                f"{word} would make it another experiment: a target of its own in conf/targets.yaml, with overrides, "
                f"or one of device, threads, logger, paths.*, {', '.join((*SPEED, *NAMED))}"
            )


def compose_target(target: Target) -> dict[str, Any]:
    """The settings of a target's runs by dotted key. Raises: ConfigError if they do not compose."""
    try:
        return _flat(compose(target.words))
    except ConfigError as error:
        raise ConfigError(f"target {target.name}: {error}") from error


def differing(folder: Path, wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of the run in `folder` that are not as `wanted`: what they are, and what they would be."""
    ours = _flat(open_settings(folder)[0])
    keys = sorted({*ours, *wanted} - set(SPEED))
    return {key: (ours.get(key), wanted.get(key)) for key in keys if ours.get(key) != wanted.get(key)}


def _flat(config: DictConfig) -> dict[str, Any]:
    kept = config.copy()
    for name in kept.paths:
        kept.paths[name] = ""  # settings that name them are the same everywhere
    values = OmegaConf.to_container(kept, resolve=True)
    assert isinstance(values, dict)
    return leaves({key: value for key, value in values.items() if key not in ASIDE})
