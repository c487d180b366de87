"""Our heads and easyfsl's on the same cached embeddings of a run: CPU milliseconds a task of one thread.

Three loops take turns, block by block: ours, with the drawing of its tasks; easyfsl's heads on the tasks that ours has
drawn and gathered already; and easyfsl's own loop, as its scripts have it: FeaturesDataset, TaskSampler, DataLoader and
`evaluate`. Process time is read at the ends of blocks alone, as it is coarse on some machines.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from metarun.app.jobs.reopened import open_trained
from metarun.app.jobs.retest_settings import make_settings
from metarun.data.embedded import Embedded
from metarun.run.evaluation import ENCODED_TOGETHER

OURS = {
    "simpleshot": ["algo.features=un"], "bd_cspn": ["algo.scale=1.0"],
    "laplacian_shot": ["algo.scale=1.0", "algo.steps=3"],
    "tim": [
        "algo.distance=cosine", "algo.inner_lr=0.01", "algo.test_inner_steps=20", "algo.temperature=10.0",
        "algo.support_weight=1.0",
    ],
    "pt_map": ["algo.features=un", "algo.steps=10"],
}  # fmt: skip
"""Settings that make ours easyfsl's."""

THEIRS = {"simpleshot": "protonet"}


BLOCK = 300
"""Tasks of a turn."""


def compare_times(
    run: Path,
    n_tasks: int,
    heads: Mapping[str, Callable[[], Any]],
    answer: Callable[[Any, Any], Tensor],
    size: int | None,
    names: Sequence[str],
) -> int:
    """Print for each head the milliseconds a task of the three loops.

    Args:
        size: numbers of an embedding: then noise takes the embeddings' place; None leaves them as they are.
    """
    torch.set_num_threads(1)
    with open_trained(run, {}, {}) as trained:
        for name in names:
            values = dict(word.split("=", 1) for word in OURS[name])
            typed = {key: _read(value) for key, value in values.items()}
            settings = make_settings(trained.saved, trained.source.info.input_shape, {"algo": name, **typed}).resolve()
            learner = trained.make_learner(settings).eval()
            encode = trained.features.remember(learner.input_network(), learner.input_encoder())
            raw = Embedded(trained.open_source(settings, {}), "test", encode)
            if size:
                raw.table = torch.rand(len(raw.table), size, generator=torch.Generator().manual_seed(0))
            prepared = copy.copy(raw)
            prepared.table = learner.prepare_encoded(raw.table)
            theirs = heads[THEIRS.get(name, name)]()
            ours = partial(_run_ours, learner, prepared)
            loops = [ours, partial(_run_theirs, theirs, raw, answer), partial(_run_their_loop, theirs, raw)]
            spent, right, seen = [0.0] * 3, [0.0] * 3, 0
            with learner.encoded():
                ours(0, BLOCK)
                while seen < n_tasks and spent[1] + spent[2] < 60:
                    for number, loop in enumerate(loops):
                        seconds, accuracy = loop(seen, BLOCK)
                        spent[number] += seconds
                        right[number] += accuracy
                    seen += BLOCK
            one, *others = (1e3 * seconds / seen for seconds in spent)
            said = "  ".join(
                f"{what} {ms:8.3f} ms, {ms / one:5.1f} times" for what, ms in zip(WHAT, others, strict=True)
            )
            shares = " ".join(f"{100 * part * BLOCK / seen:.2f}" for part in right)
            print(f"{name:15} ours {one:7.3f} ms  {said}  accuracies {shares} %, {seen} tasks", flush=True)
    return 0


WHAT = ("easyfsl's head alone", "easyfsl's loop")


def _run_ours(learner: Any, tasks: Embedded, first: int, n_tasks: int) -> tuple[float, float]:
    """Draw and answer tasks; return the seconds and the mean accuracy."""
    started, found = time.process_time(), []
    stream = tasks.episodes("test", first, ENCODED_TOGETHER)
    for _ in range(n_tasks // ENCODED_TOGETHER):
        found.append(learner.evaluate(next(stream))["accuracy"])
    return time.process_time() - started, float(torch.cat(found).mean())


def _run_theirs(
    head: Any, tasks: Embedded, answer: Callable[..., Tensor], first: int, n_tasks: int
) -> tuple[float, float]:
    """Answer the same tasks by easyfsl's head; the drawing is not timed."""
    batch, found = next(tasks.episodes("test", first, n_tasks)), []
    started = time.process_time()
    for sx, sy, qx, qy in zip(*batch.support, *batch.query, strict=True):
        found.append(float((answer(head, (sx, sy, qx)).argmax(-1) == qy).float().mean()))
    return time.process_time() - started, sum(found) / len(found)


def _run_their_loop(head: Any, tasks: Embedded, first: int, n_tasks: int) -> tuple[float, float]:
    """Run easyfsl's own loop over tasks of its own, of the same shape."""
    from easyfsl.datasets import FeaturesDataset
    from easyfsl.samplers import TaskSampler
    from easyfsl.utils import evaluate

    Sampler.__init__ = lambda self, data_source=None: None  # type: ignore[method-assign]  # as older torch had it
    source: Any = tasks.source
    shape = source.plan.shape_of("test")
    labels = (np.searchsorted(source._starts, tasks.rows, side="right") - 1).tolist()
    random.seed(first)
    data = FeaturesDataset(labels, tasks.table[: len(labels)], source._names)
    sampler = TaskSampler(data, shape.n_way, shape.k_shot, shape.n_query, n_tasks)
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
    started = time.process_time()
    accuracy = evaluate(head, loader, device="cpu", use_tqdm=False)
    return time.process_time() - started, accuracy


def _read(value: str) -> Any:
    return float(value) if "." in value else int(value) if value.isdigit() else value
