"""conf/algo/README.md: a line for each method, made of its YAML, its class's docstring and the results that we have.

uv run python scripts/methods.py            # writes the table between its marks
uv run python scripts/methods.py --check    # exits with 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from bars import Bar, read_bars
from hydra.utils import get_object
from reproduction.outcomes import read_outcomes
from reproduction.tables import Row, put_between, rows_of
from reproduction.targets import read_targets

from metarun.core.words import ALONE, format_with_unit
from metarun.settings.check import has_head
from metarun.settings.conf import CONF, list_shipped
from metarun.settings.explain import describe_choice

README = CONF / "algo" / "README.md"
MARKS = "<!-- methods: written by scripts/methods.py -->", "<!-- end of methods -->"

FAMILIES = {
    "gradient": "By gradient: an inner loop of a few steps on the support set",
    "metric": "By comparison, in one pass",
    "transfer": "Training on many classes or tasks at once first",
    "heads": "Heads on the features of a network, for a task's queries together or alone",
    "processes": "Neural processes: functions, with their uncertainty",
    "memory": "By reading the support set",
    "optimizer": "Learned optimizers",
    "control": "Control",
    "generative": "Generative",
    "continual": "One task after the other, for run=continual",
}
"""Folders of metarun/algos in the order of the page; others come after them under their own names."""

QUICK = Path(__file__).parent / "results" / "quick_omniglot.json"
"""Accuracy of each method after 200 outer steps, all on the same test tasks; README of conf/algo says how."""

HEADS = ("method", "idea", "paper", "needs", "200 steps", "ours", "the paper's", "experiment")

NEEDS = {
    ("classification",): "classes",
    ("regression",): "functions",
    ("classification", "regression"): "classes or functions",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the table is out of date")
    asked = parser.parse_args()
    written, now = README.read_text(), make_page()
    if asked.check:
        print("up to date" if written == now else "out of date: python scripts/methods.py")
        return int(written != now)
    README.write_text(now)
    return 0


def make_page() -> str:
    """Return the whole text of the page, with today's table."""
    return put_between(README.read_text(), MARKS, ["", *list_lines(), ""], str(README))


def list_lines() -> Iterator[str]:
    """Yield the lines of the tables, one table a family of methods."""
    quick = json.loads(QUICK.read_text())["methods"]
    families: dict[str, list[str]] = {name: [] for name in FAMILIES}
    numbers, bars = find_numbers(), {bar.method: bar for bar in reversed(read_bars())}  # the first of each
    for name in list_shipped("algo"):
        target = read_target(CONF / "algo" / f"{name}.yaml")
        families.setdefault(target.split(".")[2], []).append(
            make_line(name, target, numbers.get(name), bars.get(name), quick.get(name))
        )
    for family, lines in families.items():
        if lines:
            yield from (
                f"### {FAMILIES.get(family, family)}",
                "",
                _join(HEADS),
                _join(["---"] * len(HEADS)),
                *lines,
                "",
            )


def make_line(name: str, target: str, row: Row | None, bar: Bar | None, quick: Mapping[str, Any] | None) -> str:
    """Make the line of the method `name`, whose class is `target`; the others have what numbers it has."""
    choice = describe_choice("algo", CONF / "algo" / f"{name}.yaml")
    title = re.fullmatch(r"(.*?)(?: \(([^()]*\d{4}[^()]*)\))?", choice.title)
    assert title
    link = re.search(r"arXiv:\s*(\d{4}\.\d{4,5})", choice.docstring)
    paper = title[2] or ""
    paper = f"[{paper}](https://arxiv.org/abs/{link[1]})" if paper and link else paper
    ours, theirs, experiment = f"{bar.on}: {bar.describe()}" if bar else "not run yet", "", ""
    if row:
        experiment = f"`{row.target.experiment}`"
        if row.outcomes:
            half, steps = row.over_tasks, max(outcome.steps for outcome in row.outcomes)
            ours = f"{_format(row, row.mean)} ± {_format(row, half, unit=False)} ({steps:,} steps)"
        if row.target.paper:
            theirs = _format(row, row.target.paper.value)
    fast = "not run yet"
    if quick:
        steps = f" ({quick['inner_steps']})" if quick["inner_steps"] else ""
        fast = f"{100 * quick['mean']:.1f} ± {100 * quick['ci95']:.1f}{steps}"
    return _join(
        [f"`{name}`", title[1], paper, describe_needs(target), fast, ours, theirs or "none on this", experiment]
    )


def describe_needs(target: str) -> str:
    """Describe what the method's class needs: the kind of tasks, a fixed number of ways, streams beside episodes."""
    found = get_object(target)
    kinds = tuple(sorted(found.kinds))
    words = [NEEDS.get(kinds, " or ".join(kinds))]
    if "classification" in kinds and has_head(target):
        words.append("as many ways in tests as in training")
    words += ["single images" for stream in found.needs if stream == "examples"]
    words += [stream for stream in found.needs if stream not in ("episodes", "examples")]
    words += [f"queries {found.answers}"] if found.answers != ALONE else []
    return ", ".join(words)


def find_numbers() -> dict[str, Row]:
    """Find for each method the target to show: the first with runs, else the first with a paper's number."""
    found, outcomes = dict[str, Row](), read_outcomes()
    for target in read_targets().values():
        row = next(iter(rows_of([target], outcomes)), Row(target, []))
        name = find_algo(target.experiment)
        before = found.get(name)
        rank = (bool(row.outcomes), row.target.paper is not None)
        if before is None or rank > (bool(before.outcomes), before.target.paper is not None):
            found[name] = row
    return found


def find_algo(experiment: str) -> str:
    """Find which algo= an experiment chooses, by its file or one that it is made from."""
    text = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text())
    for entry in reversed(text.get("defaults") or []):
        if isinstance(entry, Mapping) and "override /algo" in entry:
            return str(entry["override /algo"])
    for entry in text.get("defaults") or []:
        if isinstance(entry, str) and entry != "_self_":
            return find_algo(entry)
    return str(yaml.safe_load((CONF / "config.yaml").read_text())["defaults"][6]["algo"])


def read_target(file: Path) -> str:
    """Read the class that a method's YAML names."""
    node: Any = yaml.safe_load(file.read_text())
    return str(node.get("algo", node)["_target_"])


def _format(row: Row, value: float, unit: bool = True) -> str:
    text = format_with_unit(row.target.score, value)
    return text if unit else text.removesuffix(" %")


def _join(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
