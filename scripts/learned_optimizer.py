"""Where a learned optimizer is better than tuned ones made by hand, and where it fails, on the same problems.

uv run metarun algo=learned_optimizer data=quadratics hydra.run.dir=outputs/learned
uv run python scripts/learned_optimizer.py outputs/learned --tasks 1000 --json scripts/results/learned_optimizer.json

The rates of SGD, momentum, RMSprop and Adam are the best of a grid on 2,000 validation problems of each family
(--tuning), by the mean loss over the updates; one that diverges on any of them is out. The learned optimizer is tuned
on nothing but its training problems.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from scipy import stats
from torch import Tensor

from metarun.app.model import Model
from metarun.core.tasks import Batch
from metarun.run.parts import Parts
from metarun.settings.build import build_parts
from metarun.settings.compose import compose
from metarun.settings.resolve import resolve

HAND_MADE = {
    "sgd": lambda weights, rate: torch.optim.SGD(weights, rate),
    "momentum": lambda weights, rate: torch.optim.SGD(weights, rate, momentum=0.9),
    "rmsprop": lambda weights, rate: torch.optim.RMSprop(weights, rate),
    "adam": lambda weights, rate: torch.optim.Adam(weights, rate),
}
RATES = [10 ** (place / 4) for place in range(-12, 1)]  # 0.001 to 1
FAMILIES: dict[str, tuple[list[str], int]] = {
    "as trained, 100 updates": ([], 100),
    "200 updates": ([], 200),
    "20 dimensions": (["data.dims=20"], 100),
    "matrix times 3": (["data.scale=3"], 100),
}


def main() -> None:
    """Print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=1000, help="test problems")
    parser.add_argument("--tuning", type=int, default=2000, help="validation problems that rates are chosen on")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = Model.load(asked.run)
    counts = {"val": asked.tuning, "test": asked.tasks}
    found = {name: compare(model, words, steps, counts) for name, (words, steps) in FAMILIES.items()}
    for name, rows in found.items():
        print(f"\n{name}\n{'':>22} {'mean':>8} {'median':>8} {'at 20':>8} {'last':>8} {'ratio of means':>24}")
        for optimizer, row in rows.items():
            ratio = row["ratio"]
            print(
                f"{optimizer:>22} {row['mean']:8.3f} {row['median']:8.3f} {row['at 20']:8.3f} {row['last']:8.3f}"
                + (f" {ratio[0]:10.3f} ({ratio[1]:.3f} to {ratio[2]:.3f})" if ratio else "")
            )
    if asked.json:
        kept = {"run": asked.run.name, "tasks": asked.tasks, "tuning": asked.tuning, "families": found}
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")


def compare(model: Model, words: list[str], steps: int, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return, by optimizer, the losses of test problems, and the ratio of the learned optimizer's mean to its own.

    Args:
        counts: of problems of each split.
    """
    config = compose(["algo=learned_optimizer", "data=quadratics", "device=cpu", "logger=none", *words])
    config.algo = OmegaConf.create(dict(model.saved.node("algo")) | {"test_inner_steps": steps, "report_steps": []})
    parts = build_parts(resolve(config, warn=False), Path())
    parts.learner.load_state_dict(model.learner.state_dict())
    learned = run_learned(parts, counts["test"])
    rows = {"learned": describe(learned, None)}
    tuning, test = (next(parts.source.episodes(split, 0, counts[split])) for split in ("val", "test"))
    start = parts.learner._begin(test.support.x[0]).weights  # type: ignore[operator]
    for name in HAND_MADE:
        rate = min(RATES, key=lambda rate: rank(run_hand_made(name, rate, tuning, start, steps)))
        rows[f"{name} {rate:.2g}"] = describe(run_hand_made(name, rate, test, start, steps), learned)
    return rows


def rank(losses: NDArray[np.float64]) -> float:
    """Return the mean loss, infinite where a rate diverges."""
    mean = float(losses.mean())
    return mean if np.isfinite(mean) else np.inf


@torch.no_grad()
def run_learned(parts: Parts, n_tasks: int) -> NDArray[np.float64]:
    """Return the losses [B, T] after each update."""
    learner, params = parts.learner.eval(), dict(parts.learner.named_parameters())

    def follow(support: Any) -> Tensor:
        path = learner.adapt(params, support, 0)  # type: ignore[operator]
        return ((support.x @ path[1:].T - support.y) ** 2).sum(0)

    chunks = [
        torch.func.vmap(follow)(next(parts.source.episodes("test", first, min(100, n_tasks - first))).support)
        for first in range(0, n_tasks, 100)
    ]
    return torch.cat(chunks).double().numpy()


def run_hand_made(name: str, rate: float, batch: Batch, start: Tensor, steps: int) -> NDArray[np.float64]:
    """Return the same. All problems are one sum of losses, which rules of single weights follow one by one."""
    weights = start.expand(batch.n_tasks, -1).clone().requires_grad_()
    optim, losses = HAND_MADE[name]([weights], rate), []
    for step in range(steps + 1):
        loss = ((batch.support.x @ weights[..., None] - batch.support.y) ** 2).sum((1, 2))  # [B]
        if step:
            losses.append(loss.detach().double().numpy())
        optim.zero_grad()
        loss.sum().backward()
        optim.step()
    return np.stack(losses, 1)


def describe(losses: NDArray[np.float64], learned: NDArray[np.float64] | None) -> dict[str, Any]:
    """Describe losses [B, T]; the ratio's interval is Fieller's, of means over the same problems."""
    each = losses.mean(1)
    row: dict[str, Any] = {
        "mean": float(each.mean()),
        "ci95": float(stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5),
        "median": float(np.median(each)),
        "at 20": float(losses[:, 19].mean()),
        "last": float(losses[:, -1].mean()),
        "ratio": None,
    }
    if learned is not None:
        row["ratio"] = find_ratio(learned.mean(1), each)
    return row


def find_ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> list[float]:
    """Return mean(one) / mean(other) and its 95 % interval over pairs."""
    n, t = len(one), stats.t.ppf(0.975, len(one) - 1)
    (v, c), (_, w) = np.cov(one, other) / n
    a, b = one.mean(), other.mean()
    inner = (a * b - t**2 * c) ** 2 - (a**2 - t**2 * v) * (b**2 - t**2 * w)
    ends = [(a * b - t**2 * c + sign * max(inner, 0) ** 0.5) / (b**2 - t**2 * w) for sign in (-1, 1)]
    return [float(a / b), *map(float, ends)]


if __name__ == "__main__":
    main()
