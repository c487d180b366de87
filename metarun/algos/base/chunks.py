"""How many tasks run at once, by their size and the device."""

from __future__ import annotations

from metarun.core.tasks import Batch

SMALL, CPU_INPUTS, FEWEST = 16 * 28 * 28, 400 * 28 * 28, 4
"""On a CPU: input numbers of a task that gains from any company; of all tasks that run at once, at most; and how many
larger ones these must be, or they run one by one. Of 5-way 1-shot tasks at 28x28 40 run at once with a query a class,
and 5 with 15 queries; at 84x84 one. Measured: more gain no more, and two larger ones lose."""


def tasks_at_once(batch: Batch, n_tasks: int, room: int | None) -> int:
    """How many of `n_tasks` tasks like those of the batch are fastest at once.

    Args:
        room: tasks that a GPU's memory was found to hold; None if it never ran out.
    """
    if batch.query.x.device.type != "cpu":
        return split_evenly(n_tasks, room or n_tasks)
    inputs_per_task = (batch.support.x.numel() + batch.query.x.numel()) // batch.n_tasks
    most = CPU_INPUTS // inputs_per_task
    if min(most, n_tasks) < FEWEST and inputs_per_task > SMALL:
        return 1
    return split_evenly(n_tasks, most)


def split_evenly(n: int, most: int) -> int:
    """The size of the fewest parts of n, none of more than `most`: what is recorded of one serves them all."""
    return -(-n // -(-n // most))
