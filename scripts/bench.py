"""metarun against its peers: the same episodes and weights, each in a process of its own, taking turns.

uv run --group bench python scripts/bench.py --quick
uv run --group bench python scripts/bench.py --json results.json --png results.png
uv run --group bench python scripts/bench.py --settings maml,scaling,overhead --only learn2learn,metarun,x2
uv run --group bench python scripts/bench.py --device cuda --settings maml,fomaml,anil,protonet,test,scaling

What is printed are ratios: every round times each contestant once, and a ratio is of times of one round. Losses and
meta-gradients are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contestants.processes import Contestant, Refused
from contestants.settings import QUICK, SETTINGS, USUAL, Setting, chosen, curves
from contestants.tables import PEER, summary, table
from contestants.worker import CONTESTANTS
from rich.console import Console
from torch import cuda

from metarun.core.whole import write_json
from metarun.run.results import read_git_state

LOSSES, GRADIENTS = 1e-4, 1e-2
"""How far losses and the lengths of meta-gradients may be apart, relative to the first contestant's, in float32."""

ROUNDED = ("tf32", "bf16")
NOT_BY_DEFAULT, IN_QUICK = ("plain-1", *ROUNDED), [PEER, "metarun", "x2"]
ON_A_GPU = [PEER, "metarun", "plain", "tf32", "torchopt"]
PACKAGES = ("torch", "learn2learn", "torchopt", "jax", "numpy", "metarun")
console = Console(highlight=False, width=150)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; 1 if contestants disagree on what a step computes."""
    asked = parser().parse_args(arguments)
    if asked.device != "cpu" and not cuda.is_available():
        raise SystemExit(f"--device {asked.device}: torch sees no GPU here")
    usual = IN_QUICK if asked.quick else [name for name in CONTESTANTS if name not in NOT_BY_DEFAULT]
    usual = usual if asked.device == "cpu" else [name for name in ON_A_GPU if not asked.quick or name in IN_QUICK]
    names = asked.only.split(",") if asked.only else usual
    if unknown := [name for name in names if name not in CONTESTANTS]:
        raise SystemExit(f"there is no contestant {unknown[0]}; choices are {', '.join(CONTESTANTS)}")
    wanted = (asked.settings or (QUICK if asked.quick else f"{USUAL},overhead,scaling")).split(",")
    parts = {part: part in wanted for part in ("overhead", "scaling")}
    listed = ",".join(name for name in wanted if name not in parts)
    settings = SETTINGS if listed == "all" else chosen(listed) if listed else []
    settings = [replace(setting, device=asked.device) for setting in settings]
    rounds = asked.rounds or (3 if asked.quick else 7)
    os.environ.pop("OMP_NUM_THREADS", None)  # contestants take the threads that they take by themselves
    contestants = start(names, asked.device)
    results = facts(contestants, rounds, asked.device)
    which, agree = "" if "metarun" in contestants else "-1", True
    try:
        before = {name: one.peak() for name, one in contestants.items() if name != "jax"}
        peaks = before | ({"jax": before[PEER]} if "jax" in contestants and PEER in before else {})
        peaks |= {name: max(before.values()) for name in contestants if name not in peaks}
        for setting in settings:
            measured = measure(setting, contestants, rounds, asked.seconds)
            results["settings"][setting.name] = measured | {"summary": summary(measured, peaks)}
            agree &= say(setting, results["settings"][setting.name])
            keep(results, asked.json)
        if parts["scaling"]:
            pair = {name: contestants[name] for name in (f"{PEER}{which}", f"metarun{which}") if name in contestants}
            results["scaling"] = scaling(pair, rounds, asked.device, asked.curve)
        if parts["overhead"] and asked.device == "cpu" and f"metarun{which}" in contestants:
            results["overhead"] = contestants[f"metarun{which}"].ask("overhead", steps=101 if not asked.quick else 21)[
                0
            ]
            share = 100 * results["overhead"]["share"]
            console.print(f"overhead: {share:.1f} % of an outer step of 16 tasks is not the learner's")
        after = {name: one.peak() for name, one in contestants.items() if name != "jax"}
        results["peak_gflops"] = {name: {"before": before[name], "after": after[name]} for name in before}
        said = ", ".join(f"{name} {before[name]:.0f} -> {after[name]:.0f}" for name in before)
        console.print(f"peak, GFLOP/s of a product of 2048x2048 matrices, before -> after: {said}")
    finally:
        for one in contestants.values():
            one.end()
    keep(results, asked.json)
    if asked.png:
        draw(results, asked.png)
    return 0 if agree else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="three settings, three rounds: under a minute")
    made.add_argument("--settings", help=f"names or beginnings, with commas; all; scaling, overhead; default {USUAL}")
    made.add_argument("--curve", help="the one of scaling's curves that is wanted, as: tasks; default all")
    made.add_argument("--only", help=f"contestants, with commas, of {', '.join(CONTESTANTS)}")
    made.add_argument("--device", default="cpu", help="cpu, the default, or cuda")
    made.add_argument("--rounds", type=int, help="default 7, with --quick 3")
    made.add_argument("--seconds", type=float, default=0.3, help="of each contestant in a round, default 0.3")
    made.add_argument("--json", type=Path, help="where all numbers go")
    made.add_argument("--png", type=Path, help="where the picture goes")
    return made


def start(names: Sequence[str], device: str) -> dict[str, Contestant]:
    """The contestants that are installed."""
    started = [Contestant(name, device) for name in names]
    ready = {}
    for one in started:
        try:
            one.ready()
            ready[one.name] = one
        except Refused as refused:
            console.print(f"left out: {refused}")
            one.end()
    return ready


def facts(contestants: dict[str, Contestant], rounds: int, device: str) -> dict[str, Any]:
    """On what, with which versions and how it is measured."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": ["scripts/bench.py", *sys.argv[1:]],
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "machine": {"cpu": cpu[0] if cpu else platform.processor(), "cores": len(cpu), "load": _lines("/proc/loadavg")},
        "device": "cpu" if device == "cpu" else cuda.get_device_name(device),
        "versions": versions,
        "git": read_git_state(),
        "contestants": {n: {"processes": one.size, "threads": one.threads} for n, one in contestants.items()},
        "rounds": rounds,
        "settings": {},
    }


