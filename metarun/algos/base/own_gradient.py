from __future__ import annotations

from torch import Tensor

from metarun.algos.base.episodic import EpisodicLearner
from metarun.ops.functional import Params, dot


class PulledLearner(EpisodicLearner):
    """A method that says itself where theta is to go on a task, instead of descending the query loss.

    In training its scores hold `pull(theta, direction)`; the outer optimizer then gets the mean direction as
    its gradient.
    """

    goal = "pull"


def pull(theta: Params, direction: Params) -> Tensor:
    """A scalar whose gradient by `theta` is `direction`."""
    return dot(theta, {name: value.detach() for name, value in direction.items()})
