"""How often a linear probe of a Neural Statistician's vector finds the family that a set of numbers is from.

    python scripts/probe_sets.py RUN        RUN: the folder of a run of algo=neural_statistician on data=sets

A logistic regression on the means of q(c | D) of 3,200 sets, tested on 1,600 others, of all their numbers. The vectors
are those of the last checkpoint: the best one is that which tells sets apart, an early one that knows little of their
shapes. Those of the network as it was drawn show what training adds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from metarun.algos.generative.neural_statistician import NeuralStatistician
from metarun.core.tasks import TaskSource
from metarun.ops.functional import one_hot
from metarun.settings.build import build_parts
from metarun.settings.reopen import reopen

FIT, TEST = 200, 100
"""Tasks of 16 sets each."""


@torch.no_grad()
def find_vectors(learner: NeuralStatistician, source: TaskSource, split: str, n_tasks: int) -> tuple[Tensor, Tensor]:
    """Return the mean of q(c | D) of each set of the first tasks [n, C], and its family [n]."""
    vectors, families = [], []
    batch = next(source.episodes(split, 0, n_tasks))
    for number in range(n_tasks):
        x = torch.cat([batch.support.x[number], batch.query.x[number]])
        y = torch.cat([batch.support.y[number], batch.query.y[number]])
        found = learner.infer_context(learner.backbone(x), one_hot(y, batch.n_way, x.dtype))
        vectors.append(found.mean)
        families.append(batch.side["family"][number])  # type: ignore[attr-defined]
    return torch.cat(vectors), torch.cat(families)


def probe(vectors: Tensor, families: Tensor, others: Tensor, their_families: Tensor) -> float:
    """Fit a linear classifier of families to vectors [n, C]; return its accuracy on others."""
    mean, std = vectors.mean(0), vectors.std(0)
    x, z = ((each - mean) / std for each in (vectors, others))
    linear = torch.nn.Linear(x.shape[1], int(families.max()) + 1)
    optim = torch.optim.LBFGS(linear.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optim.zero_grad()
        found = torch.nn.functional.cross_entropy(linear(x), families)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optim.step(loss)  # type: ignore[no-untyped-call]
    return float((linear(z).argmax(1) == their_families).float().mean())


def main(folder: str) -> None:
    parts = build_parts(reopen(Path(folder)).resolve(), Path(folder))
    learner, source = parts.learner.eval(), parts.source
    assert isinstance(learner, NeuralStatistician)
    for name in ("as drawn", "trained"):
        if name == "trained":
            learner.load_state_dict(torch.load(Path(folder) / "checkpoints" / "last.pt")["learner"])
        accuracy = probe(*find_vectors(learner, source, "val", FIT), *find_vectors(learner, source, "test", TEST))
        print(f"family by a linear probe of c, {name}: {accuracy:.1%} of {16 * TEST} sets")


if __name__ == "__main__":
    main(sys.argv[1])
