"""Runs that are used: finished ones of several kinds, their first test task as files, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from conftest import SMALL
from PIL import Image

from metarun.core.tasks import Batch
from metarun.settings.build import build_source
from metarun.settings.reopen import reopen

TINY = [*SMALL, "backbone.hidden=8", "logger=none", "data.k_shot=2"]
FUNCTIONS = [word for word in SMALL if not word.startswith(("data.al", "data.ch", "data.train.n_way"))]
RUNS = {
    "proto": [*TINY, "algo=protonet"],
    "running": [*TINY, "algo=protonet", "bn=running"],
    "maml": TINY,
    "cnp": [*FUNCTIONS, "algo=cnp", "data=sinusoid", "algo.width=8", "logger=none"],
    "gp": [*FUNCTIONS, "algo=gp_oracle", "data=gp", "logger=none", "algo.nodes=2", "data.length_scale=[0.4,0.5]"],
}

Say = Callable[..., tuple[int, str, str]]


def first_task(run: Path) -> Batch:
    return next(build_source(reopen(run).resolve(), torch.device("cpu"), ("test",)).episodes("test", 0, 1))


def lay_out(batch: Batch, root: Path) -> Path:
    """The images of a task as files: support/c0/0.png, query/c3/2.png ..."""
    for side, examples in (("support", batch.support), ("query", batch.query)):
        for row, (x, y) in enumerate(zip(examples.x[0], examples.y[0].tolist(), strict=True)):
            path = root / side / f"c{y}" / f"{row:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((x[0] * 255).round().byte().numpy()).save(path)
    return root


def classes_of(folder: Path) -> dict[str, list[Path]]:
    return {place.name: sorted(place.iterdir()) for place in sorted(folder.iterdir())}


def queries_of(folder: Path) -> list[Path]:
    return sorted((folder / "query").glob("*/*.png"))
