from __future__ import annotations

from torch import Tensor

from metarun.algos.learner import EpisodicLearner
from metarun.functional import Params, dot
from metarun.types import Batch, Metrics


class PulledLearner(EpisodicLearner):
    """A method that says itself where theta is to go on a task, instead of descending the query loss.

    In training its scores hold `pull(theta, direction)`; the outer optimizer then gets the mean direction as
    its gradient.
    """

    def meta_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        scores = self._scores(batch)
        pulls = scores.pop("pull")
        return pulls.mean(), {name: score.detach().mean() for name, score in scores.items()}


def pull(theta: Params, direction: Params) -> Tensor:
    """A scalar whose gradient by `theta` is `direction`."""
    return dot(theta, {name: value.detach() for name, value in direction.items()})
