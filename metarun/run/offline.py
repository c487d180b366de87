"""Meta-train, validate, keep the best checkpoint by validation, and test it once."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge

from metarun.core.known_source import describe_source, know_source
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt, UpTo
from metarun.core.run_folder import RunFolder
from metarun.core.scores import choose_score, find_sign, is_better, list_directions
from metarun.run import checkpoint
from metarun.run.by_source import estimate_by_source
from metarun.run.ensemble import BestOnes, take_weights
from metarun.run.evaluation import Scores, evaluate, explain_streams
from metarun.run.finite import check_weights
from metarun.run.folder import Files, NoFiles, keep_test, load_best, load_last
from metarun.run.interrupt import StopRequest
from metarun.run.limits import Limits
from metarun.run.outer_steps import OuterSteps
from metarun.run.parts import Parts
from metarun.run.progress import Diverged, Progress, average
from metarun.run.tracking.sink import Sink

log = logging.getLogger(__name__)


class OfflineRun:
    """The outer loop over a fixed training distribution.

    Args:
        parts: learner, source and optimizers.
        steps: outer steps, >= 0; without any the network is validated and tested as it comes.
        meta_batch_size: tasks of an outer step.
        val_every: outer steps between validations; None validates ten times a run.
        val_tasks, test_tasks: tasks of a validation and of the one test.
        eval_batch_size: tasks scored at once in validation and test.
        checkpoint_every: outer steps between checkpoints.
        log_every: outer steps that one training line averages over.
        max_time: minutes of training and validation, after which the best so far is tested.
        patience: validations in a row without a better one, after which the best so far is tested.
        train_tasks: train on the first so many tasks alone, again and again; None: on new ones for ever.
        ensemble: checkpoints, the best by validation, that are tested together by the mean of what they predict.
        on_nan: `stop` ends the run at a loss or a gradient that is not finite; `skip` leaves out the outer steps whose
            gradients are not finite, and counts them.
    Attributes:
        tracking_id: the sink's id of the run, which goes into checkpoints.
    """

    def __init__(
        self,
        parts: Parts,
        steps: NonNegativeInt,
        meta_batch_size: PositiveInt,
        val_every: PositiveInt | None,
        val_tasks: Annotated[int, Ge(2)],
        test_tasks: Annotated[int, Ge(2)],
        eval_batch_size: PositiveInt,
        checkpoint_every: PositiveInt,
        log_every: PositiveInt,
        on_nan: Literal["stop", "skip"] = "stop",
        max_time: PositiveFloat | None = None,
        patience: Annotated[PositiveInt | None, UpTo("validations")] = None,
        train_tasks: PositiveInt | None = None,
        ensemble: Annotated[PositiveInt, UpTo("validations")] = 1,
    ) -> None:
        self.parts, self.scored = parts, parts.learner
        self.steps, self.meta_batch_size = steps, meta_batch_size
        self.val_every = val_every or max(1, -(-steps // 10))
        self.val_tasks, self.test_tasks, self.eval_batch_size = val_tasks, test_tasks, eval_batch_size
        self.checkpoint_every, self.log_every = checkpoint_every, log_every
        self.progress = Progress()
        self.outer = OuterSteps(parts, meta_batch_size, on_nan == "skip", train_tasks)
        self.limits, self.kept = Limits(max_time, patience, self.val_every), BestOnes.of(parts.learner, ensemble)
        self.test_seconds = 0.0
        self.saved_step: int | None = None
        self.diverged: Diverged | None = None
        self.tracking_id: str | None = None
        self.folder = RunFolder(parts.folder)

    @property
    def step(self) -> int:
        return self.progress.step

    @property
    def metrics_bytes(self) -> int:
        return self.progress.metrics_bytes

    @property
    def best(self) -> Mapping[str, float]:
        return self.progress.best

    @staticmethod
    def shareable_tasks(settings: Mapping[str, Any]) -> int:
        return int(min(settings[key] for key in ("meta_batch_size", "val_tasks", "test_tasks")))

    def describe(self) -> dict[str, Any]:
        fingerprint = self.parts.source.fingerprint("test", self.test_tasks)
        return {"meta_batch_size": self.meta_batch_size, "episode_sha256": fingerprint}

    def tasks_at_once(self) -> int:
        return -(-self.meta_batch_size // self.parts.group.size)

    def execute(self, sinks: Sequence[Sink], stop: StopRequest) -> dict[str, Any]:
        """Train on from the present step, and test.

        Returns: the outcome for results.json.
        Raises: Interrupted, Diverged. The run can then be resumed from the last checkpoint.
        """
        folder, p = self.parts.folder, self.progress
        self.files: Files | NoFiles = (
            NoFiles() if self.parts.group.rank else Files(folder, sinks, p.metrics_bytes, p.metrics_sha256)
        )
        try:
            with explain_streams(self.parts.learner):
                self._train(stop)
            return self._test(stop)
        except Diverged as error:
            self.diverged = error
            raise
        finally:
            self.files.close()

    def resumable(self) -> bool:
        """Return whether there is a checkpoint to resume from."""
        return self.folder.has_checkpoint()

    def restore(self) -> None:
        """Restore everything from the last checkpoint, or the one before it, with the sink's id of the run.

        Raises: ValueError if neither can be read, or the data is split in another way than at that time.
        """
        parts, state = self.parts, load_last(self.folder)
        checkpoint.check_split(self.folder.last, parts.source.info.split_sha256, state["split_sha256"])
        parts.load_state_dict(state)
        self.progress = Progress(**state["progress"])
        self.saved_step = self.progress.step
        self.outer.state = checkpoint.move_tensors(state.get("state"), parts.device)  # an older checkpoint has none
        if self.kept.most > 1 and self.folder.best.exists():
            self.kept.restore(load_best(self.folder))
        checkpoint.restore_random(state["random"])
        self.tracking_id = state["wandb_id"]

    def facts(self) -> dict[str, Any]:
        """Return how far the run came, for results.json."""
        p = self.progress
        seconds = {"train": p.train_seconds, "val": p.val_seconds, "test": self.test_seconds}
        where = self.diverged and {"step": self.diverged.step, "task": self.diverged.task}
        return {
            **p.list_facts(),
            **({"diverged": where} if where else {}),
            "directions": list_directions(p.best, self.parts.learner.directions),
            "saved_step": self.saved_step,
            "seconds": {"total": sum(seconds.values()), **seconds},
            "tasks_per_second": p.find_rate(self.meta_batch_size),
        }

    def advance(self, step: int) -> Any:
        """Train on from the present step to outer step number `step`, and return the batch of that step.

        Nothing is validated or written. Raises: Diverged.
        """
        self.outer.start(self.progress.step)
        while self.progress.step < step - 1:
            self.outer.make(self.progress)
        return self.outer.draw()

    def _train(self, stop: StopRequest) -> None:
        parts, p = self.parts, self.progress
        self.outer.start(p.step)
        while p.step < self.steps and not (reason := self.limits.find_reason(p, parts.group)):
            started = time.perf_counter()
            self.outer.make(p)
            logged, val, save = (self._due(every) for every in (self.log_every, self.val_every, self.checkpoint_every))
            if parts.device.type == "cpu" or logged or val or save:  # reading waits for a GPU; it belongs to the time
                self.outer.read(self.progress)
            p.train_seconds += time.perf_counter() - started
            if logged:
                self._log_training()
            if val:
                self._validate()
            stopping = stop.made  # asked once: a signal between saving and stopping waits for the next step
            if save or stopping or stop.take_save():
                self._save()
            if stopping:
                stop.raise_if_made()
        if p.step < self.steps:
            log.info("training ends at step %d of %d: %s", p.step, self.steps, reason)
        if p.step < self.steps or not self.steps:
            if p.best_step is None:
                self._validate()
            self._save()

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.steps

    def _log_training(self) -> None:
        self.outer.read(self.progress)
        p = self.progress
        means = average(p.window)
        rates = self.parts.rates()
        p.window.clear()
        speed = {"tasks_per_second": p.find_rate(self.meta_batch_size) or 0.0, "seconds": p.train_seconds}
        self.files.log(p.step, "train", means | rates | speed)

    def _validate(self) -> None:
        started, p = time.perf_counter(), self.progress
        scores = self._evaluate("val", self.val_tasks, StopRequest())  # never stopped: the best depends on it
        means = {name: float(values.mean()) for name, values in scores.items()}
        score = choose_score(means, own := self.parts.learner.directions)
        if better := is_better(score, means[score], p.best.get(score), own):
            p.best, p.best_step = means, p.step
        value = find_sign(score, own) * means[score]
        if (better or self.kept.most > 1) and self.kept.add(p.step, value, self.parts.learner):
            source = describe_source(know_source(self.parts.source))
            self.files.save_best(self.kept.pack() | {"source": source})
        p.val_seconds += time.perf_counter() - started
        self.files.log(p.step, "val", means)

    def _test(self, stop: StopRequest) -> dict[str, Any]:
        started = time.perf_counter()
        self.parts.group.wait()  # until the best checkpoint is written
        self.scored, steps = take_weights(self.parts.learner, self.parts.source.info, load_best(self.folder))
        log.info("testing the checkpoint of step %s on %d tasks", ", ".join(map(str, steps)), self.test_tasks)
        scores = self._evaluate("test", self.test_tasks, stop)
        self.test_seconds = time.perf_counter() - started
        more = estimate_by_source(self.parts.source, scores) | ({"ensemble": steps} if len(steps) > 1 else {})
        return {"test": keep_test(self.files, self.progress.step, scores), **more}

    def _evaluate(self, split: str, n_tasks: int, stop: StopRequest) -> Scores:
        source, group = self.parts.source, self.parts.group
        return evaluate(self.scored, source, split, n_tasks, self.eval_batch_size, stop, group)

    def _save(self) -> None:
        self.outer.read(self.progress)
        p, parts = self.progress, self.parts
        check_weights(parts.learner, "outer step", p.step)
        p.metrics_bytes, p.metrics_sha256 = self.files.flush()
        state = parts.state_dict() | {
            "progress": vars(p).copy(),
            "split_sha256": parts.source.info.split_sha256,
            "wandb_id": self.tracking_id,
            "state": self.outer.state,
        }
        self.files.save_last(state)
        self.saved_step = p.step
