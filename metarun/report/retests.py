"""Results of later tests of a run: on the screen, as CSV and Markdown, and as a curve over the shots."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from metarun.core.scores import WILSON, choose_score, read_directions
from metarun.core.words import (
    ALONE,
    ANSWERS_MEAN,
    format_value,
    format_with_unit,
    is_percent,
    join_sources,
    make_cell,
    name_answers,
    name_network,
    name_queries,
    name_task,
)

WORDS = ("data", "task", "bn", "with", "answers", "split")
"""Columns of words; the others are numbers."""

Retest = Mapping[str, Any]
"""The result of one test, as its file holds it."""


def make_table(found: Sequence[Retest]) -> Table:
    """Make a table with a line for each test and a title that says what was trained."""
    heads, lines = make_cells(found)
    drawn = Table(
        title=Text(make_heading(found[0]), style="bold"), caption=Text("\n".join(make_caption(found)), style="dim"),
        box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", pad_edge=False,
    )  # fmt: skip
    for head in heads:
        drawn.add_column(head, justify="left" if head in WORDS else "right", overflow="fold")
    for line in lines:
        drawn.add_row(*map(Text, line))
    return drawn


def summarise(one: Retest) -> str:
    """Summarise one test in a line, for the moment when it ends."""
    score = _choose_score(one)
    mean, half = (format_with_unit(score, one["test"][score][part]) for part in ("mean", "ci95"))
    with_what = "".join(f", {word}" for word in _list_changes(one))
    task = name_task(one["n_way"], one["k_shot"])
    queries = f", {name_queries(one['n_query'], one['n_way'], one['query'])}" if one.get("query") else ""
    return f"{one['data']}, {task}{queries}, bn={one['bn']}{with_what}: {score} {mean} ± {half}"


def make_cells(found: Sequence[Retest]) -> tuple[list[str], list[list[str]]]:
    """Make the heads and lines of the table."""
    score = _choose_score(found[0])
    changed = any(_list_changes(one) for one in found)
    together = {name_answers(one) for one in found} != {ALONE}
    heads = ["data", "task", "queries", "bn", *(["with"] if changed else []), *(["answers"] if together else [])]
    heads += [f"{score} %" if is_percent(score) else score, "over tasks", "tasks"]
    lines = []
    for one in found:
        test = one["test"][score]
        queries = name_queries(one["n_query"], one["n_way"], one["query"]) if one.get("query") else str(one["n_query"])
        line = [one["data"], name_task(one["n_way"], one["k_shot"]), queries, one["bn"]]
        line += [" ".join(_list_changes(one))] if changed else []
        line += [name_answers(one)] if together else []
        line += [format_value(score, test["mean"]), f"± {format_value(score, test['ci95'])}", str(test["n_tasks"])]
        lines.append([*line, one["split_sha256"][:8]])
    return [*heads, "split"], lines


def make_heading(one: Retest) -> str:
    then = one["trained"]
    what = [
        f"{one['algo']} trained on {then['data']}",
        name_task(then["n_way"], then["k_shot"]),
        *name_network(one["backbone"]),
    ]
    what += [f"bn={then['bn']}", f"seed {one['seed']}"] + (["trained on train and val"] if then["trainval"] else [])
    return f"{', '.join(what)}, step {one['best_step']}"


def make_caption(found: Sequence[Retest]) -> list[str]:
    said = ["over tasks: 95 % intervals, Student t over test tasks, which are the same for every run"]
    if any(score.get("interval") == WILSON for one in found for score in one["test"].values()):
        said[0] += "; Wilson where few of them have an error"
    modes, together = {one["bn"] for one in found}, {name_answers(one) for one in found} != {ALONE}
    if "transductive" in modes:
        said.append("bn=transductive: BatchNorm sees all queries, and a query's prediction depends on the others")
    if inductive := sorted(modes & {"support", "running"}):
        what = (
            "BatchNorm sees no other queries" if together else "a query's prediction does not depend on other queries"
        )
        said.append(f"bn={', '.join(inductive)}: inductive, {what}")
    if together:
        said.append(ANSWERS_MEAN)
    for one in found:
        if one.get("by_source"):
            what = f"{one['data']}, {name_task(one['n_way'], one['k_shot'])}, bn={one['bn']}"
            said.append(f"{what}, by source: {join_sources(_choose_score(one), one['by_source'])}")
    return said + warn_of_seen(found)


def warn_of_seen(found: Sequence[Retest]) -> list[str]:
    """Return a warning for each source that has classes on which the run was trained, or may have some."""
    by_source = {one["data"]: one for one in found if one["seen"]}
    untold = {one["data"]: one["untold"][0] for one in found if one.get("untold")}
    return [
        f"{name}: {len(one['seen'])} of {one['classes']} test classes were trained on, "
        f"{one['seen'][0].split('/', 1)[-1]} among them: this is no test on new classes"
        for name, one in by_source.items()
    ] + [
        f"{name}: it is not known whether the run was trained on its classes: files of {world} that have no names of "
        "classes were read"
        for name, world in untold.items()
    ]


def format_csv(found: Sequence[Retest]) -> str:
    """Format a line for each test, with all digits and accuracy as a fraction."""
    facts = ("algo", "backbone", "seed", "best_step", "data", "n_way", "k_shot", "n_query", "bn")
    lines = []
    for one in found:
        scores = {f"{score}_{part}": test[part] for score, test in one["test"].items() for part in ("mean", "ci95")}
        n_tasks = next(iter(one["test"].values()))["n_tasks"]
        trained = {f"trained_{key}": value for key, value in one["trained"].items()}
        hashes = {key: one[key] for key in ("split_sha256", "episode_sha256")}
        line = (
            {key: one[key] for key in facts}
            | {"query": one.get("query"), "answers": name_answers(one)}
            | trained
            | {"changes": " ".join(_list_changes(one))}
        )
        lines.append(line | scores | {"n_tasks": n_tasks, "seen_classes": len(one["seen"])} | hashes)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: make_cell(value) for name, value in line.items()} for line in lines)
    return file.getvalue()


def format_markdown(found: Sequence[Retest]) -> str:
    heads, lines = make_cells(found)
    rows = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *lines)]
    return "\n".join([f"### {make_heading(found[0])}", "", *rows, "", f"{'. '.join(make_caption(found))}.", ""])


def draw_over_shots(found: Sequence[Retest]) -> bytes | None:
    """Draw the score over the shots as a PNG, with a line for each source and BatchNorm mode.

    Importing the drawing library takes a second.
    Returns: None for a single number of shots, or for shots that classes decide.
    """
    if len({one["k_shot"] for one in found}) < 2 or any(isinstance(one["k_shot"], str) for one in found):
        return None
    from itertools import cycle

    from metarun.report.figures.charts import PALETTE, render_png
    from metarun.report.figures.shots import draw_shot_curves

    score = _choose_score(found[0])
    varied = [key for key in ("n_way", "n_query") if len({one[key] for one in found}) > 1]
    points = []
    for one in found:
        words = [
            one["data"],
            f"bn={one['bn']}",
            *([one["query"]] if one.get("query") else []),
            *_list_changes(one),
            *(f"{key}={one[key]}" for key in varied),
        ]
        test = one["test"][score]
        point = {"group": ", ".join(words), "k_shot": one["k_shot"], "runs": [test["mean"]]}
        points.append(point | {"mean": test["mean"], "ci95": test["ci95"]})
    groups = list(dict.fromkeys(point["group"] for point in points))
    shot = "support examples a class" if found[0]["n_way"] else "support points"
    view = draw_shot_curves(points, score, dict(zip(groups, cycle(PALETTE), strict=False)), shot)
    trained, _, with_what = make_heading(found[0]).partition(", ")
    return render_png(view.properties(width=460, title=[trained, with_what]))


def _list_changes(one: Retest) -> list[str]:
    """List what the test changed of how the weights are used."""
    return [f"{key}={value}" for key, value in (one.get("changes") or {}).items()]


def _choose_score(one: Retest) -> str:
    """Choose the score by which the test is judged."""
    return choose_score(one["test"], read_directions(one))
