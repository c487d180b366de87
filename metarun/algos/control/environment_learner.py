"""The base class of methods that act in environments."""

from __future__ import annotations

from collections.abc import Iterator

from metarun.algos.base.learner import Learner
from metarun.core.control import Environments
from metarun.core.tasks import EnvironmentSource


class EnvironmentLearner(Learner):
    """A method that is trained and tested on environments.

    All that it draws by chance in a task comes from the environments (Environments.draw), so that training is a
    function of the seed and the outer step, and tests are the same for all.
    """

    kinds = ("control",)
    needs = ("environments",)
    trains_on = ("environments",)

    def train_stream(self, source: EnvironmentSource, step: int, meta_batch_size: int) -> Iterator[Environments]:  # type: ignore[override]
        return source.environments("train", step * meta_batch_size, meta_batch_size)

    def eval_stream(  # type: ignore[override]
        self, source: EnvironmentSource, split: str, first: int, batch_size: int
    ) -> Iterator[Environments]:
        return source.environments(split, first, batch_size)
