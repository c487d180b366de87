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
    assert lines[0].startswith("step     25/100  train loss 0.5000  accuracy 25.00 %  0.42 steps/s  8.4 tasks/s")


def test_the_bar_tells_how_far_how_fast_how_long_and_the_best_so_far_in_80_columns() -> None:
    out = io.StringIO()
    sink = ConsoleSink(Console(file=out, width=80, force_terminal=True, legacy_windows=False), 300, {"train": "60-way"})
    sink.live.stop()
    sink.log(100, "val", {"loss": 1.0, "accuracy": 0.7})
    sink.log(200, "val", {"loss": 1.1, "accuracy": 0.6})
    sink.log(200, "train", {"loss": 0.5, "accuracy": 0.25, "seconds": 100.0, "tasks_per_second": 32.0})
    drawn = io.StringIO()
    Console(file=drawn, width=80).print(sink._draw())
    bar, told = drawn.getvalue().splitlines()
    assert bar.startswith("step 200/300")
    assert bar.rstrip().endswith("2.0 steps/s  32 tasks/s  0:50 left  0:00 elapsed")
    assert "━" in bar
    assert told.rstrip() == "train (60-way) loss 0.5000  accuracy 25.00 %  best 70.00 % at 100"
    said = [line for line in out.getvalue().splitlines() if "val" in line]
    assert ["the best so far" in line for line in said] == [True, False]
