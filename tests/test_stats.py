from __future__ import annotations

import numpy as np
import pytest

from metarun.report.stats import better, estimate, selection_score


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


def test_accuracy_is_maximised_and_loss_minimised() -> None:
    assert selection_score(["loss", "accuracy"]) == "accuracy"
    assert selection_score(["loss", "mse@0", "mse"]) == "mse"
    assert selection_score(["loss"]) == "loss"
    assert better("accuracy", 0.6, 0.5)
    assert not better("accuracy", 0.5, 0.5)
    assert better("accuracy@5", 0.6, 0.5)
    assert better("mse", 0.4, 0.5)
    assert better("mse@0", 0.4, 0.5)
    assert better("loss", 0.4, 0.5)
    assert better("loss", 9.0, None)
