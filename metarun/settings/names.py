"""Names of runs and folders, as OmegaConf resolvers `${metarun.NAME:}` of conf/config.yaml."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from omegaconf import DictConfig, OmegaConf

from metarun.core.identity import ASIDE
from metarun.core.words import abbreviate_task
from metarun.settings.saved import drop_newer, rename_back

UNIQUE = secrets.token_hex(2)
"""Keeps apart runs that start in the same second."""

LONGEST = 100
"""Characters of a name; file systems allow 255 bytes."""


def name_run(choices: Mapping[str, Any], data: Mapping[str, Any], bn: str, seed: int) -> str:
    """Name a run in one readable word: algorithm, data, ways, shots, BatchNorm mode, seed."""
    modes = [] if bn == "none" else [bn]
    modes += ["trainval"] if data.get("trainval") else []
    words = [
        str(choices["algo"]),
        str(choices["data"]),
        abbreviate_task(data.get("n_way"), data.get("k_shot")),
        *modes,
        f"s{seed}",
    ]
    return re.sub(r"[^\w.+-]+", "_", "-".join(filter(None, words)))[:LONGEST]


def name_query(data: Mapping[str, Any]) -> str | None:
    """Return dirichlet(2) for queries in shares that vary so; None for as many of each class."""
    return f"dirichlet({data['alpha']:g})" if data.get("query") == "dirichlet" else None


def make_key(config: DictConfig) -> str:
    """Make eight characters that depend on all resolved settings but those of the machine and of the logger."""
    kept = OmegaConf.masked_copy(config, [key for key in map(str, config) if key == "paths" or key not in ASIDE])
    kept.run.pop("processes", None)  # an older run has none
    drop_newer(kept)
    for name in config.paths:
        kept.paths[name] = ""  # settings that name them are the same everywhere
    rename_back(kept)  # a class that has moved is the same one
    settings = OmegaConf.to_container(kept, resolve=True)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def make_sqlite_url(path: str) -> str:
    """Make the URL of the database in the file `path`, whatever characters it has."""
    return f"sqlite:///{quote(path)}"


def register() -> None:
    """Register the resolvers with OmegaConf."""
    options = {"replace": True}
    OmegaConf.register_new_resolver("metarun.sqlite_url", make_sqlite_url, **options)
    OmegaConf.register_new_resolver("metarun.unique", lambda: UNIQUE, **options)
    OmegaConf.register_new_resolver(
        "metarun.run_name",
        lambda *, _root_: name_run(_root_.hydra.runtime.choices, _root_.data, _root_.bn, _root_.seed),
        **options,
    )
    OmegaConf.register_new_resolver("metarun.settings_key", lambda *, _root_: make_key(_root_), **options)
