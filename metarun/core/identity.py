"""One hash of what a run is, in its settings, results and checkpoints: they belong together where they agree on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from metarun.core.dotted import leaves
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder

KEY = "settings_sha256"
"""Under which the hash stands in .hydra/hydra.yaml, results.json and checkpoints; older runs have none."""

TOLD = ("hydra", "logger", "inspect", "tags", "notes", "paths", "sweep")
"""Groups of settings that say who is told and where files lie, and nothing of what is run."""

ASIDE = (*TOLD, "threads", "run.processes")
"""Settings and groups that do not tell runs apart: their folders have the same name whatever these are."""

LEFT_OUT = (*ASIDE, "device", "paper", "data.path", "data.root", "data.cache")
"""Settings and groups that the hash leaves out: those above, and those of the machine and of where data lie."""

UNDO = "put back the file as it was; a run with other settings is a new one: metarun KEY=VALUE ..."


def hash_settings(config: Mapping[str, Any], hydra: Mapping[str, Any]) -> str:
    """Hash all settings but those of LEFT_OUT, the choices of groups, and what was typed.

    Args:
        config: .hydra/config.yaml, not resolved, so that neither machine nor version matters.
        hydra: what .hydra/hydra.yaml has under `hydra`.
    """
    kept = _keep_what_runs(config)
    choices = as_mapping(as_mapping(hydra.get("runtime")).get("choices"))
    told = {"settings": kept, "choices": dict(choices) | {"logger": None}, "overrides": read_overrides(hydra)}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def find_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Describe in what the settings `one` of a run are others than `other`, by what the hash is made of."""
    kept, now = _keep_what_runs(one), _keep_what_runs(other)
    return [
        f"{key}={kept.get(key)}, not {now.get(key)}"
        for key in dict.fromkeys([*kept, *now])
        if (key in kept, kept.get(key)) != (key in now, now.get(key))
    ]


def _keep_what_runs(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in leaves(config).items() if not is_among(key, LEFT_OUT)}


def read_hash(folder: RunFolder) -> str | None:
    """Hash the settings that lie in the folder now; None where there are none."""
    config, hydra = read_yaml(folder.settings), read_yaml(folder.hydra)
    return hash_settings(config, as_mapping(hydra.get("hydra"))) if config else None


def check_hash(folder: RunFolder, found: str | None, file: Path) -> None:
    """Raise ConfigError if `found`, the hash in a checkpoint, is not that of the run's settings.

    An older checkpoint has none, and is believed.
    """
    now = read_hash(folder) if found else None
    if now and found != now:
        raise ConfigError(
            f"{file} was not trained with the settings in {folder.settings}: one of the two was changed, or is of "
            f"another run: {UNDO}"
        )


def find_disagreement(
    folder: RunFolder, config: Mapping[str, Any], hydra: Mapping[str, Any], results: Mapping[str, Any]
) -> str | None:
    """Describe which file of a run is not that run's, if any: what to do is a part of it.

    Args:
        folder: the run's.
        config, hydra, results: the content of its config.yaml, hydra.yaml and results.json.
    """
    own = as_mapping(hydra.get("hydra"))
    if config and not own and (folder.hydra.exists() or results.get(KEY)):
        return describe_lost_choices(folder)
    now = hash_settings(config, own)
    if (told := hydra.get(KEY)) and told != now:
        return (
            f"{folder.settings} or {folder.hydra.name} beside it was changed after the run had begun, or is of another "
            f"run: {UNDO}"
        )
    if told and folder.overrides.is_file() and read_yaml_list(folder.overrides) != read_overrides(own):
        return f"{folder.overrides} was changed after the run had begun, or is of another run: {UNDO}"
    if (told := results.get(KEY)) and config and told != now:
        return f"{folder.results} is of another run than {folder.settings}: {UNDO}"
    return None


def describe_lost_choices(folder: RunFolder) -> str:
    """Describe that what was chosen and typed cannot be read."""
    return f"{folder.hydra} is missing or damaged, and it has what was chosen and typed: {UNDO}"


def check_run(folder: RunFolder) -> None:
    """Raise ConfigError if the run's settings and results do not belong together, or something is no file."""
    if problem := folder.find_irregular():
        raise ConfigError(problem)
    config, hydra = read_yaml(folder.settings), read_yaml(folder.hydra)
    if problem := find_disagreement(folder, config, hydra, folder.read_results()):
        raise ConfigError(problem)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a file; empty if it has none that can be read."""
    found = _load_yaml(path)
    return found if isinstance(found, dict) else {}


def read_yaml_list(path: Path) -> list[Any]:
    """Read a list from a file; empty if it has none that can be read."""
    found = _load_yaml(path)
    return found if isinstance(found, list) else []


def _load_yaml(path: Path) -> Any:
    """Read a file; None if it cannot be read, or refers to parts of itself, which no run writes: it may have no end."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text()
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
            return None
        return yaml.load(text, loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: for files that anybody may have written."""
    return value if isinstance(value, Mapping) else {}


def read_config_dirs(hydra: Mapping[str, Any]) -> list[str]:
    """Return the folders of YAML files of one's own that were given by --config-dir."""
    sources = as_mapping(hydra.get("runtime")).get("config_sources") or []
    return [str(source["path"]) for source in sources if source.get("provider") == "command-line"]


def is_among(key: str, names: Iterable[str]) -> bool:
    """Return whether the dotted key is one of `names` or inside one of these groups."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def read_overrides(hydra: Mapping[str, Any]) -> list[str]:
    """Return what was typed; nothing where hydra.yaml does not have it."""
    found = as_mapping(hydra.get("overrides")).get("task")
    return [str(word) for word in found] if isinstance(found, list) else []
