"""The name of a sweep's folder, which the same command gives again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from metarun.core.command import find_key
from metarun.core.errors import ConfigError
from metarun.core.identity import ASIDE, is_among
from metarun.settings.compose import compose_choices
from metarun.settings.conf import list_config_dirs
from metarun.settings.typed import read_override

MOST_NAMED, LONGEST = 3, 60
"""Values of a group that are named, and characters of the readable part."""


def name_sweep(arguments: Sequence[str]) -> str:
    """Return a name: data and algorithms, the other swept keys, and a hash of all overrides.

    A folder that an older version named otherwise for the same command keeps its name.
    """
    typed = [word for word in arguments if "=" in word and not word.startswith("-")]
    overrides = sorted(word for word in typed if not is_among(find_key(word).replace("/", "."), ASIDE))
    key = hashlib.sha256(json.dumps(overrides).encode()).hexdigest()[:8]
    several = [word for word in overrides if "," in word or "(" in word]
    swept = [word.partition("=")[0].lstrip("+").rsplit(".", 1)[-1] for word in several]
    lists = [Path(word.partition("=")[2]).stem for word in overrides if word.startswith("runs=")]
    found, outputs = _read_choices(typed, [str(folder.absolute()) for folder in list_config_dirs(arguments)])
    words = [*(_join(found[group]) for group in ("data", "algo") if group in found and not (group == "algo" and lists))]
    words += lists + [word.replace("=", "-") for word in overrides if word.startswith("search=")]
    words += [name for name in swept if name not in found]
    readable = re.sub(r"[^\w.+-]+", "_", "-".join(words))[:LONGEST].strip("-_") or "sweep"
    older = sorted((outputs / "sweeps").glob(f"*-{key}")) if outputs else []
    return older[0].name if older else f"{readable}-{key}"


def _read_choices(words: Sequence[str], folders: Sequence[str]) -> tuple[dict[str, list[str]], Path | None]:
    """Read which data and algorithms the jobs choose, and where runs go; nothing if the words do not compose."""
    chosen: dict[str, list[str]] = {}
    single = []
    try:
        for word in words:
            override = read_override(word)
            name = override.key.lstrip("+")
            if name in ("search", "runs") or name.startswith(("hydra.", "hydra/")):
                continue
            if name in ("data", "algo"):
                chosen[name] = [str(value) for value in override.values]
            several = len(override.values) > 1
            single.append(f"{word.partition('=')[0]}={override.values[0]}" if several else word)
        choices, config = compose_choices(single, folders)
    except ConfigError:
        return chosen, None
    return {group: chosen.get(group, [str(choices[group])]) for group in ("data", "algo")}, Path(config.paths.outputs)


def _join(names: Sequence[str]) -> str:
    return "+".join(names) if len(names) <= MOST_NAMED else f"{names[0]}+{len(names) - 1}"
