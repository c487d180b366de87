"""One run on the screen: its settings at the start; at the end its scores, its files and the next command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text
from rich.tree import Tree

from metarun.core import words
from metarun.core.command import find_key, join, keep_last
from metarun.core.dotted import nodes
from metarun.core.scores import choose_score, read_directions
from metarun.core.screen import Facts
from metarun.core.secrets import mask
from metarun.report.config_dirs import find_config_dirs


def make_config_tree(config: dict[str, Any], choices: dict[str, str]) -> Tree:
    """Make a tree of the resolved settings, with the choice made in each group."""
    tree = Tree("settings", guide_style="dim")
    for key, value in config.items():
        if value == {}:
            continue
        if isinstance(value, dict):
            branch = tree.add(Text.assemble((key, "bold"), f" = {choices[key]}" if key in choices else ""))
            _grow(branch, value)
        else:
            tree.add(Text(mask(f"{key}: {value}")))
    return tree


def _grow(branch: Tree, values: dict[str, Any]) -> None:
    plain = [f"{key}: {value}" for key, value in values.items() if not isinstance(value, dict) and key[0] != "_"]
    if plain:
        branch.add(Text(mask("  ".join(plain)), overflow="fold"))
    for key, value in values.items():
        if isinstance(value, dict):
            _grow(branch.add(key), value)


SHOWN = (
    "algo", "data", "backbone", "bn", "seed", "n_way", "k_shot", "val", "best_step", "steps", "seconds",
    "tasks_per_second", "engine", "device", "parameters", "overrides",
)  # fmt: skip
"""Fields of results.json that the end table shows."""


def find_lacking(results: Mapping[str, Any]) -> list[str]:
    """Find the fields that the end table wants and `results` lack."""
    wanted = [*SHOWN, *(f"seconds.{part}" for part in ("total", "train", "val", "test"))]
    wanted += [f"test.{name}.{part}" for name in results.get("test") or {} for part in ("ci95", "interval", "n_tasks")]
    known = {key for key, _ in nodes(results)}
    return [key for key in wanted if key not in known]


def make_end(results: Mapping[str, Any], folder: Path) -> Facts:
    """Make the facts of a finished run: its scores, its times, its files and the next command."""
    facts = Facts()
    r = results
    task = words.name_task(r["n_way"], r["k_shot"])
    what = [
        f"{r['algo']} on {r['data']}",
        *filter(None, [task]),
        *words.name_network(r["backbone"]),
        f"bn={r['bn']}",
        f"seed {r['seed']}",
    ]
    what += ["trained on train and val"] if r.get("trainval") else []
    facts.add("run", ", ".join(filter(None, what)))
    for name, test in (r.get("test") or {}).items():
        value = f"{words.format_with_unit(name, test['mean'])} ± {words.format_with_unit(name, test['ci95'])}"
        facts.add(f"test {name}", f"{value}  (95 % interval, {test['interval']}, {test['n_tasks']} of them)")
    if r.get("by_source"):
        facts.add("by source", words.join_sources(choose_score(r["test"], read_directions(r)), r["by_source"]))
    if r.get("paper"):
        known = [r["paper"][key] for key in ("value", "ci95") if r["paper"].get(key) is not None]
        score = choose_score(r["test"], read_directions(r))
        value = " ± ".join(words.format_with_unit(score, number) for number in known)
        facts.add("paper", f"{value}  ({r['paper'].get('source')})")
    more = ", ".join(map(str, r.get("ensemble", [])[1:]))
    tested = f"tested together with {more}" if more else "the one tested"
    facts.add("validation", f"{words.join_scores(r['val'])} at step {r['best_step']} of {r['steps']}, {tested}")
    time_of = {name: words.format_duration(value) for name, value in r["seconds"].items()}
    speed = f" at {words.format_rate(r['tasks_per_second'])} tasks/s" if r["tasks_per_second"] else ""
    parts = f"training {time_of['train']}{speed}, validation {time_of['val']}, test {time_of['test']}"
    facts.add("time", f"{time_of['total']}: {parts}")
    engine = f"{r['engine']} on {r['device']}{words.name_processes(r.get('processes', 1))}"
    facts.add("engine", f"{engine}, {r['parameters']:,} parameters")
    facts.add("files", f"{folder}/  results.json  metrics.jsonl  test_tasks.npz  checkpoints/best.pt")
    others = [o for o in keep_last(r["overrides"]) if find_key(o) != "seed" and not o.startswith("hydra.")]
    again = ["metarun", *find_config_dirs(folder), *others, f"seed={r['seed'] + 1}"]
    facts.add_command("next", join(again), "an interval over seeds wants three")
    return facts
