"""What ends a training before its last outer step: its time is up, or validation has not improved for long."""

from __future__ import annotations

from dataclasses import dataclass

from metarun.run.progress import Progress
from metarun.run.team import Group


@dataclass(frozen=True)
class Limits:
    """Limits of a training beside its outer steps. All depends on the progress, so a resumed run ends where it did.

    Args:
        max_time: minutes of training and validation; None for no limit.
        patience: validations in a row without a better one; None for no limit.
        val_every: outer steps between validations.
    """

    max_time: float | None
    patience: int | None
    val_every: int

    def find_reason(self, progress: Progress, group: Group) -> str | None:
        """Return why the training ends after the present step, in words; None if it goes on."""
        if self.max_time is not None:
            seconds = group.ask_first(progress.train_seconds + progress.val_seconds)  # all processes end together
            if seconds >= 60 * self.max_time:
                return f"run.max_time={self.max_time:g} minutes are over"
        if self.patience is not None and progress.best_step is not None:
            worse = progress.step // self.val_every - -(-progress.best_step // self.val_every)
            if worse >= self.patience:
                return f"run.patience={self.patience}: the validation of step {progress.best_step} was the best"
        return None
