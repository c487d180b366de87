"""Outer steps one by one: the batch is drawn, the learner steps, the schedules move."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer

from metarun.core.tasks import Metrics
from metarun.run.drawn import count_drawn
from metarun.run.few_tasks import FewTasks
from metarun.run.finite import GradientWatch, NotFinite, trace
from metarun.run.parts import Parts
from metarun.run.progress import Progress, read_numbers

MOST_SKIPS = 100
"""Outer steps in a row that may be skipped before the run ends."""

log = logging.getLogger(__name__)


class OuterSteps:
    """The outer steps of a run.

    Args:
        parts: learner, source, optimizers and schedules.
        meta_batch_size: tasks of an outer step.
        skips: leave out steps whose gradients are not finite.
        train_tasks: train on the first so many tasks alone; None: on new ones for ever.
    Attributes:
        state: what the last step hands to the next, beside theta.
        pending: metrics of steps that nobody has read yet.
    """

    def __init__(self, parts: Parts, meta_batch_size: int, skips: bool, train_tasks: int | None = None) -> None:
        self.parts, self.meta_batch_size, self.skips = parts, meta_batch_size, skips
        self.source = parts.source if train_tasks is None else FewTasks(parts.source, train_tasks)
        self.state: Any = None
        self.pending: list[Metrics] = []
        self.stream: Iterator[Any] = iter(())
        self.stepped: set[Optimizer] = set()
        self.skipped_in_a_row = 0

    def start(self, step: int) -> None:
        """Begin after `step` outer steps."""
        learner, optims = self.parts.learner.train(), self.parts.optims
        if step == 0:
            self.state = learner.initial_state()
        self.stream = learner.train_stream(self.source, step, self.meta_batch_size)
        self.watch = GradientWatch(learner, optims, self.skips)
        for optim in optims.values():
            optim.register_step_post_hook(lambda optim, *_: self.stepped.add(optim))

    def draw(self) -> Any:
        """Return the batch of the next outer step, which then is over."""
        return next(self.stream)

    def read(self, progress: Progress) -> None:
        """Add the metrics of the steps that nobody has read yet to the progress. Raises: Diverged."""
        if self.pending:
            progress.window += read_numbers(self.pending, progress.step)
            self.pending.clear()

    def make(self, progress: Progress) -> None:
        """Make the next outer step, and count it. Raises: Diverged if a gradient is not finite."""
        batch, parts = self.draw(), self.parts
        progress.count(count_drawn(batch))
        self.watch.begin()
        try:
            self.state, metrics = parts.group.outer_step(parts.learner, self.state, batch, parts.optims, progress.step)
        except NotFinite:
            found = trace(parts.learner, batch, parts.group, progress.step + 1)
            self.skipped_in_a_row += 1
            if not self.skips or self.skipped_in_a_row > MOST_SKIPS:
                progress.step += 1
                raise found from None
            self.watch.undo()
            progress.skipped += 1
            log.warning("%s: the step is skipped", found)
        else:
            self.skipped_in_a_row = 0
            self.pending.append(metrics)
        for schedule in parts.schedules:
            if schedule.optimizer in self.stepped:  # optimizers of other stages pause, with their schedules
                schedule.step()
        self.stepped.clear()
        progress.step += 1
