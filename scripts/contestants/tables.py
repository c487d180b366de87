"""Rounds as ratios with their spread, for people and as the results that are kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Rounds = Sequence[Mapping[str, float]]

PEER = "learn2learn"


def ratios(rounds: Rounds, base: Rounds, clock: str = "seconds") -> dict[str, float]:
    """How many times as fast as `base`, round by round: median, least, most and quartiles.

    Args:
        clock: `seconds` on the wall, or `cpu` seconds of all cores.
    """
    values = [theirs[clock] / ours[clock] for ours, theirs in zip(rounds, base, strict=True)]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    spread = {"min": min(values), "q1": low, "median": statistics.median(values), "q3": high, "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in spread.items()}


def summary(measured: dict[str, Any], peaks: Mapping[str, float]) -> dict[str, Any]:
    """What a setting's rounds come to: for each contestant ratios, and the fraction of the peak of its threads.

    Args:
        measured: `flops` and, by contestant, `rounds`.
        peaks: GFLOP/s of each contestant.
    """
    found: dict[str, Any] = {}
    for name, one in measured["contestants"].items():
        seconds = statistics.median(each["seconds"] for each in one["rounds"])
        made = found[name] = {"of_peak": None}
        if measured["flops"]:
            made["of_peak"] = round(measured["flops"] / seconds / 1e9 / peaks[name], 4)
        for base in (PEER, f"{PEER}-1"):
            if base in measured["contestants"]:
                theirs = measured["contestants"][base]["rounds"]
                made[base] = {clock: ratios(one["rounds"], theirs, clock) for clock in ("seconds", "cpu")}
    return found


def table(measured: Mapping[str, Any]) -> Table:
    """A setting's ratios; what is measured against is 1.

    The clock's ratio to learn2learn at its default threads; the clock's, and the processor time's, to it at one thread.
    """
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    heads = ("", f"x {PEER}", f"x {PEER}-1", f"cpu x {PEER}-1", "of peak", "peak MiB", "first step s")
    for place, head in enumerate(heads):
        made.add_column(head, justify="right" if place > 2 else "left", no_wrap=True)
    for name, one in measured["summary"].items():
        numbers = measured["contestants"][name]
        against = (one.get(base, {}).get(clock) for base, clock in COLUMNS)
        peak = "" if one["of_peak"] is None else f"{100 * one['of_peak']:.0f} %"
        memory = "" if numbers["mib"] is None else f"{numbers['mib']:.0f}"
        made.add_row(f"  {name}", *map(words, against), peak, memory, f"{numbers['first']:.1f}")
    return made


COLUMNS = ((PEER, "seconds"), (f"{PEER}-1", "seconds"), (f"{PEER}-1", "cpu"))


def words(ratio: Mapping[str, float] | None) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f})" if ratio else ""
