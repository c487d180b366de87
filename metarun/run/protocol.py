"""The interface between a job and a run of any protocol, such as offline meta-training (offline.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from metarun.run.interrupt import StopRequest
from metarun.run.parts import Parts
from metarun.run.tracking.sink import Sink


class Run(Protocol):
    """A run of some protocol. Its constructor takes `parts` and the settings of `conf/run/NAME.yaml`.

    Attributes:
        parts: learner, source, optimizers.
        steps: outer steps of the whole run, to display its progress.
        step: outer steps made so far.
        best: the scores of its best validation so far, empty before the first.
        tracking_id: the sink's id of the run; a resumed run keeps it.
        metrics_bytes: bytes of metrics.jsonl that a resumed run keeps; asked only of a run that has made a step.
    """

    parts: Parts
    steps: int
    tracking_id: str | None

    @property
    def step(self) -> int: ...

    @property
    def best(self) -> Mapping[str, float]: ...

    @property
    def metrics_bytes(self) -> int: ...

    @staticmethod
    def shareable_tasks(settings: Mapping[str, Any]) -> int:
        """Return how many processes the settings can occupy: the fewest tasks that it ever does together."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return facts for results.json that are known before the start; `episode_sha256` hashes the test tasks."""
        ...

    def tasks_at_once(self) -> int:
        """Return how many tasks this process does together in an outer step."""
        ...

    def resumable(self) -> bool:
        """Return whether there is a checkpoint to resume from."""
        ...

    def restore(self) -> None:
        """Restore everything from the last checkpoint. Raises: ValueError if it belongs to another run."""
        ...

    def execute(self, sinks: Sequence[Sink], stop: StopRequest) -> dict[str, Any]:
        """Run on from the present step to the end.

        Returns: the outcome for results.json.
        Raises: Interrupted, Diverged. The run can then be resumed from the last checkpoint.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """Return how far the run came, for results.json, however it ended."""
        ...


@runtime_checkable
class Replayable(Run, Protocol):
    """A run of which any outer step can be made again."""

    def advance(self, step: int) -> Any:
        """Train on from the present step to outer step number `step`, and return the batch of that step."""
        ...
