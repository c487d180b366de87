"""Choose how many tasks run at once, by their size and the device."""

from __future__ import annotations

from metarun.core.machine import split_evenly
from metarun.core.tasks import Batch

SMALL_TASK_NUMBERS, MAX_CPU_NUMBERS, MIN_TASKS_TOGETHER = 16 * 28 * 28, 400 * 28 * 28, 4
"""Limits on a CPU, as measured.

Tasks of at most SMALL_TASK_NUMBERS input numbers run together in any number. All tasks that run together have at most
MAX_CPU_NUMBERS input numbers; more are no faster. Larger tasks run together only if MIN_TASKS_TOGETHER of them fit; two
are slower than one by one. Of 5-way 1-shot tasks at 28x28, 40 run together with one query per class, and 5 with 15
queries; at 84x84, one.
"""


def choose_tasks_at_once(batch: Batch, n_tasks: int, room: int | None, most_numbers: int = MAX_CPU_NUMBERS) -> int:
    """Choose how many of `n_tasks` tasks like those of the batch to run at once, for speed.

    Chunks are of equal size, so that one recording serves them all.

    Args:
        most_numbers: input numbers of tasks that run together on a CPU.
        room: tasks that fit into a GPU's memory, as found when it ran out; None if it never did.
    """
    if batch.query.x.device.type != "cpu":
        return split_evenly(n_tasks, room or n_tasks)
    inputs_per_task = (batch.support.x.numel() + batch.query.x.numel()) // batch.n_tasks
    most = most_numbers // inputs_per_task
    if min(most, n_tasks) < MIN_TASKS_TOGETHER and inputs_per_task > SMALL_TASK_NUMBERS:
        return 1
    return split_evenly(n_tasks, most)
