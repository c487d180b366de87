"""How long a convolution and its two gradients take, way by way: what the choices of ops/convolution.py rest on.

python scripts/convolutions.py --device cuda --json convolutions.json    under 40 s on a large GPU
python scripts/convolutions.py --quick                                   a dry run, 20 s on two cores

`grouped` is torch's operation, `patches` that of ops/patches.py, `last` torch's of images with their channels last in
memory; a gradient of images by patches is `folded` or, of stride 1, `turned`. What the rule takes has a *. Times are of
one call among many that a CUDA graph replays, so without the launches from Python. A way that differs from torch's
operation, or that fails, is marked with ! and the others go on. First come whole outer steps of MAML.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from convolving.clock import Clock
from convolving.shapes import Shape, by_rule, operations, searched, shapes
from convolving.step import measure_step

from metarun.core import tuning

MEMORY = 8 << 30
"""Bytes that a way may ask for."""

ALLOWED = {"float32": 1e-4, "tf32": 2e-2}
"""How far ways may differ, relative to the largest number."""


def measure(shape: Shape, precision: str, clock: Clock, search: bool) -> Iterator[dict[str, Any]]:
    """A row for each operation and way."""
    tuning.set_precision(precision)
    rule = by_rule(shape, clock.device)
    for operation, ways in operations(shape, clock.device).items():
        exact = ways["grouped"]()
        if search:
            ways["searched"] = searched(ways["grouped"])
        for name, call in ways.items():
            row = {**shape._asdict(), "precision": precision, "operation": operation, "way": name}
            row["by_rule"] = rule[operation] == name
            try:
                apart = ((call() - exact).abs().max() / exact.abs().max()).item()
                took = clock.microseconds(call)
            except RuntimeError as problem:
                yield {**row, "error": str(problem).partition("\n")[0]}
                continue
            row |= {"microseconds": round(took, 2), "tflops": round(shape.flops / took / 1e6, 3), "apart": apart}
            yield row if apart < ALLOWED[precision] else {**row, "error": f"differs by {apart:.1e}"}


def line(shape: Shape, rows: list[dict[str, Any]]) -> str:
    """One operation of one shape, way by way; the rule's way is marked."""
    cells = []
    for row in rows:
        marked = row["way"] + "*" * row["by_rule"]
        told = f"{row['microseconds']:9.1f} us {row['tflops']:6.2f}" if "error" not in row else f"! {row['error']}"
        cells.append(f"{marked:9}{told}")
    good = [row for row in rows if "error" not in row]
    best = min(good, key=lambda row: float(row["microseconds"]))["way"] if good else "none"
    first = rows[0]
    return f"{shape.name}  {first['operation']:2} {first['precision']:7} {'  '.join(cells)}  best {best}"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Times of all shapes together, for each operation in each precision, with and without groups."""
    lines = []
    keys = sorted({(row["precision"], row["operation"], row["tasks"] > 1) for row in rows})
    for precision, operation, own in keys:
        kept = [r for r in rows if (r["precision"], r["operation"], r["tasks"] > 1) == (precision, operation, own)]
        by_shape: dict[Any, list[dict[str, Any]]] = {}
        for row in kept:
            by_shape.setdefault(tuple(row[field] for field in Shape._fields), []).append(row)
        whole = [rows for rows in by_shape.values() if not any("error" in row for row in rows)]
        sums = {
            "torch's": sum(row["microseconds"] for rows in whole for row in rows if row["way"] == "grouped"),
            "the rule's": sum(row["microseconds"] for rows in whole for row in rows if row["by_rule"]),
            "the best": sum(min(row["microseconds"] for row in rows) for rows in whole),
        }
        told = ", ".join(f"{name} {value / 1000:.2f} ms" for name, value in sums.items())
        lines.append(f"{precision:7} {operation:2} {'own filters' if own else 'shared'}, {len(whole)} shapes: {told}")
    return lines


def main(words: list[str]) -> None:
    """Time everything, print it, and keep it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--quick", action="store_true", help="a few tiny shapes")
    parser.add_argument("--search", action="store_true", help="time cuDNN's search for its fastest way as well: slow")
    parser.add_argument("--seconds", type=float, default=36, help="after which no further shape is begun (36)")
    options = parser.parse_args(words)
    device = torch.device(options.device)
    cudnn: Any = torch.backends.cudnn
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    clock, started = Clock(device), time.monotonic()
    steps: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    left = 0
    for row in measure_step("maml-5w1s-t4" if options.quick else "maml-5w1s-t32", clock):
        print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)
        steps.append(row)
    for shape in shapes(options.quick):
        if shape.bytes > MEMORY or time.monotonic() - started > options.seconds:
            left += 1
            continue
        for precision in ALLOWED:
            found = list(measure(shape, precision, clock, options.search))
            for operation in ("y", "gx", "gw"):
                if told := [row for row in found if row["operation"] == operation]:
                    print(line(shape, told), flush=True)
            rows += found
    print(*summary(rows), f"{left} shapes left out: too large, or too late", sep="\n")
    if options.json:
        facts = {"device": card, "torch": torch.__version__, "cudnn": cudnn.version()}
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = [[row.get(name) for name in names] for row in rows]
        options.json.write_text(json.dumps({**facts, "steps": steps, "columns": names, "rows": table}))


if __name__ == "__main__":
    main(sys.argv[1:])
