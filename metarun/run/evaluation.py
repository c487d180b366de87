"""Score a learner on the first n tasks of a split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metarun.algos.learner import Learner
from metarun.run.interrupt import StopRequest
from metarun.types import TaskSource

Scores = dict[str, NDArray[np.floating[Any]]]


def evaluate(
    learner: Learner, source: TaskSource, split: str, n_tasks: int, batch_size: int, stop: StopRequest
) -> Scores:
    """Each score of tasks 0..n_tasks-1 of `split` [n_tasks]; the learner is left as it was, in training mode or not."""
    was_training = learner.training
    learner.eval()
    parts: list[dict[str, torch.Tensor]] = []
    try:
        stream = source.episodes(split, 0, batch_size)
        for first in range(0, n_tasks, batch_size):
            stop.raise_if_made()
            batch = next(stream)
            parts.append(learner.evaluate(batch.tasks(0, min(batch_size, n_tasks - first))))
    finally:
        learner.train(was_training)
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
