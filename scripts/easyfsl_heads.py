"""What easyfsl's heads answer on made embeddings: tests/data/easyfsl.json, for tests/test_heads.py.

uv run --with easyfsl==1.5.0 python scripts/easyfsl_heads.py            # writes the file
uv run --with easyfsl==1.5.0 python scripts/easyfsl_heads.py --time RUN # both on a run's cached embeddings, in turns
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from easyfsl import methods
from easyfsl.methods import pt_map
from easyfsl.modules import MultiHeadAttention
from torch import Tensor

SIZE = 12
"""Numbers of a made embedding."""

FILE = Path(__file__).parents[1] / "tests" / "data" / "easyfsl.json"


class ConvergedPTMAP(methods.PTMAP):  # type: ignore[misc]
    """easyfsl's PT-MAP with its transport carried to the end: as it comes, it stops where rows sum to .9999."""

    def compute_optimal_transport(self, cost_matrix: Tensor, epsilon: float = 1e-6) -> Tensor:
        pt_map.MAXIMUM_SINKHORN_ITERATIONS = 100_000
        found: Tensor = super().compute_optimal_transport(cost_matrix, 1e-13)
        return found


def make_feat() -> Any:
    """Make FEAT with an attention of made weights, as tests/test_heads.py makes ours."""
    rng = np.random.default_rng(7)
    attention = MultiHeadAttention(1, SIZE, SIZE, SIZE)
    with torch.no_grad():
        for layer in (attention.w_qs, attention.w_ks, attention.w_vs, attention.fc):
            layer.weight.copy_(torch.from_numpy(rng.normal(size=(SIZE, SIZE)) / SIZE**0.5))
        for vector in (attention.fc.bias, attention.layer_norm.weight, attention.layer_norm.bias):
            vector.copy_(torch.from_numpy(rng.normal(size=SIZE)))
    return methods.FEAT(attention_module=attention).eval()


HEADS: dict[str, Callable[[], Any]] = {
    "protonet": methods.PrototypicalNetworks,
    "simpleshot": methods.SimpleShot,
    "feat": make_feat,
    "finetune": lambda: methods.Finetune(
        feature_normalization=2, fine_tuning_lr=0.01, fine_tuning_steps=20, temperature=10.0
    ),
    "bd_cspn": lambda: methods.BDCSPN(feature_normalization=2),
    "laplacian_shot": lambda: methods.LaplacianShot(feature_normalization=2, inference_steps=3),
    "tim": lambda: methods.TIM(feature_normalization=2, fine_tuning_lr=0.01, fine_tuning_steps=20),
    "pt_map": ConvergedPTMAP,
}
"""easyfsl's classes with what makes their definitions ours; tests/test_heads.py has our settings for the same."""


def make_tasks(
    n_tasks: int, k_shot: int, n_way: int = 5, n_query: int = 4, size: int = SIZE
) -> list[tuple[Tensor, ...]]:
    """Make tasks of noisy classes: support [S, D], its labels [S], queries [M, D], all positive, in float64."""
    rng = np.random.default_rng(k_shot)
    found = []
    for _ in range(n_tasks):
        centres = rng.normal(size=(n_way, 1, size))
        x = np.abs(centres + 0.7 * rng.normal(size=(n_way, k_shot + n_query, size)))
        sides = x[:, :k_shot].reshape(-1, size), np.arange(n_way).repeat(k_shot), x[:, k_shot:].reshape(-1, size)
        found.append(tuple(map(torch.from_numpy, sides)))
    return found


def answer(head: Any, task: tuple[Tensor, ...]) -> Tensor:
    """Return what easyfsl's head answers for a task [M, N]."""
    support, y, query = task
    head.process_support_set(support, y)
    found: Tensor = head(query)
    return found.detach()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=Path, metavar="RUN", help="time both on the test tasks of a trained run")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--heads", default="simpleshot,bd_cspn,laplacian_shot,tim,pt_map", help="which are timed")
    parser.add_argument("--size", type=int, help="time them on noise of so many numbers in place of the embeddings")
    asked = parser.parse_args()
    if asked.time:
        from easyfsl_times import compare_times

        heads = {**HEADS, "pt_map": methods.PTMAP}
        return compare_times(asked.time, asked.tasks, heads, answer, asked.size, asked.heads.split(","))
    torch.set_default_dtype(torch.float64)
    found: dict[str, Any] = {"easyfsl": "1.5.0"}
    for k_shot in (1, 3):
        tasks = make_tasks(2, k_shot)
        for name, make in HEADS.items():
            found[f"{name} {k_shot}"] = [answer(make(), task).numpy().round(10).tolist() for task in tasks]
    FILE.write_text(json.dumps(found, separators=(",", ":")))
    return 0


if __name__ == "__main__":
    started = time.perf_counter()
    code = main()
    print(f"{time.perf_counter() - started:.1f} s")
    sys.exit(code)
