"""A run that is looked at while it goes on: where its time goes, or which operation's gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metarun.core.screen import Screen

LINES = 15
"""Operations in the table of the slowest."""


@contextmanager
def inspected(how: str, file: Path, screen: Screen) -> Iterator[None]:
    """Inside, look at what torch does.

    Args:
        how: `profile` writes where time goes into `file`, for chrome://tracing, and shows the slowest operations;
            `anomaly` makes an error of the operation that first has a gradient that is not finite; `none` does nothing.
    """
    import torch

    if how == "anomaly":
        with torch.autograd.set_detect_anomaly(True):
            yield
    elif how == "profile":
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as profile:
            yield
        profile.export_chrome_trace(str(file))
        screen.print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=LINES), soft_wrap=True)
        screen.say(f"written: {file}")
    else:
        yield
