"""Names of runs and folders, as OmegaConf resolvers `${metarun.NAME:}` of conf/config.yaml."""

from __future__ import annotations

import hashlib
import json
import re
import secrets

from omegaconf import DictConfig, OmegaConf

UNIQUE = secrets.token_hex(2)
"""Keeps apart runs that start in the same second."""

LONGEST = 100
"""Characters of a name; file systems allow 255 bytes."""


def run_name(config: DictConfig, choices: DictConfig) -> str:
    """What a run is, in one readable word: algorithm, data, ways, shots, BatchNorm mode, seed."""
    task = f"{config.data.n_way}w{config.data.k_shot}s"
    words = [str(choices.algo), str(choices.data), task, config.bn, f"s{config.seed}"]
    return re.sub(r"[^\w.+-]+", "_", "-".join(words))[:LONGEST]


def settings_key(config: DictConfig) -> str:
    """Eight characters that differ where any resolved setting differs, paths and logger aside."""
    kept = OmegaConf.masked_copy(config, [key for key in map(str, config) if key not in ("hydra", "logger", "sweep")])
    for name in config.paths:
        kept.paths[name] = ""  # settings that name them are the same everywhere
    settings = OmegaConf.to_container(kept, resolve=True)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def register() -> None:
    """Make the resolvers known to OmegaConf."""
    options = {"replace": True}
    OmegaConf.register_new_resolver("metarun.unique", lambda: UNIQUE, **options)
    OmegaConf.register_new_resolver(
        "metarun.run_name", lambda *, _root_: run_name(_root_, _root_.hydra.runtime.choices), **options
    )
    OmegaConf.register_new_resolver("metarun.settings_key", lambda *, _root_: settings_key(_root_), **options)
