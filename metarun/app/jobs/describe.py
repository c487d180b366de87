"""What is said of a run: the fields of results.json known before and after it is built, and what sinks show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from metarun.run.parts import Parts
from metarun.run.results import read_git_state, read_versions
from metarun.run.tracking.sink import RunInfo
from metarun.settings.names import run_name, task_name

GROUPS = ("algo", "data", "backbone", "optim", "run", "logger")
"""Groups whose choice names a run's parts."""


def run_info(config: DictConfig, choices: DictConfig, folder: Path, sweep: str | None) -> RunInfo:
    """What a sink shows of the run in `folder`, a job of `sweep` or on its own, from its resolved settings."""
    chosen = {group: str(choices[group]) for group in GROUPS}
    return RunInfo(
        name=run_name(config, choices),
        group=sweep or f"{chosen['algo']}-{chosen['data']}-{task_name(config.data)}",
        kind="train",
        tags=[chosen["algo"], chosen["data"], chosen["backbone"], f"bn={config.bn}"],
        config=_flat(OmegaConf.to_container(config), "", [*config.paths.values()]) | chosen,  # type: ignore[arg-type]
        folder=folder,
    )


def asked(config: DictConfig, chosen: dict[str, str], overrides: list[str]) -> dict[str, Any]:
    """The fields of results.json that are known before anything is built."""
    data: dict[str, Any] = OmegaConf.to_container(config.data)  # type: ignore[assignment]
    return {
        "status": "running",
        "error": None,
        **{group: chosen[group] for group in ("algo", "data", "backbone")},
        "seed": config.seed,
        **{key: data.get(key) for key in ("n_way", "k_shot", "n_query")},
        "train": {key: data["train"].get(key) for key in ("n_way", "k_shot", "n_query")},
        "meta_batch_size": config.run.meta_batch_size,
        "bn": config.bn,
        "test": None,
        "git": read_git_state(),
        "versions": read_versions(),
        "overrides": overrides,
        "wandb_id": None,
        "paper": OmegaConf.to_container(config.paper) if config.paper else None,
    }


def built(parts: Parts, test_tasks: int) -> dict[str, Any]:
    """The fields of results.json that building a run makes known."""
    return {
        "engine": parts.learner.engine,
        **parts.learner.describe(),
        "parameters": sum(p.numel() for p in parts.learner.parameters()),
        "device": str(parts.device),
        "processes": parts.group.size,
        "threads": torch.get_num_threads(),
        "split_sha256": parts.source.info.split_sha256,
        "episode_sha256": parts.source.fingerprint("test", test_tasks),
        "source": parts.source.info.facts,
        "trainval": bool(parts.source.info.facts.get("trainval")),
    }


def _flat(values: dict[str, Any], prefix: str, places: list[str]) -> dict[str, Any]:
    """Settings by dotted key, without what only the program cares for, and folders of this machine."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.", places)
        elif not (key.startswith("_") or prefix.startswith(("paths.", "logger.", "sweep.")) or value in places):
            flat[f"{prefix}{key}"] = value
    return flat
