"""What later tests of a run found: on the screen, as CSV and Markdown, and over the shots as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from metarun.core.scores import choose_score, read_directions
from metarun.core.words import format_value, format_with_unit, is_percent, name_network, name_task

Found = Mapping[str, Any]
"""What one test found, as its file has it."""


def table(found: Sequence[Found]) -> Table:
    """A line a test, under what was trained."""
    heads, lines = cells(found)
    drawn = Table(
        title=Text(heading(found[0]), style="bold"), caption=Text("\n".join(caption(found)), style="dim"),
        box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", pad_edge=False,
    )  # fmt: skip
    for head in heads:
        drawn.add_column(head, justify="left" if head in ("data", "task", "bn", "split") else "right", overflow="fold")
    for line in lines:
        drawn.add_row(*map(Text, line))
    return drawn


def in_short(one: Found) -> str:
    """One test, as it is told when it is made."""
    score = _score(one)
    mean, half = (format_with_unit(score, one["test"][score][part]) for part in ("mean", "ci95"))
    return f"{one['data']}, {name_task(one['n_way'], one['k_shot'])}, bn={one['bn']}: {score} {mean} ± {half}"


def cells(found: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of what people read."""
    score = _score(found[0])
    heads = ["data", "task", "queries", "bn", f"{score} %" if is_percent(score) else score, "over tasks", "tasks"]
    lines = []
    for one in found:
        test = one["test"][score]
        line = [one["data"], name_task(one["n_way"], one["k_shot"]), str(one["n_query"]), one["bn"]]
        line += [format_value(score, test["mean"]), f"± {format_value(score, test['ci95'])}", str(test["n_tasks"])]
        lines.append([*line, one["split_sha256"][:8]])
    return [*heads, "split"], lines


def heading(one: Found) -> str:
    then = one["trained"]
    what = [
        f"{one['algo']} trained on {then['data']}",
        name_task(then["n_way"], then["k_shot"]),
        *name_network(one["backbone"]),
    ]
    what += [f"bn={then['bn']}", f"seed {one['seed']}"] + (["trained on train and val"] if then["trainval"] else [])
    return f"{', '.join(what)}, step {one['best_step']}"


def caption(found: Sequence[Found]) -> list[str]:
    said = ["over tasks: 95 % intervals, Student t over test tasks, which are the same for every run"]
    modes = {one["bn"] for one in found}
    if "transductive" in modes:
        said.append("bn=transductive: BatchNorm sees all queries, and a query's prediction depends on the others")
    if inductive := sorted(modes & {"support", "running"}):
        said.append(f"bn={', '.join(inductive)}: inductive, a query's prediction does not depend on other queries")
    return said + seen(found)


def seen(found: Sequence[Found]) -> list[str]:
    """A warning for each source with classes that the run was trained on."""
    by_source = {one["data"]: one for one in found if one["seen"]}
    return [
        f"{name}: {len(one['seen'])} of {one['classes']} classes tested on were trained on, "
        f"{one['seen'][0].split('/', 1)[-1]} among them: no test of new classes"
        for name, one in by_source.items()
    ]


def as_csv(found: Sequence[Found]) -> str:
    """A line a test, with every number in full, accuracy as a fraction."""
    facts = ("algo", "backbone", "seed", "best_step", "data", "n_way", "k_shot", "n_query", "bn")
    lines = []
    for one in found:
        scores = {f"{score}_{part}": test[part] for score, test in one["test"].items() for part in ("mean", "ci95")}
        n_tasks = next(iter(one["test"].values()))["n_tasks"]
        trained = {f"trained_{key}": value for key, value in one["trained"].items()}
        hashes = {key: one[key] for key in ("split_sha256", "episode_sha256")}
        line = {key: one[key] for key in facts} | trained
        lines.append(line | scores | {"n_tasks": n_tasks, "seen_classes": len(one["seen"])} | hashes)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def as_markdown(found: Sequence[Found]) -> str:
    heads, lines = cells(found)
    rows = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *lines)]
    return "\n".join([f"### {heading(found[0])}", "", *rows, "", f"{'. '.join(caption(found))}.", ""])


def over_shots(found: Sequence[Found]) -> bytes | None:
    """The score over the shots, a line for each source and BatchNorm mode; None for a single number of shots.

    Imports the drawing library, which takes a second.
    """
    if len({one["k_shot"] for one in found}) < 2:
        return None
    from itertools import cycle

    from metarun.report.figures.charts import PALETTE, png, shot_curves

    score = _score(found[0])
    varied = [key for key in ("n_way", "n_query") if len({one[key] for one in found}) > 1]
    points = []
    for one in found:
        words = [one["data"], f"bn={one['bn']}", *(f"{key}={one[key]}" for key in varied)]
        test = one["test"][score]
        point = {"group": ", ".join(words), "k_shot": one["k_shot"], "runs": [test["mean"]]}
        points.append(point | {"mean": test["mean"], "ci95": test["ci95"]})
    groups = list(dict.fromkeys(point["group"] for point in points))
    shot = "support examples a class" if found[0]["n_way"] else "support points"
    view = shot_curves(points, score, dict(zip(groups, cycle(PALETTE), strict=False)), shot)
    trained, _, with_what = heading(found[0]).partition(", ")
    return png(view.properties(width=460, title=[trained, with_what]))


def _score(one: Found) -> str:
    """The score that the test is known by."""
    return choose_score(one["test"], read_directions(one))
