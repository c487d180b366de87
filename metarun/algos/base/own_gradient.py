from __future__ import annotations

from torch import Tensor

from metarun.algos.base.episodic import EpisodicLearner
from metarun.ops.functional import Params, dot


class OwnGradientLearner(EpisodicLearner):
    """A method that computes its own meta-gradient for a task, instead of differentiating the query loss.

    In training, its scores contain `pull(theta, direction)`. The outer optimizer then gets the mean direction as its
    gradient.
    """

    goal = "pull"


def pull(theta: Params, direction: Params) -> Tensor:
    """Return a scalar whose gradient by `theta` is `direction`."""
    return dot(theta, {name: value.detach() for name, value in direction.items()})
