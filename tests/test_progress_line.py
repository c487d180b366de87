"""The line that tells how far a run is."""

from __future__ import annotations

import io

from rich.console import Console

from metarun.run.tracking.console import ConsoleSink


def test_what_is_left_is_what_the_steps_still_to_make_would_take() -> None:
    """25 of 100 steps took 60 seconds: 75 take 180. After 90 steps in 90 seconds, ten are left."""
    out = io.StringIO()
    sink = ConsoleSink(Console(file=out, width=120), 100)
    for step, seconds in ((25, 60.0), (90, 90.0), (100, 100.0)):
        sink.printed = 0.0
        sink.log(step, "train", {"loss": 0.5, "accuracy": 0.25, "seconds": seconds, "tasks_per_second": 8.4})
    lines = out.getvalue().splitlines()
    assert [line.split("tasks/s")[1].strip() for line in lines] == ["3:00 left", "0:10 left", "0:00 left"]
    assert lines[0].startswith("step     25/100  train loss 0.5000  accuracy 25.00 %  8 tasks/s")
