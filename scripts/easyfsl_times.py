"""Our heads and easyfsl's on the same cached embeddings of a run, in turns: CPU milliseconds a task of one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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


def compare_times(
    run: Path, n_tasks: int, heads: Mapping[str, Callable[[], Any]], answer: Callable[[Any, Any], Tensor]
) -> int:
    """Print for each head the milliseconds a task of both, as batches of 60 are drawn and answered in turns."""
    torch.set_num_threads(1)
    with open_trained(run, {}, {}) as trained:
        for name, words in OURS.items():
            values = dict(word.split("=", 1) for word in words)
            typed = {key: _read(value) for key, value in values.items()}
            settings = make_settings(trained.saved, trained.source.info.input_shape, {"algo": name, **typed}).resolve()
            learner = trained.make_learner(settings).eval()
            encode = trained.features.remember(learner.input_network(), learner.input_encoder())
            tasks = Embedded(trained.open_source(settings, {}), "test", encode)
            theirs, same, seen = heads[THEIRS.get(name, name)](), 0, 0
            spent = [0.0, 0.0]
            with learner.encoded():
                for first in range(0, n_tasks, ENCODED_TOGETHER):
                    started = time.process_time()
                    batch = next(tasks.episodes("test", first, ENCODED_TOGETHER))
                    drawn = time.process_time()
                    accuracy = learner.evaluate(batch)["accuracy"]
                    ours = time.process_time()
                    for task in range(batch.n_tasks):
                        x, y = batch.support.x[task], batch.support.y[task]
                        guessed = answer(theirs, (x, y, batch.query.x[task])).argmax(-1)
                        right = (guessed == batch.query.y[task]).float().mean()
                        same += int((right - accuracy[task]).abs() < 1e-6)
                    spent[0] += ours - started
                    spent[1] += time.process_time() - ours + drawn - started
                    seen += batch.n_tasks
                    if spent[1] > 60:
                        break
            one, other = (1e3 * seconds / seen for seconds in spent)
            print(f"{name:15} ours {one:8.3f} ms  easyfsl {other:8.3f} ms  {other / one:5.1f} times", end="")
            print(f"  same score {same}/{seen}", flush=True)
    return 0


def _read(value: str) -> Any:
    return float(value) if "." in value else int(value) if value.isdigit() else value
