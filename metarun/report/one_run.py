"""One run on the screen: its settings at the start; at the end its scores, its files and the next command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from metarun.core import words
from metarun.core.dotted import nodes
from metarun.core.scores import choose_score, read_directions


def make_config_tree(config: dict[str, Any], choices: dict[str, str]) -> Tree:
    """Make a tree of the resolved settings, with the choice made in each group."""
    tree = Tree("settings", guide_style="dim")
    for key, value in config.items():
        if value == {}:
            continue
        if isinstance(value, dict):
            branch = tree.add(f"[bold]{key}[/bold]" + (f" = {choices[key]}" if key in choices else ""))
            _grow(branch, value)
        else:
            tree.add(Text(f"{key}: {value}"))
    return tree


def _grow(branch: Tree, values: dict[str, Any]) -> None:
    plain = [f"{key}: {value}" for key, value in values.items() if not isinstance(value, dict) and key[0] != "_"]
    if plain:
        branch.add(Text("  ".join(plain), overflow="fold"))
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


def make_end_table(results: dict[str, Any], folder: Path, notes: list[str]) -> Table:
    """Make a table of a finished run: its scores, its times, its files and the next command."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
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
    table.add_row("run", ", ".join(filter(None, what)))
    for name, test in (r.get("test") or {}).items():
        value = f"{words.format_with_unit(name, test['mean'])} ± {words.format_with_unit(name, test['ci95'])}"
        table.add_row(f"test {name}", f"{value}  (95 % interval, {test['interval']}, {test['n_tasks']} of them)")
    if r.get("paper"):
        known = [r["paper"][key] for key in ("value", "ci95") if r["paper"].get(key) is not None]
        score = choose_score(r["test"], read_directions(r))
        value = " ± ".join(words.format_with_unit(score, number) for number in known)
        table.add_row("paper", f"{value}  ({r['paper'].get('source')})")
    table.add_row(
        "validation", f"{words.join_scores(r['val'])} at step {r['best_step']} of {r['steps']}, the one tested"
    )
    time_of = {name: words.format_duration(value) for name, value in r["seconds"].items()}
    speed = f" at {r['tasks_per_second']:.0f} tasks/s" if r["tasks_per_second"] else ""
    parts = f"training {time_of['train']}{speed}, validation {time_of['val']}, test {time_of['test']}"
    table.add_row("time", f"{time_of['total']}: {parts}")
    engine = f"{r['engine']} on {r['device']}{words.name_processes(r.get('processes', 1))}"
    table.add_row("engine", f"{engine}, {r['parameters']:,} parameters")
    table.add_row("files", f"{folder}/  results.json  metrics.jsonl  test_tasks.npz  checkpoints/best.pt")
    for note in notes:
        table.add_row("", note)
    others = [o for o in r["overrides"] if not o.startswith(("seed=", "hydra."))]
    again = " ".join(["metarun", *others, f"seed={r['seed'] + 1}"])
    table.add_row("next", f"{again}   (an interval over seeds wants three)")
    return table
