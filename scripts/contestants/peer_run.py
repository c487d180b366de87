"""learn2learn's Omniglot benchmark as a script of its own: trains on and on, a line for each validation.

python scripts/contestants/peer_run.py maml WAYS QUERIES TASKS RATE EVERY VALIDATION_TASKS STEPS

The rate falls to 0 over STEPS as half a cosine; with 0 it does not.

Training classes, network, rates and validation tasks are metarun's; sampling, adapting and stepping are learn2learn's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from contestants import ours
from contestants.peer import Learn2learn, Task, drawn, omniglot_dataset
from contestants.settings import Setting


def main(algo: str, ways: str, queries: str, tasks: str, rate: str, every: str, val_tasks: str, steps: str) -> None:
    """Print step and accuracy of each validation."""
    test = Setting("validation", algo, n_query=15, tasks=int(val_tasks), use="test", data="omniglot")
    train = replace(test, n_way=int(ways), n_query=int(queries), tasks=int(tasks), use="train")
    source = ours.omniglot(test)
    characters = {name.removeprefix("Omniglot/") for name in source.classes["train"]}
    learner = Learn2learn(replace(train, data="given"), fresh=True)
    learner.optim.param_groups[0]["lr"] = float(rate)
    training = drawn(omniglot_dataset(characters), train, rotate=True)
    _turn(learner, train, training)
    val = source.batch("val", np.arange(test.tasks))
    validation = [Task(*task) for task in zip(*val.support, *val.query, strict=True)]
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(learner.optim, int(steps)) if int(steps) else None
    step = 0
    while not fall or step < int(steps):
        for _ in range(int(every)):
            learner.step()
            if fall:
                fall.step()
        step += int(every)
        _turn(learner, test, iter(validation))
        accuracy = learner.step()["accuracy"]
        _turn(learner, train, training)
        print(json.dumps({"step": step, "accuracy": accuracy}), flush=True)


def _turn(learner: Learn2learn, setting: Setting, stream: Iterator[Task]) -> None:
    learner.setting, learner.stream = setting, stream
    if setting.algo == "maml":
        learner.maml.first_order = setting.use == "test"


if __name__ == "__main__":
    main(*sys.argv[1:])
