"""An Optuna study as pictures and as a few lines of text."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.core.command import join
from metarun.core.scores import choose_score, read_directions
from metarun.core.screen import Facts
from metarun.core.words import is_percent
from metarun.report.config_dirs import find_config_dirs
from metarun.report.figures.charts import name_axis

if TYPE_CHECKING:
    import altair
    import optuna
    from optuna.distributions import BaseDistribution

BLUE, RED, GREY = "#2f6db3", "#c8443c", "#8a8a8a"
FIRST_TRIAL_BLUE, LAST_TRIAL_BLUE = "#7fb2de", "#0b2f5c"

FEW = 20
"""Trials from which a parameter's importance says little."""


def make_summary(
    study: optuna.Study, overrides: Sequence[str], results: Mapping[str, Any], folder: Path, files: Sequence[Path]
) -> Facts:
    """Make the facts of the best trial: its scores, the command that runs it again, and the files.

    Args:
        overrides, results, folder: of the best trial's job.
        files: pictures of the study.
    """
    facts = Facts()
    score = choose_score(results["val"], read_directions(results))
    test = results["test"][score]
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    failed = len(ended) - len(list_complete(study))
    facts.add("search", f"{len(ended)} trials, {failed} of them failed; the best is number {study.best_trial.number}")
    facts.add("validation", f"{score} {format_score(score, study.best_value)}, which the search is by")
    mean, half = (format_score(score, test[part]) for part in ("mean", "ci95"))
    facts.add("test", f"{score} {mean} ± {half}  (95 % interval over tasks)")
    facts.add_command("run it again", join(["metarun", *find_config_dirs(folder), *overrides]))
    facts.add("its folder", folder)
    facts.add("pictures", "  ".join(map(str, files)))
    return facts


def draw_history(study: optuna.Study, score: str = "score") -> altair.ChartType:
    """Draw the value of every trial, the best value so far, and crosses at the bottom for failed trials."""
    import altair as alt

    trials = list_complete(study)
    best = max if study.direction.name == "MAXIMIZE" else min
    values = [read_value(trial, score) for trial in trials]
    rows = [
        {"trial": trial.number, "value": value, "best": best(values[: i + 1])}
        for i, (trial, value) in enumerate(zip(trials, values, strict=True))
    ]
    low, high = min(values), max(values)
    foot = low - 0.08 * (high - low or 1)
    failed = [{"trial": t.number, "value": foot} for t in study.trials if t.state.name == "FAIL"]
    x = alt.X("trial:Q", title="trial", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(padding=12))
    y = alt.Y("value:Q", title=f"validation {name_axis(score)}", scale=alt.Scale(zero=False, padding=12))
    of = {"values": rows}
    layers = [
        alt.Chart(of).mark_line(interpolate="step-after", color=BLUE).encode(x, alt.Y("best:Q")),
        alt.Chart(of).mark_point(filled=True, color=GREY, opacity=1).encode(x, y, tooltip=["trial:Q", "value:Q"]),
        alt.Chart({"values": failed}).mark_text(text="×", fontSize=16, color=RED).encode(x, y),
    ]
    said = "line: the best so far" + ("; crosses: failed" if failed else "")
    return alt.layer(*layers[: 3 if failed else 2]).properties(
        width=520, height=240, title=alt.Title("Score of each trial", subtitle=said, anchor="start")
    )


def draw_importance(study: optuna.Study) -> altair.ChartType:
    """Draw how much each parameter decides whether a trial is among the best tenth (PED-ANOVA); needs two trials."""
    import altair as alt
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    rows = [{"parameter": name, "importance": value} for name, value in found.items()]
    n = len(list_complete(study))
    said = "PED-ANOVA, shares of the sum" + (f"; from {n} trials, which says little" if n < FEW else "")
    bars = alt.Chart({"values": rows}).encode(
        alt.X(
            "importance:Q",
            title="share",
            axis=alt.Axis(format="%", values=[0, 0.5, 1]),
            scale=alt.Scale(domainMax=1.15, domainMin=0),
        ),
        alt.Y("parameter:N", title=None, sort=None),
    )
    return alt.layer(
        bars.mark_bar(color=BLUE),
        bars.mark_text(align="left", dx=4).encode(text=alt.Text("importance:Q", format=".0%")),
    ).properties(
        width=520,
        title=alt.Title("Importance of each parameter", subtitle=said, anchor="start"),
    )


def draw_slices(study: optuna.Study, score: str = "score") -> dict[str, altair.Chart]:
    """Draw the value against each parameter over its whole range, later trials darker; a chart by parameter."""
    import altair as alt

    trials = list_complete(study)
    charts: dict[str, altair.Chart] = {}
    for name, space in find_spaces(study).items():
        rows = [
            {"setting": _as_shown(trial.params[name]), "value": read_value(trial, score), "trial": trial.number}
            for trial in trials
            if name in trial.params
        ]
        last = max(len(study.trials) - 1, 1)
        color = alt.Scale(range=[FIRST_TRIAL_BLUE, LAST_TRIAL_BLUE], domain=[0, last])
        y = alt.Y("value:Q", title=f"validation {name_axis(score)}", scale=alt.Scale(zero=False, padding=12))
        legend = alt.Legend(tickCount=min(last, 4), format="d")
        charts[name] = (
            alt.Chart({"values": rows})
            .mark_point(filled=True, opacity=0.9, size=60)
            .encode(
                _encode_parameter(name, space),
                y,
                alt.Color("trial:Q", scale=color, legend=legend),
                tooltip=["trial:Q", "setting:N", "value:Q"],
            )
            .properties(width=150, height=180)
        )
    return charts


def find_spaces(study: optuna.Study) -> dict[str, BaseDistribution]:
    """Return the space of each parameter, as its trials tell it."""
    return {name: space for trial in study.trials for name, space in trial.distributions.items()}


def _encode_parameter(name: str, space: BaseDistribution) -> altair.X:
    """Encode parameter `name` on an axis over its whole range."""
    import altair as alt
    from optuna.distributions import FloatDistribution, IntDistribution

    if not isinstance(space, (FloatDistribution, IntDistribution)):
        choices = [str(choice) for choice in getattr(space, "choices", ())]
        return alt.X("setting:N", title=name, axis=alt.Axis(labelAngle=0), scale=alt.Scale(domain=choices))
    scale = alt.Scale(type="log" if space.log else "linear", domain=[space.low, space.high], nice=False)
    axis = alt.Axis(
        grid=False, tickCount=3 if space.log else 5, format="~g" if isinstance(space, FloatDistribution) else "d"
    )
    return alt.X("setting:Q", title=name, scale=scale, axis=axis)


def _as_shown(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def list_complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def read_value(trial: optuna.trial.FrozenTrial, score: str) -> float:
    """Return what a trial is judged by; an accuracy in per cent."""
    assert trial.value is not None
    return 100 * trial.value if is_percent(score) else trial.value


def format_score(score: str, value: float) -> str:
    return f"{100 * value:.2f} %" if is_percent(score) else f"{value:.4f}"