def measure(setting: Setting, contestants: dict[str, Contestant], rounds: int, seconds: float) -> dict[str, Any]:
    """Prepare all, then round by round time each, beginning with another one each time."""
    prepared: dict[str, Any] = {}
    for name, one in contestants.items():
        if one.does(setting):
            try:
                prepared[name] = one.prepare(setting)
            except Refused as refused:
                console.print(f"left out of {setting.name}: {refused}")
    timed: dict[str, list[Any]] = {name: [] for name in prepared}
    for number in range(rounds):
        order = list(prepared)
        first = number % max(1, len(order))
        for name in order[first:] + order[:first]:
            times = max(1, min(50, round(seconds / prepared[name]["seconds"])))
            timed[name].append(contestants[name].ask("round", times=times)[0])
    counter = next((name for name in ("metarun", *prepared) if name in prepared and name != "jax"), None)
    flops = contestants[counter].ask("count", setting=setting)[0]["flops"] if counter else None
    shown = {
        name: {"first": one["first"], "rounds": timed[name], "mib": contestants[name].memory()}
        for name, one in prepared.items()
    }
    checks = {name: {key: one[key] for key in ("scores", "gradient", "rounded")} for name, one in prepared.items()}
    return {"setting": vars(setting), "checks": checks, "flops": flops, "contestants": shown}


def say(setting: Setting, measured: dict[str, Any]) -> bool:
    """Print a setting's numbers; whether contestants agree on what the step computes."""
    checks = measured["checks"]
    exact = [one for name, one in checks.items() if name not in ROUNDED]
    losses = [one["scores"]["loss"] for one in exact if "loss" in one["scores"]]
    gradients = [one["gradient"] for one in exact if one["gradient"]]
    console.print(f"\n{setting.name}: {setting.said}")
    agree = True
    if len(losses) > 1:
        apart = max(abs(loss - losses[0]) for loss in losses) / max(1.0, abs(losses[0]))
        far = max((abs(length - gradients[0]) / gradients[0] for length in gradients), default=0.0)
        agree = apart <= LOSSES and far <= GRADIENTS
        words = "agree" if agree else "DISAGREE, so that the ratios say nothing,"
        lengths = f" and the lengths of their meta-gradients by {far:.0e}" if len(gradients) > 1 else ""
        console.print(f"  contestants {words}: losses differ by at most {apart:.0e}{lengths}, of float32")
        measured["agree"] = {"loss": apart, "gradient": far, "agree": agree}
    for name, one in checks.items():
        if one["rounded"] is not None:
            apart = f"{100 * one['rounded']:.2g} % of its length"
            console.print(f"  {name}: its meta-gradient is {apart} away from that of float32")
    if measured["flops"]:
        console.print(f"  {measured['flops'] / 1e9:.2f} GFLOP on the plain loop")
    console.print(table(measured))
    return agree


def scaling(contestants: dict[str, Contestant], rounds: int, device: str, curve: str | None) -> dict[str, Any]:
    """Cost and memory of a step against what grows: along all curves, or the one named `curve`."""
    found: dict[str, Any] = {}
    for name, settings in curves(device).items():
        if curve not in (None, name):
            continue
        found[name] = []
        for setting in settings:
            measured = measure(setting, contestants, min(rounds, 3), 0.2)
            at = {"tasks": setting.tasks, "inner steps": setting.steps, "shots": setting.k_shot}[name.partition(",")[0]]
            for contestant, one in measured["contestants"].items():
                seconds = min(each["seconds"] for each in one["rounds"])
                point = {"contestant": contestant, "at": at, "seconds": seconds, "mib": one["mib"]}
                found[name].append(point | {"tasks_per_second": setting.tasks / seconds})
        for contestant in contestants:
            mine = [point for point in found[name] if point["contestant"] == contestant]
            if not mine:
                continue
            grown, cost = mine[-1]["at"] / mine[0]["at"], mine[-1]["seconds"] / mine[0]["seconds"]
            memory = " -> ".join(f"{point['mib']:.0f}" for point in mine if point["mib"] is not None)
            speed = " -> ".join(f"{point['tasks_per_second']:.0f}" for point in mine)
            console.print(
                f"{name} x {grown:.0f}: {contestant} takes {cost:.2f} x as long; MiB {memory}; tasks/s {speed}"
            )
    return found


def keep(results: dict[str, Any], path: Path | None) -> None:
    """Write what there is by now."""
    if path:
        write_json(path, results)


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the picture, where there is something to show."""
    from contestants.pictures import picture  # imports the drawing library, which takes a second

    if drawn := picture(results):
        path.write_bytes(drawn)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
