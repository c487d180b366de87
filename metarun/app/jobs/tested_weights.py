"""Which weights of a run are tested: the best by validation, the last, or the best ones together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, NamedTuple

from torch import Tensor

from metarun.algos.base.learner import Learner
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.run_folder import RunFolder
from metarun.core.tasks import Objective
from metarun.run.ensemble import Ensemble, check_outputs, list_members
from metarun.run.folder import load_last

Checkpoint = Literal["best", "last", "ensemble"]


class Weights(NamedTuple):
    """The weights that are tested, of an ensemble the best first; the outer step of each; what is said of them."""

    states: Sequence[Mapping[str, Tensor]]
    steps: Sequence[int | None]
    asked: Mapping[str, str]


def choose_weights(files: RunFolder, best: Mapping[str, Any], step: int | None, checkpoint: Checkpoint) -> Weights:
    """Return the weights of `checkpoint`, given the run's best checkpoint and its step.

    Raises: ConfigError if an ensemble is asked for, and the run kept one checkpoint.
    """
    if checkpoint == "last":
        last = load_last(files)
        return Weights([last["learner"]], [last["progress"]["step"]], {"checkpoint": "last"})
    if checkpoint == "best":
        return Weights([best["learner"]], [step], {})
    steps, states = list_members(best)
    if len(states) == 1:
        raise ConfigError(
            f"{files.path} kept its best checkpoint alone, and no others to test it with: train with run.ensemble=5"
        )
    return Weights(states, steps, {"checkpoint": "ensemble"})


def join_learners(learners: Iterable[Learner], objective: Objective) -> Learner:
    """Return the only learner, or the ensemble of several. Raises: ConfigError if it has no outputs."""
    first, *others = learners
    if not others:
        return first
    with wrong_input():
        check_outputs(first, "--checkpoint ensemble", "leave it out")
    states = [deepcopy(first.state_dict()), *(other.state_dict() for other in others)]  # `first` gets them in turn
    return Ensemble(first, objective, states)
