from __future__ import annotations

import numpy as np
import pytest

from metarun.core.scores import choose_score, estimate, find_direction, find_sign, is_better

DIRECTIONS = {"accuracy": 1, "return": 1, "log_likelihood": 1, "mse": -1, "loss": -1}
"""Every score that tells how well a run did, the most telling first: 1 if it is to be high, -1 if low."""


def test_the_interval_is_student_t_over_tasks() -> None:
    """Scores 0, 1, 2, 3: mean 1.5, standard deviation sqrt(5/3), t(0.975, 3) = 3.18245, over sqrt(4)."""
    found = estimate(np.array([0.0, 1, 2, 3]))
    assert found.mean == 1.5
    assert found.ci95 == pytest.approx(3.182446 * np.sqrt(5 / 3) / 2, rel=1e-6)
    assert found.n_tasks == 4


def test_the_interval_holds_the_truth_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    samples = [estimate(row) for row in rng.normal(0.3, 1, (2000, 8))]
    inside = sum(abs(e.mean - 0.3) <= e.ci95 for e in samples)
    assert 0.935 < inside / 2000 < 0.965


@pytest.mark.parametrize(("n_tasks", "student"), [(20, 0.63), (100, 0.88)])
@pytest.mark.parametrize("truth", [0.99, 0.01])
def test_the_interval_holds_near_the_ceiling_and_the_floor(truth: float, n_tasks: int, student: float) -> None:
    """Five queries a task; `student` is how often Student's t holds, which is too short or zero."""
    samples = np.random.default_rng(0).binomial(5, truth, (1000, n_tasks)) / 5
    for share, least, most in ((False, student - 0.03, student + 0.03), (True, 0.95, 1.0)):
        found = [estimate(row, share) for row in samples]
        assert least <= np.mean([abs(e.mean - truth) <= e.ci95 for e in found]) <= most


@pytest.mark.parametrize("n_tasks", [50, 200])
def test_the_interval_nearly_holds_where_the_errors_are_those_of_few_tasks(n_tasks: int) -> None:
    """One task in 25 has half of its 75 queries wrong: Student's t holds 86 and 92 times in 100."""
    rng = np.random.default_rng(0)
    samples = rng.binomial(75, np.where(rng.random((1000, n_tasks)) < 0.04, 0.5, 1.0)) / 75
    held = [abs(e.mean - 0.98) <= e.ci95 for e in (estimate(row, share=True) for row in samples)]
    assert np.mean(held) >= 0.94


@pytest.mark.parametrize(
    ("truth", "n_query", "n_tasks"), [(0.45, 75, 20), (0.9, 25, 20), (0.98, 75, 600), (0.05, 100, 40)]
)
def test_away_from_the_ceiling_the_interval_is_student_t(truth: float, n_query: int, n_tasks: int) -> None:
    for row in np.random.default_rng(0).binomial(n_query, truth, (200, n_tasks)) / n_query:
        assert estimate(row, share=True) == estimate(row)


def test_where_every_query_is_right_the_interval_is_as_of_one_query_a_task() -> None:
    """Wilson's interval for 20 of 20 with t(0.975, 19) = 2.09302 is 1 / (1 + t^2 / 20) .. 1."""
    found = estimate(np.ones(20), share=True)
    assert (found.mean, found.interval) == (1.0, "Wilson over tasks")
    assert found.ci95 == pytest.approx(1 - 1 / (1 + 2.093024**2 / 20), rel=1e-6)
    assert estimate(np.zeros(20), share=True).ci95 == pytest.approx(found.ci95)


def test_a_single_task_has_no_interval() -> None:
    assert estimate(np.ones(1), share=True).ci95 == np.inf


def test_accuracy_is_maximised_and_loss_minimised() -> None:
    assert choose_score(["loss", "accuracy"]) == "accuracy"
    assert choose_score(["loss", "mse@0", "mse"]) == "mse"
    assert choose_score(["loss"]) == "loss"
    assert is_better("accuracy", 0.6, 0.5)
    assert is_better("accuracy", 0.1, np.nan)
    assert is_better("mse", 9.0, np.nan)
    assert not is_better("accuracy", np.nan, 0.5)
    assert not is_better("mse", np.nan, np.nan)
    assert not is_better("accuracy", 0.5, 0.5)
    assert is_better("accuracy@5", 0.6, 0.5)
    assert is_better("mse", 0.4, 0.5)
    assert is_better("mse@0", 0.4, 0.5)
    assert is_better("loss", 0.4, 0.5)
    assert is_better("loss", 9.0, None)


@pytest.mark.parametrize(("score", "way"), DIRECTIONS.items())
def test_every_score_has_its_direction_also_by_its_longer_names(score: str, way: int) -> None:
    for name in (score, f"{score}@pointwise", f"{score}@0"):
        assert find_sign(name) == way
        assert is_better(name, 0.2, 0.1) == (way > 0)
        assert is_better(name, 0.1, 0.2) == (way < 0)
        assert not is_better(name, 0.2, 0.2)
        assert is_better(name, 0.2, None)


@pytest.mark.parametrize("place", range(len(DIRECTIONS)))
def test_a_run_is_known_by_the_first_of_its_scores_in_order_of_what_they_tell(place: int) -> None:
    """A likelihood before a squared error, which it contains, and a loss last; whatever their order in the file, and
    whatever other scores there are."""
    known = list(DIRECTIONS)[place:]
    for names in (known, known[::-1], ["kl", *known, "accuracy@0", "mse@0", "log_likelihood@pointwise"]):
        assert choose_score(names) == known[0]


def test_a_score_of_the_learners_own_comes_before_the_loss_though_it_gives_the_loss_a_direction_too() -> None:
    assert choose_score(["loss", "regret"], {"loss": "lower", "regret": "lower"}) == "regret"
    assert choose_score(["loss", "accuracy"], {"loss": "lower"}) == "accuracy"
    assert choose_score(["loss", "other"], {"loss": "lower"}) == "loss"


def test_the_direction_that_a_learner_says_comes_before_the_known_one() -> None:
    """After the suffix for inner steps is dropped; nobody knows that of other scores."""
    assert find_direction("mse") == "lower"
    assert find_direction("mse@3", {"mse": "higher"}) == "higher"
    assert find_direction("return", {"return": "lower"}) == "lower"
    assert find_direction("zeal", {"return": "lower"}) is None
