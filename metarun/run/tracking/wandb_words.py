"""What a run is called and told in W&B: its settings nested, its metrics without repetition, its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metarun.core.scores import PRIMARY_SCORES, choose_score
from metarun.core.words import abbreviate_task


def drop_equal(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out what repeats the score itself: the loss, where it is that score, and the score at the last step."""
    score = choose_score(metrics, {}) if any(name in metrics for name in PRIMARY_SCORES) else ""
    same = {"loss", *(name for name in metrics if name.startswith(f"{score}@"))} if score else set()
    return {name: value for name, value in metrics.items() if name not in same or value != metrics[score]}


def nest(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nest settings by dotted key, as W&B filters and groups them; a choice is `name` in its group, as algo.name."""
    nested: dict[str, Any] = {}
    groups = {key.partition(".")[0] for key in config if "." in key}
    for key, value in config.items():
        *path, name = f"{key.replace('/', '.')}.name".split(".") if "/" in key or key in groups else key.split(".")
        node = nested
        for part in path:
            node = node.setdefault(part, {})
        node[name] = value
    return nested


def list_summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """List what a run came to: how it ended and why, and its scores."""
    names = ("status", "error", "best_step", "steps", "tasks_per_second", "parameters")
    summary = {key: results.get(key) for key in names}
    for split in ("val", "test"):
        for name, value in (results.get(split) or {}).items():
            fields = value if isinstance(value, dict) else {"mean": value}
            summary[f"{split}/best_{name}" if split == "val" else f"test/{name}"] = fields["mean"]
            if "ci95" in fields:
                summary |= {f"test/{name}_ci95": fields["ci95"], "test/n_tasks": fields["n_tasks"]}
    return summary


def list_tests(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """List the scores of later tests by data, task and BatchNorm mode, as eval/cub/5w1s/support/accuracy.

    A task without shots has no such word.
    """
    summary = dict[str, float]()
    for one in found:
        words = (one["data"], abbreviate_task(one["n_way"], one["k_shot"]), one["bn"])
        for name, score in one["test"].items():
            where = "/".join(["eval", *filter(None, words), name])
            summary |= {where: score["mean"], f"{where}_ci95": score["ci95"]}
    return summary
