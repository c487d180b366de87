"""Differences that other seeds or other tasks would not undo, and how often equal methods are told apart."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from false_marks import false_marks

from metarun.report.two_levels import Part, add_intervals, estimate_difference, find_differences, mark_groups


def group(seeds: list[float], tasks: np.ndarray) -> np.ndarray:
    """Scores [seeds, tasks] of runs that differ by their mean alone."""
    return np.array(seeds)[:, None] + tasks


TASKS = np.linspace(-3, 3, 40)


def test_where_one_groups_seeds_alone_matter_it_is_the_t_test_over_their_means() -> None:
    one = [70.0, 71.0, 73.0, 70.5]
    found, student = estimate_difference(group(one, TASKS), group([68.0] * 10, TASKS)), stats.ttest_1samp(one, 68.0)
    assert found is not None
    assert found.p == pytest.approx(student.pvalue, rel=1e-9)
    low, high = student.confidence_interval()
    assert 68 + found.mean - found.ci95 == pytest.approx(low)
    assert 68 + found.mean + found.ci95 == pytest.approx(high)


def test_where_seeds_do_not_matter_it_is_the_paired_test_over_tasks() -> None:
    likes = np.random.default_rng(0).normal(0.3, 1, 40)
    found = estimate_difference(np.stack([TASKS + likes] * 3), np.stack([TASKS] * 3))
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_1samp(likes, 0).pvalue, rel=1e-9)


def test_the_squares_of_the_intervals_over_seeds_and_over_tasks_add_up() -> None:
    draw = np.random.default_rng(1)
    likes, one, other = draw.normal(0.3, 1, 40), [0.0, 0.5, 1.5], [0.0, 0.2, 0.1, 0.9]
    found = estimate_difference(group(one, TASKS + likes), group(other, TASKS))
    assert found is not None

    def half(level: float) -> float:
        parts = ((np.var(one, ddof=1) / 3, 2), (np.var(other, ddof=1) / 4, 3), (np.var(likes, ddof=1) / 40, 39))
        return float(np.sqrt(sum(part * stats.t.ppf(1 - level / 2, freedom) ** 2 for part, freedom in parts)))

    assert found.ci95 == pytest.approx(half(0.05))
    assert half(found.p) == pytest.approx(abs(found.mean))


def test_a_p_value_may_be_next_to_nothing_or_one() -> None:
    far, near = group([1e6, 1e6 + 1, 1e6 - 1], TASKS + TASKS % 1), group([0.0, 1.0, -1.0], TASKS)
    distant, same = estimate_difference(far, near), estimate_difference(near, near[:, ::-1])
    assert distant is not None
    assert same is not None
    assert 0 < distant.p < 1e-10
    assert same.p == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_fewer_than_three_seeds_no_difference_is_marked_however_large(seeds: int) -> None:
    good, bad = group([90.0] * seeds, TASKS), group([10.0, 10.1, 9.9], TASKS)
    assert estimate_difference(good, bad) is None
    assert mark_groups([good, bad], None, 1) == ["", ""]
    assert mark_groups([good, bad], 1, 1) == ["", "baseline"]


def test_the_same_numbers_are_no_difference_and_a_constant_one_is() -> None:
    same, more = group([1.0] * 3, TASKS), group([2.0] * 3, TASKS)
    assert mark_groups([same, same.copy()], None, 1) == ["", ""]
    assert mark_groups([same, more], None, 1) == ["", "best"]


def test_marks_go_by_the_direction_of_the_score_and_by_what_was_asked() -> None:
    low, middle, high = (group([mean, mean + 0.1, mean - 0.1], TASKS) for mean in (1.0, 5.0, 9.0))
    assert mark_groups([low, middle, high], None, 1) == ["", "", "best"]
    assert mark_groups([low, middle, high], None, -1) == ["best", "", ""]
    assert mark_groups([low, middle, high], 1, 1) == ["worse", "baseline", "better"]
    assert mark_groups([low, middle, high], 1, -1) == ["better", "baseline", "worse"]


def test_the_best_must_beat_all_others() -> None:
    low, high = (group([mean, mean + 0.1, mean - 0.1], TASKS) for mean in (1.0, 9.0))
    close = high - 0.01
    assert mark_groups([low, close, high], None, 1) == ["", "", ""]


def test_p_values_are_corrected_for_all_that_were_compared_also_for_those_with_too_few_seeds() -> None:
    draw = np.random.default_rng(2)
    groups = [group(list(draw.normal(mean, 1, 5)), TASKS) for mean in (0, 1.5)]
    (_, alone) = find_differences(groups, 0)[1]
    found = find_differences([*groups, group([3.0], TASKS)], 0)
    assert list(found) == [1]
    assert found[1][1] == pytest.approx(2 * alone)


@pytest.mark.parametrize(
    ("freedom", "errors"),
    [
        ((2, 2, 599), (1, 1, 0)),
        ((2, 9, 599), (0.6, 0.06, 0.2)),
        ((2, 2, 599), (0.6, 0.1, 0.2)),
        ((2, 9, 599), (4, 1, 0)),
    ],
)
def test_an_interval_misses_in_five_of_a_hundred_at_most_however_unevenly_seeds_spread(
    freedom: tuple[int, ...], errors: tuple[float, ...]
) -> None:
    """Of 6,000 draws 5.9 % are three standard errors above 5. Satterthwaite's t for the whole variance missed in 7.1 to
    7.5 % but for the first case: three seeds against ten are the second."""
    draw, n = np.random.default_rng(6), 6000
    variances = np.array(errors) ** 2 * draw.chisquare(freedom, (n, 3)) / np.array(freedom)
    halves = [add_intervals([Part(*part) for part in zip(one, freedom, strict=True)], 0.05) for one in variances]
    assert np.mean(np.abs(draw.normal(0, np.linalg.norm(errors), n)) > halves) <= 0.059


LIMIT = {100: 0.116, 1000: 0.071}
"""Three standard errors above 5 %, by the number of tables."""


@pytest.mark.parametrize(
    ("tables", "seeds", "spreads"),
    [
        (100, (3, 10), (1, 0)),
        (100, (5, 5, 5), (0.5, 0.5, 0.5)),
        *[
            pytest.param(1000, *table, marks=pytest.mark.slow)
            for table in (
                ((3, 3), (1, 1)),
                ((3, 10), (1, 0)),
                ((3, 3), (2, 0.2)),
                ((5,) * 5, (0.5,) * 5),
                ((10, 10, 10), (0, 0, 0)),
                ((10, 3, 3, 3, 3, 3), (0, 2, 2, 2, 2, 2)),  # the most that can go wrong
            )
        ],
    ],
)
def test_equal_methods_are_seldom_told_apart(tables: int, seeds: tuple[int, ...], spreads: tuple[float, ...]) -> None:
    against, best, _ = false_marks(tables, seeds, spreads, seed=3)
    assert max(against, best) <= LIMIT[tables]


def test_tasks_alone_would_tell_equal_methods_apart_most_of_the_time() -> None:
    """What the simulation is for: with one seed at a spread of a point."""
    against, best, by_tasks = false_marks(100, (1, 1), (1, 1), seed=4)
    assert (against, best) == (0, 0)
    assert by_tasks > 0.45


def test_a_difference_of_two_points_is_found_with_five_seeds() -> None:
    draw = np.random.default_rng(5)
    found = 0
    for _ in range(100):
        tasks = draw.normal(0, 8, 600)
        one, other = (
            mean + tasks + draw.normal(0, 3, 600) + draw.normal(0, 0.5, (5, 1)) + draw.normal(0, 5, (5, 600))
            for mean in (72, 70)
        )
        found += mark_groups([one, other], None, 1) == ["best", ""]
    assert found > 95
