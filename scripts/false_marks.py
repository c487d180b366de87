"""How often `metarun compare` marks a difference between methods that are equal.

python scripts/false_marks.py                          # the table of scripts/README.md, about a minute
python scripts/false_marks.py --tables 300 --seed 1    # fewer simulated tables for each line, other draws

Equal methods are tested on the same tasks: a task is hard or easy for all, a method likes some tasks more, a seed moves
a run's mean by the spread, and a run does better or worse at a task by chance. Spreads are in points of accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metarun.report.stats import compare_paired, correct_by_holm
from metarun.report.two_levels import SIGNIFICANCE_LEVEL, mark_groups

TASKS = 600
HARDNESS, LIKING, CHANCE = 8.0, 3.0, 5.0
"""Standard deviations over tasks, in points: common to all, of a method at a task, of a run at a task."""


def draw_table(draw: np.random.Generator, groups: int, seeds: int, spread: float) -> list[NDArray[np.float64]]:
    """Scores [seeds, tasks] of each of the groups, whose true means are the same."""
    hardness = draw.normal(0, HARDNESS, TASKS)
    table = []
    for _ in range(groups):
        liking = draw.normal(0, LIKING, TASKS)
        of_seeds, chance = draw.normal(0, spread, (seeds, 1)), draw.normal(0, CHANCE, (seeds, TASKS))
        table.append(70 + hardness + liking + of_seeds + chance)
    return table


def is_marked_by_tasks(table: Sequence[NDArray[np.float64]]) -> bool:
    """Whether tasks alone would have marked the best of a table, as metarun did before."""
    means = [scores.mean(0) for scores in table]
    first = max(range(len(means)), key=lambda i: means[i].mean())
    p = correct_by_holm([compare_paired(mean, means[first]).p for i, mean in enumerate(means) if i != first])
    return all(value < SIGNIFICANCE_LEVEL for value in p)


def false_marks(tables: int, groups: int, seeds: int, spread: float, seed: int) -> tuple[float, float, float]:
    """Shares of simulated tables with a mark: against a baseline, of a best group, and of a best one by tasks alone."""
    draw = np.random.default_rng([seed, groups, seeds, round(10 * spread)])
    against, best, before = 0, 0, 0
    for _ in range(tables):
        table = draw_table(draw, groups, seeds, spread)
        against += any(mark in ("better", "worse") for mark in mark_groups(table, 0, 1))
        best += "best" in mark_groups(table, None, 1)
        before += is_marked_by_tasks(table)
    return against / tables, best / tables, before / tables


def main(words: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000, help="simulated for each line")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    print("| spread of seeds | groups | seeds | against a baseline | a best group | a best group by tasks alone |")
    print("|---:|---:|---:|---:|---:|---:|")
    for spread in (0.0, 0.5, 1.0):
        for groups in (2, 4, 6):
            for seeds in (1, 3, 5, 10):
                shares = false_marks(asked.tables, groups, seeds, spread, asked.seed)
                print(f"| {spread} | {groups} | {seeds} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
