"""scripts/environment_speed.py: both sides are the same task, and what is measured is positive."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import environment_speed


def test_both_sides_pay_the_same_and_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--tasks", "2", "--episodes", "3", "--processes", "0", "--rounds", "2"]
    found = environment_speed.main(small)
    assert set(found) == {"metarun", "gymnasium, one process"}
    assert all(rate > 0 for rate in found.values())
    still = (np.zeros(2, np.float32), 0.0, False, False, {})
    monkeypatch.setattr(environment_speed.Point, "step", lambda self, action: still)
    with pytest.raises(AssertionError, match="the two tasks are not the same"):
        environment_speed.main(small)
