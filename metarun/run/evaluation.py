"""Score a learner on the first n tasks of a split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metarun.algos.base.abilities import AdaptsToTask, EncodesInputs
from metarun.algos.base.learner import Learner
from metarun.core.batches import list_batches
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.scores import check_name
from metarun.core.tasks import EmbeddableSource, Examples, TaskSource
from metarun.run.features import Features
from metarun.run.interrupt import StopRequest
from metarun.run.team import Group

ENCODED_TOGETHER = 100
"""The fewest tasks that are scored together where their inputs are embedded already."""

Scores = dict[str, NDArray[np.floating[Any]]]

log = logging.getLogger(__name__)


def evaluate(
    learner: Learner,
    source: TaskSource,
    split: str,
    n_tasks: int,
    batch_size: int,
    stop: StopRequest,
    group: Group | None = None,
    features: Features | None = None,
) -> Scores:
    """Score the learner on the tasks 0..n_tasks-1 of `split`: each score by name, [n_tasks].

    The learner, with its training mode, is unchanged afterwards. The processes of `group` share the tasks, and each
    gets all scores. What `features` hold is not embedded anew. A warning counts the scores that are not finite.
    """

    def score(start: int, end: int) -> Iterator[dict[str, torch.Tensor]]:
        with _encoded_source(learner, source, split, end - start, features) as tasks:
            at_once = batch_size if tasks is source else max(batch_size, ENCODED_TOGETHER)
            stream = learner.eval_stream(tasks, split, start, at_once)
            for first in range(start, end, at_once):
                stop.raise_if_made()
                # No name holds these tasks while the next are gathered: their memory is used again.
                yield learner.evaluate(next(stream).tasks(0, min(at_once, end - first)))

    return share_scores(learner, score, split, n_tasks, group or Group())


def check_facts(learner: Learner, source: TaskSource, split: str) -> None:
    """Raise ConfigError if the learner has no use for what it asks for and the source knows of a task."""
    asks = {*getattr(learner, "asks", ())}
    first = list_batches(next(source.episodes(split, 0, 1)))[0] if asks else None
    if first is None or asks.isdisjoint(first.side) or not isinstance(learner, AdaptsToTask):
        return
    with _testing(learner), wrong_input():
        learner.adapt_to(Examples(first.support.x[0], first.support.y[0]), first.n_way, **first.facts(0))


def share_scores(
    learner: Learner,
    score: Callable[[int, int], Iterable[dict[str, torch.Tensor]]],
    split: str,
    n_tasks: int,
    group: Group,
) -> Scores:
    """Return the scores of n tasks [n, ...], which the processes share: `score` yields those of tasks first..last-1.

    The learner is in the mode of tests meanwhile, and unchanged afterwards.
    """
    with _testing(learner), explain_streams(learner):
        parts = list(score(*group.share(n_tasks)))
    _check_scores(learner, parts)
    scores = {name: torch.cat([part[name] for part in parts]).detach() for name in parts[0]}
    first, last = group.share(n_tasks)
    if wrong := next((name for name, values in scores.items() if len(values) != last - first), None):
        raise ConfigError(
            f"{type(learner).__name__}.evaluate gives {len(scores[wrong])} numbers of {wrong} "
            f"for {last - first} tasks, and must give one for each"
        )
    found = {name: group.gather(score, n_tasks).numpy() for name, score in scores.items()}
    for name, values in found.items():
        if lost := int((~np.isfinite(values)).sum()):
            log.warning("%s is not a finite number in %d of %d %s tasks", name, lost, n_tasks, split)
    return found


@contextmanager
def _testing(learner: Learner) -> Iterator[None]:
    """Inside, the learner is in the mode of tests."""
    was_training = learner.training
    learner.eval()
    try:
        yield
    finally:
        learner.train(was_training)


@contextmanager
def explain_streams(learner: Learner) -> Iterator[None]:
    """Inside, a learner that asks a source for a stream that it does not have raises ConfigError."""
    try:
        yield
    except AttributeError as error:
        if not hasattr(error.obj, "fingerprint"):  # no source
            raise
        raise ConfigError(
            f"{type(learner).__name__} asks {type(error.obj).__name__} for {error.name}, which it does not have: "
            f"choose other data. A learner that declares needs = ('{error.name}',) is refused before it starts"
        ) from error


def _check_scores(learner: Learner, parts: Sequence[Mapping[str, torch.Tensor]]) -> None:
    """Raise ConfigError unless all batches have the same scores, tensors [B, ...] by name, with loss among them."""
    name = type(learner).__name__
    for part in parts:
        if not isinstance(part, Mapping) or not all(isinstance(v, torch.Tensor) and v.ndim for v in part.values()):
            raise ConfigError(
                f"{name}.evaluate must give tensors [B] by name, a number for each task: {{'loss': loss}}"
            )
    if broken := next((n for part in parts for n, value in part.items() if value.is_complex()), None):
        raise ConfigError(f"{name}.evaluate gives complex numbers of {broken}: a score is a real one")
    first = parts[0].keys()
    for score in first:
        check_name(score)
    if other := next((part.keys() for part in parts if part.keys() != first), None):
        raise ConfigError(
            f"{name}.evaluate gives the scores {', '.join(first)} for some tasks and {', '.join(other)} for others: "
            "all tasks of a test must have the same"
        )
    if "loss" not in first:
        raise ConfigError(f"{name}.evaluate gives the scores {', '.join(first)}: loss must be among them")


@contextmanager
def _encoded_source(
    learner: Learner, source: TaskSource, split: str, n_tasks: int, features: Features | None
) -> Iterator[TaskSource]:
    """Yield the source, or, if that pays, a source of the same tasks with each input embedded once for `learner`."""
    encode = learner.input_encoder() if isinstance(learner, EncodesInputs) else None
    tasks = None
    if encode and isinstance(learner, EncodesInputs) and isinstance(source, EmbeddableSource):
        known = features.remember(learner.input_network(), encode) if features else encode
        tasks = source.embedded(split, lambda x: learner.prepare_encoded(known(x)), n_tasks)
    if features:
        features.write()
    if tasks is None:
        yield source
        return
    assert isinstance(learner, EncodesInputs)
    with learner.encoded():
        yield tasks
