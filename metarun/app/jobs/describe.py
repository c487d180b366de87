"""What is said of a run: the fields of results.json known before and after it is built, and what sinks show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metarun.algos.base.abilities import RunsOnEngines
from metarun.algos.base.learner import Learner
from metarun.core.command import find_key
from metarun.core.dotted import leaves
from metarun.core.identity import as_mapping, read_overrides, read_yaml
from metarun.core.secrets import mask_all
from metarun.core.tasks import Batch
from metarun.core.words import abbreviate_task, name_size
from metarun.data.counts import describe_images
from metarun.run.device import name_device
from metarun.run.parts import Parts
from metarun.run.results import read_git_state, read_versions
from metarun.run.tracking.sink import RunInfo
from metarun.settings.names import name_query, name_run
from metarun.settings.schema import Settings


def make_run_info(settings: Settings, folder: Path, sweep: str | None, overrides: Sequence[str] = ()) -> RunInfo:
    """Describe for a sink the run in `folder`, alone or as a job of `sweep`, whose name says what it has of its own."""
    chosen = settings.choices
    own = find_own(folder, overrides) if sweep else []
    task = abbreviate_task(settings.data.get("n_way"), settings.data.get("k_shot"))
    values, places = settings.as_dict(), [*settings.paths.values()]
    return RunInfo(
        name=" ".join([name_run(chosen, settings.data, settings.bn, settings.seed), *own]),
        group=sweep or "-".join(filter(None, [chosen["algo"], chosen["data"], task])),
        kind="train",
        tags=[chosen["algo"], chosen["data"], chosen["backbone"], f"bn={settings.bn}", *settings.tags],
        notes=settings.notes,
        config=_told(values, places) | dict(chosen),
        folder=folder,
        several=sweep is not None,
    )


def find_own(folder: Path, overrides: Sequence[str]) -> list[str]:
    """Find what was typed or proposed for this job of a sweep alone and is not in its name."""
    hydra = as_mapping(read_yaml(folder.parent / "multirun.yaml").get("hydra"))
    shared, told = read_overrides(hydra), ("algo", "data", "seed", "bn")
    return [word for word in overrides if word not in shared and find_key(word) not in told]


def label_splits(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the ways of training and of validation tasks, by split, where they differ: their scores do not compare."""
    ways = {"train": name_size((data.get("train") or {}).get("n_way")), "val": name_size(data.get("n_way"))}
    differ = None not in ways.values() and len({*ways.values()}) > 1
    return {split: f"{n}-way" for split, n in ways.items()} if differ else {}


def describe_settings(settings: Settings, overrides: list[str]) -> dict[str, Any]:
    """Return the fields of results.json that are known before anything is built."""
    data = settings.data
    return {
        "status": "running",
        "error": None,
        **{group: settings.choices[group] for group in ("algo", "data", "backbone")},
        "seed": settings.seed,
        **{key: name_size(data.get(key)) for key in ("n_way", "k_shot", "n_query")},
        "query": name_query(data),
        "train": {key: name_size(data.get("train", {}).get(key)) for key in ("n_way", "k_shot", "n_query")},
        "meta_batch_size": None,
        "bn": settings.bn,
        "test": None,
        "git": read_git_state(),
        "versions": read_versions(),
        "overrides": overrides,
        "tags": list(settings.tags),
        "notes": settings.notes,
        "wandb_id": None,
        "paper": settings.paper or None,
    }


def describe_parts(parts: Parts) -> dict[str, Any]:
    """Return the fields of results.json that are known once the parts are built."""
    return {
        "engine": describe_engine(parts.learner),
        "answers": parts.learner.answers,
        **parts.learner.describe(),
        "parameters": sum(p.numel() for p in parts.learner.parameters()),
        "device": str(parts.device),
        "device_name": name_device(parts.device),
        "processes": parts.group.size,
        "threads": torch.get_num_threads(),
        "split_sha256": parts.source.info.split_sha256,
        "images": describe_images(parts.source.info.facts),
        "source": parts.source.info.facts,
        "trainval": bool(parts.source.info.facts.get("trainval")),
        **parts.facts,
    }


def describe_engine(learner: Learner, first: Batch | None = None, n_tasks: int = 0) -> str:
    """Describe in words what computes the tasks, and how many run together if tasks look like those of `first`."""
    if not isinstance(learner, RunsOnEngines):
        return "plain"
    return learner.describe_engine(first, n_tasks) if first else learner.engine


def _told(values: dict[str, Any], places: list[str]) -> dict[str, Any]:
    """Return the settings by dotted key, without internal ones and folders of this machine."""
    aside = ("paths.", "logger.", "sweep.")
    return {
        key: mask_all(value)
        for key, value in leaves(values).items()
        if not (key.rpartition(".")[2].startswith("_") or key.startswith(aside) or value in places)
    }
