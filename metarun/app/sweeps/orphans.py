"""A worker of joblib's ends after its sweep's process is gone. joblib itself leaves it there, with all its memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

POLL = 2.0
"""Seconds between two looks."""

_running = threading.Event()
_watching = threading.Lock()


def begin_job() -> None:
    """Note that a job runs in this process; from the first one on a worker of joblib's looks for its sweep."""
    _running.set()
    if multiprocessing.current_process().name.startswith("LokyProcess") and _watching.acquire(blocking=False):
        threading.Thread(target=_wait_for_end, args=(os.getppid(),), daemon=True).start()


def end_job() -> None:
    """Note that no job runs in this process."""
    _running.clear()


def _wait_for_end(parent: int) -> None:
    """End this process once it is nobody's child and no job runs in it; a job that runs ends by itself."""
    while os.getppid() == parent or _running.is_set():
        time.sleep(POLL)
    os._exit(0)
