"""What a job knows of a run, whatever its protocol: offline meta-training is one, see offline.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from metarun.run.interrupt import StopRequest
from metarun.run.parts import Parts
from metarun.run.tracking.sink import Sink


class Run(Protocol):
    """A protocol over the parts of a run; its constructor takes `parts` and the settings of `conf/run/NAME.yaml`.

    Attributes:
        parts: learner, source, optimizers.
        steps: outer steps of the whole run, for people to see how far it is.
        step: the one that it stands at.
        best: the scores of its best validation so far, empty before the first.
        tracking_id: what the sink that keeps the run knows it by; the run keeps it through a resume.
    """

    parts: Parts
    steps: int
    tracking_id: str | None

    @property
    def step(self) -> int: ...

    @property
    def best(self) -> Mapping[str, float]: ...

    @staticmethod
    def shareable_tasks(settings: Mapping[str, Any]) -> int:
        """How many tasks it ever has to do together, by its settings: more processes would have none to do."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for results.json that are known before it starts; `episode_sha256` is of the tasks that it tests."""
        ...

    def tasks_at_once(self) -> int:
        """How many tasks this process does together in an outer step."""
        ...

    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        ...

    def restore(self) -> None:
        """Take everything from the last checkpoint. Raises: ValueError if it was of another run."""
        ...

    def execute(self, sinks: Sequence[Sink], stop: StopRequest) -> dict[str, Any]:
        """Go on from where the run stands to its end; returns the outcome for results.json.

        Raises: Interrupted, Diverged; the last checkpoint is then there to go on from.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """How far the run came, for results.json, however it ended."""
        ...
