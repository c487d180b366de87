"""The results of scripts/bench.py as one picture: ratios of every setting, and how cost grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from contestants.tables import PEER
from metarun.report.figures.charts import GREY, PALETTE, render_png

METHODS = {
    "maml": "MAML", "fomaml": "first-order MAML", "anil": "ANIL", "protonet": "ProtoNet", "sampling": "drawing tasks",
}  # fmt: skip

CONTESTANTS = {
    "learn2learn": "learn2learn, default threads", "learn2learn-1": "learn2learn, one thread",
    "metarun": "metarun, default threads", "metarun-1": "metarun, one thread",
    "plain": "metarun without recording (run.compile=false)", "plain-1": "the same, one thread",
    "x2": "metarun, two processes of one thread", "tf32": "metarun, precision=tf32",
    "bf16": "metarun, precision=bf16", "torchopt": "TorchOpt", "jax": "JAX (jit, vmap, grad)",
}  # fmt: skip


def picture(results: Mapping[str, Any]) -> bytes | None:
    """A PNG; None where nothing was measured against learn2learn."""
    views = [view for view in (_ratios(results), *_curves(results)) if view is not None]
    return render_png(alt.VConcatChart(vconcat=views, spacing=30).resolve_scale(color="independent")) if views else None


def describe_setting(setting: Mapping[str, Any]) -> str:
    """Describe what is timed, as `MAML, 5-way 1-shot, 32 tasks of 1 query a class, Omniglot`."""
    shape = f"{setting['n_way']}-way {setting['k_shot']}-shot"
    queries = f"{setting['n_query']} quer{'y' if setting['n_query'] == 1 else 'ies'} a class"
    words = [f"{'test of ' if setting['use'] == 'test' else ''}{METHODS[setting['algo']]}"]
    words += [shape, f"{setting['tasks']} tasks of {queries}"]
    words += [f"{setting['steps']} inner steps"] if setting["steps"] > 1 else []
    words += ["84x84 pixels"] if setting["size"] == 84 else []
    words += ["drawn from Omniglot's files"] if setting["data"] == "omniglot" else []
    return ", ".join(words)


def describe_contestant(name: str) -> str:
    """Describe a contestant, or give its name."""
    return CONTESTANTS.get(name, name)


def _ratios(results: Mapping[str, Any]) -> alt.LayerChart | None:
    """Median and quartiles of each contestant's ratio to learn2learn at its default threads."""
    points = [
        {"setting": describe_setting(measured["setting"]), "contestant": describe_contestant(contestant),
         **one[PEER]["seconds"]}
        for measured in results["settings"].values()
        for contestant, one in measured["summary"].items()
        if contestant != PEER and PEER in one
    ]  # fmt: skip
    if not points:
        return None
    settings, names = (list(dict.fromkeys(point[key] for point in points)) for key in ("setting", "contestant"))
    scale = alt.Scale(type="log", nice=False, padding=10)
    title = f"times as fast as {PEER} at its default threads"
    x = alt.X("median:Q", title=f"{title}, logarithmic", scale=scale)
    legend = alt.Legend(columns=2, labelLimit=420, title=None)
    base = alt.Chart(alt.InlineData(values=points)).encode(
        y=alt.Y("setting:N", sort=settings, title=None, axis=alt.Axis(labelLimit=520)),
        yOffset=alt.YOffset("contestant:N", sort=names),
        color=alt.Color("contestant:N", scale=alt.Scale(domain=names, range=_colors(names)), legend=legend),
    )
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("q1:Q", title=f"{title}, logarithmic", scale=scale), x2="q3:Q")
    marks = base.mark_point(filled=True, size=50, opacity=1).encode(x=x)
    ends = alt.InlineData(values=[{"x": 1, "word": f"as fast as {PEER}"}])
    one = alt.Chart(ends).mark_rule(color=GREY, strokeDash=[5, 4]).encode(x="x:Q")
    word = alt.Chart(ends).mark_text(color=GREY, dy=-9).encode(x="x:Q", y=alt.value(0), text="word:N")
    heading = alt.Title(
        f"An outer step or a test: {title}",
        subtitle=[f"point: median of {results['rounds']} rounds in turns; bar: quartiles; {_name_machine(results)}"],
        offset=22,
    )
    return alt.LayerChart(layer=[one, word, bars, marks], width=620, height=alt.Step(11), title=heading)


def _name_machine(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    device = f"{machine['cores']} cores of {machine['cpu']}" if results["device"] == "cpu" else results["device"]
    return f"{device}, torch {results['versions'].get('torch', '')}".rstrip(", torch")


def _curves(results: Mapping[str, Any]) -> list[alt.HConcatChart]:
    """Cost and memory against what grows, each as a multiple of its least, beside what linear growth would be."""
    rows = []
    for title, key, what in (("cost of a step", "seconds", "least"), ("peak memory of a step", "mib", "MiB")):
        panels = []
        for name, points in results.get("scaling", {}).items():
            values = [point for point in points if point.get(key) is not None]
            if values and not (key == "mib" and "tasks" not in name):
                panels.append(_curve(name, values, key, f"{title}, {what}", not panels))
        if panels:
            said = "; dashed: as it would grow with the number of them" if key == "seconds" else ""
            rows.append(alt.HConcatChart(hconcat=panels, title=alt.Title(f"{title[0].upper()}{title[1:]}{said}")))
    return rows


def _curve(name: str, points: list[dict[str, Any]], key: str, title: str, titled: bool) -> alt.LayerChart:
    """One panel; only the first of a row has a title on its vertical axis."""
    least = {p["contestant"]: p for p in reversed(points)}
    scaled = [
        p
        | {
            "contestant": describe_contestant(p["contestant"]),
            "shown": p[key] / (least[p["contestant"]]["seconds"] if key == "seconds" else 1.0),
        }
        for p in points
    ]
    names = list(dict.fromkeys(point["contestant"] for point in scaled))
    x = alt.X("at:Q", title=name)
    color = alt.Color("contestant:N", scale=alt.Scale(domain=names, range=_colors(names)))
    base = alt.Chart(alt.InlineData(values=scaled)).encode(x=x, color=color)
    y = alt.Y("shown:Q", title=title.rpartition(", ")[2].replace("least", "multiple of the least") if titled else None)
    layers: list[Any] = [base.mark_line(point=True).encode(y=y)]
    if key == "seconds":
        ends = sorted({point["at"] for point in points})
        line = [{"at": at, "shown": at / ends[0]} for at in (ends[0], ends[-1])]
        layers.insert(
            0, alt.Chart(alt.InlineData(values=line)).mark_line(color=GREY, strokeDash=[5, 4]).encode(x=x, y=y)
        )
    return alt.LayerChart(layer=layers, width=200, height=180)


def _colors(names: list[str]) -> list[str]:
    return [PALETTE[place % len(PALETTE)] for place in range(len(names))]
