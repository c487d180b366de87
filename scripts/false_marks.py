"""How often `metarun compare` marks a difference between methods that are equal, and how often it finds one.

python scripts/false_marks.py --tables 1000            # the tables of scripts/README.md, three minutes
python scripts/false_marks.py --tables 300 --seed 1    # fewer simulated tables for each line, other draws

Methods are tested on the same tasks: a task is hard or easy for all, a method likes some tasks more, a seed moves a
run's mean by the group's spread, and a run does better or worse at a task by chance. Spreads are in points of accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from metarun.report.stats import compare_paired, correct_by_holm
from metarun.report.two_levels import (
    SIGNIFICANCE_LEVEL,
    estimate_difference,
    estimate_parts,
    find_differences,
    mark_found,
)

TASKS = 600
HARDNESS, LIKING, CHANCE = 8.0, 3.0, 5.0
"""Standard deviations over tasks, in points: common to all, of a method at a task, of a run at a task."""

SPREADS, GROUPS, SEEDS = (0.0, 0.5, 1.0), (2, 3, 4, 5, 6), (1, 3, 5, 10)
"""Of tables whose groups are alike."""

UNEVEN: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...] = (
    ((3, 3), (1, 0)),
    ((3, 3), (1, 0.5)),
    ((3, 3), (0.5, 0)),
    ((3, 3), (2, 0.2)),
    ((3, 5), (1, 0)),
    ((3, 10), (1, 0)),
    ((3, 10), (1, 0.5)),
    ((3, 10), (2, 1)),
    ((3, 10), (0, 1)),
    ((5, 10), (1, 0)),
    ((3, 3, 3), (1, 0, 0)),
    ((3, 3, 3), (1, 0.5, 0)),
    ((3, 5, 10), (1, 0.5, 0)),
    ((10, 3, 3, 3), (0, 1, 1, 1)),
    ((3, 3, 3, 3), (1, 1, 0, 0)),
    ((3, 3, 5, 5, 10), (1, 0, 1, 0, 0.5)),
    ((10, 3, 3, 3, 3, 3), (0, 1, 1, 1, 1, 1)),
    ((3, 3, 3, 5, 5, 10), (0, 1, 0.5, 1, 0.5, 1)),
)
"""Seeds and spreads of the groups of tables whose groups differ; the first is the baseline."""


def draw_table(
    draw: np.random.Generator, seeds: Sequence[int], spreads: Sequence[float], gain: float = 0.0
) -> list[NDArray[np.float64]]:
    """Scores [seeds, tasks] of each of the groups, whose true means are the same, but for the first one's `gain`."""
    hardness = draw.normal(0, HARDNESS, TASKS)
    table = []
    for n, spread in zip(seeds, spreads, strict=True):
        liking = draw.normal(0, LIKING, TASKS)
        of_seeds, chance = draw.normal(0, spread, (n, 1)), draw.normal(0, CHANCE, (n, TASKS))
        table.append(70 + gain * (not table) + hardness + liking + of_seeds + chance)
    return table


def is_marked_by_tasks(table: Sequence[NDArray[np.float64]]) -> bool:
    """Whether tasks alone would have marked the best of a table."""
    means = [scores.mean(0) for scores in table]
    first = max(range(len(means)), key=lambda i: means[i].mean())
    p = correct_by_holm([compare_paired(mean, means[first]).p for i, mean in enumerate(means) if i != first])
    return all(value < SIGNIFICANCE_LEVEL for value in p)


def find_one_t(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """The p-value by a single t for seeds and tasks, with Satterthwaite's degrees of freedom; 1 with too few seeds."""
    if (found := estimate_parts(scores, reference)) is None:
        return 1.0
    mean, (variance, freedom) = found[0], np.array(found[1]).T
    whole = variance.sum() ** 2 / np.sum(variance**2 / freedom)
    return float(2 * special.stdtr(whole, -abs(mean) / np.sqrt(variance.sum())))


def false_marks(tables: int, seeds: Sequence[int], spreads: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Shares of simulated tables with a mark: against a baseline, of a best group, and of a best one by tasks alone.

    Args:
        seeds, spreads: of each group; the first is the baseline.
    """
    draw = np.random.default_rng([seed, *seeds, *(round(10 * spread) for spread in spreads)])
    against, best, before = 0, 0, 0
    for _ in range(tables):
        table = draw_table(draw, seeds, spreads)
        first = max(range(len(table)), key=lambda i: table[i].mean())
        found = find_differences(table, 0)
        against += any(mark in ("better", "worse") for mark in mark_found(table, 0, True, 1, found))
        best += "best" in mark_found(table, first, False, 1, found if first == 0 else find_differences(table, first))
        before += is_marked_by_tasks(table)
    return against / tables, best / tables, before / tables


def false_marks_by_one_t(tables: int, seeds: Sequence[int], spreads: Sequence[float], seed: int) -> float:
    """The share of tables with a mark against a baseline, by a single t for seeds and tasks."""
    draw = np.random.default_rng([seed, *seeds, *(round(10 * spread) for spread in spreads)])
    marked = 0
    for _ in range(tables):
        first, *others = draw_table(draw, seeds, spreads)
        marked += min(correct_by_holm([find_one_t(other, first) for other in others])) < SIGNIFICANCE_LEVEL
    return marked / tables


def shares_found(tables: int, seeds: int, spread: float, gain: float, seed: int) -> tuple[float, float]:
    """Shares of tables of two groups in which a true difference of `gain` is found, and would be by a single t."""
    draw = np.random.default_rng([seed, seeds, round(10 * spread), round(10 * gain)])
    found, by_one_t = 0, 0
    for _ in range(tables):
        one, other = draw_table(draw, (seeds, seeds), (spread, spread), gain)
        difference = estimate_difference(one, other)
        found += difference is not None and difference.p < SIGNIFICANCE_LEVEL
        by_one_t += find_one_t(one, other) < SIGNIFICANCE_LEVEL
    return found / tables, by_one_t / tables


def main(words: Sequence[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000, help="simulated for each line")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    print("| spread of seeds | groups | seeds | against a baseline | a best group | a best group by tasks alone |")
    print("|---:|---:|---:|---:|---:|---:|")
    for spread in SPREADS:
        for groups in GROUPS:
            for seeds in SEEDS:
                shares = false_marks(asked.tables, (seeds,) * groups, (spread,) * groups, asked.seed)
                print_line(spread, groups, seeds, *map(format_share, shares))
    print("\n| seeds of the groups | their spreads | against the first | a best group | against the first by one t |")
    print("|---:|---:|---:|---:|---:|")
    for numbers, spreads in UNEVEN:
        against, best, _ = false_marks(asked.tables, numbers, spreads, asked.seed)
        before = false_marks_by_one_t(asked.tables, numbers, spreads, asked.seed)
        print_line(join(numbers), join(spreads), *map(format_share, (against, best, before)))
    print("\n| spread of seeds | seeds | 1 point found | by one t | 2 points found | by one t |")
    print("|---:|---:|---:|---:|---:|---:|")
    for spread in SPREADS:
        for seeds in SEEDS[1:]:
            shares = [share for gain in (1, 2) for share in shares_found(asked.tables, seeds, spread, gain, asked.seed)]
            print_line(spread, seeds, *map(format_share, shares))


def format_share(share: float) -> str:
    return f"{100 * share:.1f} %"


def join(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def print_line(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
