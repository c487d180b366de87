"""A learner of somebody's own that asks for what is not there, or whose scores change, is told and not traced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import noise_tasks
from torch import Tensor

from metarun.algos.base.learner import Learner
from metarun.core.errors import ConfigError
from metarun.core.tasks import Batch
from metarun.run.evaluation import evaluate, explain_streams
from metarun.run.interrupt import StopRequest


class Scores(Learner):
    """Gives each batch of a test the next of `names` as scores."""

    def __init__(self, *names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = list(names)

    def meta_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {name: torch.ones(batch.n_tasks) for name in self.names.pop(0)}


class Asks(Scores):
    """Asks its source for a stream that none has."""

    def eval_stream(self, source: Any, split: str, first: int, batch_size: int) -> Iterator[Any]:
        return source.trajectories(split, first)


def score(learner: Learner) -> dict[str, Any]:
    return evaluate(learner, noise_tasks(), "val", 2, 1, StopRequest())


def test_scores_that_are_the_same_for_all_tasks_are_taken() -> None:
    assert score(Scores(("loss", "f1"), ("loss", "f1"))).keys() == {"loss", "f1"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([("loss", "f1"), ("loss",)], "Scores.evaluate gives the scores loss, f1 for some tasks and loss for others"),
        ([("loss",), ("loss", "f1")], "Scores.evaluate gives the scores loss for some tasks and loss, f1 for others"),
        ([("f1",), ("f1",)], "Scores.evaluate gives the scores f1: loss must be among them"),
    ],
)
def test_scores_that_change_are_told(names: list[tuple[str, ...]], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        score(Scores(*names))
    assert str(error.value).startswith(said)


def test_a_stream_that_the_source_does_not_have_is_told_in_a_test() -> None:
    with pytest.raises(ConfigError, match=r"Asks asks ImageTasks for trajectories, which it does not have: choose"):
        score(Asks())


def test_and_in_training() -> None:
    def train() -> None:
        with explain_streams(Scores()):
            next(noise_tasks().trajectories("train"))

    with pytest.raises(ConfigError, match=r"Scores asks ImageTasks for trajectories.*needs = \('trajectories',\)"):
        train()


def test_another_mistake_of_the_learner_stays_what_it_is() -> None:
    def train() -> None:
        with explain_streams(Scores()):
            _ = torch.ones(1).nothing

    with pytest.raises(AttributeError, match="nothing"):
        train()
