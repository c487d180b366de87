"""Hydra's own settings: those that a person may type, and those that metarun relies on.

Hydra would write settings and logs into the folder of a run before the run is accepted, change the folder that printed
commands are meant for, and take values that it then replaces by its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from metarun.core.command import find_key
from metarun.core.errors import ConfigError
from metarun.core.ranges import NonNegativeInt, PositiveInt
from metarun.settings.compose import explain_errors
from metarun.settings.ranges import describe_problem

TYPED = (
    "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra/launcher", "hydra.launcher", "hydra/sweeper",
    "hydra.sweeper", "hydra/callbacks", "hydra.callbacks", "hydra.searchpath", "hydra.job.name",
    "hydra.job.env_set", "hydra.job.env_copy",
)  # fmt: skip
"""Settings of Hydra's that may be typed, with all below them."""

OURS = ("folder", "distinct", "accepted", "sweep")
"""Callbacks of metarun's, see conf/config.yaml."""

RANGES: Mapping[str, Any] = {
    "launcher.n_jobs": Literal[-1] | PositiveInt,
    "launcher.timeout_min": PositiveInt,
    "launcher.array_parallelism": PositiveInt,
    "launcher.cpus_per_task": PositiveInt,
    "launcher.gpus_per_node": NonNegativeInt,
    "sweeper.max_batch_size": PositiveInt,
    "sweeper.n_trials": PositiveInt,
    "sweeper.n_jobs": PositiveInt,
}
"""Ranges of numbers that launchers and sweepers check only after they have written something."""

NO_CALLBACK = "is no callback: it needs a _target_, the name of a class"

FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "paths.outputs", "paths.cache", "paths.data")

OF_SWEEPS = ("sweep.", "hydra.sweep.", "hydra.sweeper.", "hydra/sweeper", "hydra.launcher.", "hydra/launcher")
"""Settings of sweeps alone."""


def find_idle_words(words: Sequence[str], sweep: bool) -> Iterator[str]:
    """Find words that count only with, or only without, -m."""
    for word in words:
        if not sweep and find_key(word).startswith(OF_SWEEPS):
            yield f"{word} has no effect without -m"
        if sweep and find_key(word) == "hydra.run.dir":
            yield f"{word} has no effect with -m: the runs of a sweep lie in hydra.sweep.dir"


def check_typed(words: Sequence[str]) -> None:
    """Raise ConfigError for an override of Hydra's own settings that is not in TYPED, or of a folder without a name."""
    for word in words:
        key = find_key(word)
        if key in FOLDERS and word.partition("=")[2].strip(" '\"") == "":
            raise ConfigError(f"{word} names no folder: type {key}=FOLDER, and {key}=. for the one you are in")
        if not key.startswith(("hydra.", "hydra/")):
            continue
        allowed = any(key == known or key.startswith((f"{known}.", f"{known}@")) for known in TYPED)
        value = word.partition("=")[2]
        if key.startswith("hydra.callbacks.") and key.count(".") == 2 and word[0] != "~" and value[:1] not in "{$":
            raise ConfigError(f"{word} {NO_CALLBACK}")  # Hydra itself makes the callbacks, before check_composed
        removes = word.startswith("~") and not key.startswith("hydra.callbacks.")
        if removes or not allowed or key.startswith(tuple(f"hydra.callbacks.{name}" for name in OURS)):
            hint = "for a sweep type -m; " if key == "hydra.mode" else ""
            raise ConfigError(f"{word}: {key} is metarun's own; {hint}of Hydra's settings there are {', '.join(TYPED)}")


def check_composed(hydra: DictConfig) -> None:
    """Raise ConfigError if Hydra's own settings, from whatever file, are not such that metarun can rely on them."""
    for key, unset, why in (
        ("output_subdir", None, "a run writes its settings itself, once it is accepted"),
        ("job.chdir", False, "the commands that a run prints are for the folder where it was started"),
        ("job_logging.handlers", None, "a run writes run.log itself, once it is accepted"),
    ):
        if found := OmegaConf.select(hydra, key):
            shown = found if isinstance(found, str | bool) else "{...}"
            raise ConfigError(f"hydra.{key}={shown} must be {'null' if unset is None else 'false'}: {why}")
    for part in ("launcher", "sweeper"):
        if "_target_" not in (node if isinstance(node := hydra[part], DictConfig) else {}):
            raise ConfigError(f"hydra.{part}={node} is none: type hydra/{part}=NAME")
    for name, node in (hydra.callbacks or {}).items():
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise ConfigError(f"hydra.callbacks.{name}={node} {NO_CALLBACK}")
    with explain_errors([]):
        _ = hydra.sweep.dir  # which a single run reads too
    places: Any = OmegaConf.to_container(hydra.sweep)  # not resolved: a job has not been made yet
    if ".." in PurePath(str(places["subdir"])).parts or PurePath(str(places["subdir"])).is_absolute():
        raise ConfigError(f"hydra.sweep.subdir={places['subdir']} is not within the folder of the sweep")
    for key, annotation in RANGES.items():
        value = OmegaConf.select(hydra, key)
        if value is not None and (problem := describe_problem(f"hydra.{key}", value, annotation)):
            raise ConfigError(problem)
    for place in OmegaConf.select(hydra, "searchpath") or []:
        folder = place.removeprefix("file://")
        if "://" not in folder and not Path(folder).is_dir():
            raise ConfigError(f"hydra.searchpath={place}: there is no folder {folder}")
