"""A search as one self-contained page: its command, its trials, its pictures, and what no finished trial had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair as alt

from metarun.core.command import join
from metarun.core.secrets import mask
from metarun.core.whole import write_bytes
from metarun.report.figures.figure import Figure
from metarun.report.figures.page import describe_figure, fill_page
from metarun.report.figures.study import (
    draw_history,
    draw_importance,
    draw_slices,
    find_spaces,
    format_score,
    list_complete,
)

if TYPE_CHECKING:
    import optuna


def draw_study(study: optuna.Study, folder: Path, score: str = "score", command: Sequence[object] = ()) -> list[Path]:
    """Draw the study into `folder`: study.html, which needs no network, and each picture as PNG.

    Args:
        score: what the trials are judged by.
        command: the command line after `metarun`.
    Returns: the files.
    """
    slices = draw_slices(study, score)
    pictures: dict[str, alt.ChartType] = {
        "history": draw_history(study, score),
        "slices": alt.concat(*slices.values(), columns=5, title="Score over each parameter"),
    }
    if len(list_complete(study)) > 1:
        pictures["importance"] = draw_importance(study)
    files = [folder / "study.html"]
    write_bytes(files[0], render_study(study, pictures, slices, score, command).encode())
    for name, picture in pictures.items():
        files.append(folder / f"{name}.png")
        picture.save(files[-1], scale_factor=2)
    return files


def render_study(
    study: optuna.Study,
    pictures: Mapping[str, alt.ChartType],
    slices: Mapping[str, alt.Chart],
    score: str,
    command: Sequence[object],
) -> str:
    """Render the page. The pictures are as wide as the screen allows.

    Args:
        pictures: `history`, and `importance` if there is one.
        slices: a chart of each parameter.
        score: what the trials are judged by.
        command: the command line after `metarun`.
    """
    datasets: dict[str, Any] = {}
    figures = [_make_figure(name, pictures[name]) for name in ("history", "importance") if name in pictures]
    figures += [
        Figure(name, name, alt.LayerChart(layer=[chart]), ("later trials are darker",))
        for name, chart in slices.items()
    ]
    trials, never = study.trials, find_untried(study)
    table = {
        "title": f"{len(trials)} trials, the best first",
        "heads": ["trial", f"validation {score}", *find_spaces(study), "state"],
        "words": [],
        "rows": list_rows(study, score),
        "caption": [f"no finished trial had {', '.join(never)}"] if never else [],
        "pairs": {"rows": []},
        "figures": [describe_figure(figure, datasets) for figure in figures],
    }
    return fill_page(
        title=f"Search of {len(trials)} trials by validation {score}",
        command=mask(join(["metarun", *command])),
        tables=[table],
        across=[],
        settings={},
        notes=[],
        datasets=datasets,
    )


def list_rows(study: optuna.Study, score: str) -> list[dict[str, Any]]:
    """List a row of the table for each trial: those that finished, the best first, and then the others."""
    turned = -1 if study.direction.name == "MAXIMIZE" else 1
    ended = sorted(list_complete(study), key=lambda trial: turned * (trial.value or 0.0))
    others = [trial for trial in study.trials if trial.state.name != "COMPLETE"]
    return [
        {
            "cells": [
                str(trial.number),
                format_score(score, trial.value) if trial in ended and trial.value is not None else "",
                *(_write(trial.params.get(name)) for name in find_spaces(study)),
                "finished" if trial in ended else trial.state.name.lower(),
            ],
            "mark": "best" if ended and trial is ended[0] else "",
        }
        for trial in [*ended, *others]
    ]


def find_untried(study: optuna.Study) -> list[str]:
    """List the choices of parameters that no finished trial had."""
    ended = list_complete(study)
    return [
        f"{name}={choice}"
        for name, space in find_spaces(study).items()
        for choice in getattr(space, "choices", ())
        if choice not in [trial.params.get(name) for trial in ended]
    ]


def _make_figure(name: str, view: Any) -> Figure:
    titled = view.copy()
    title, said = titled.title.text, titled.title.subtitle
    titled.title = ""
    return Figure(name, str(title), titled, (str(said),))


def _write(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
