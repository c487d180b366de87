"""What a process sets for itself: how it keeps memory, waits for threads, multiplies in float32, collects garbage."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def keep_memory() -> None:
    """Have the process keep memory that tensors on the CPU have left for the next ones.

    glibc gives large pieces back to the system at once, and every new one costs a page fault for each 4 KB: a quarter
    of an outer step of small tensors, half of one at 84x84. Where there is another libc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)  # no piece of its own mapping, which would go back when it is freed
    mallopt(_TRIM_THRESHOLD, -1)  # never


def multiply_in(precision: str) -> None:
    """How this process multiplies matrices, and convolves, in float32: exactly as `float32` says, or with the factors
    rounded to `tf32` (10 bits, what torch by itself does in convolutions on a GPU) or `bf16` (7), where it can.

    Sums and everything else stay float32. Second-order gradients suffer most: see scripts/bench.py --only tf32,bf16.
    """
    import torch

    backends: Any = torch.backends
    # torch's older switches come first: where they say otherwise, to read one is an error, as torch.compile does.
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = precision == "tf32"
    backends.fp32_precision = "ieee" if precision == "float32" else precision
    # cuDNN's convolutions start with TF32 of their own, and in torch 2.11 keep it whatever is said of all.
    for products in (backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul):
        products.fp32_precision = "none" if precision == "bf16" else backends.fp32_precision  # CUDA has no bf16 here


def repeat_exactly(wanted: bool) -> None:
    """Whether this process has a GPU add in the same order each time, so that a run repeats to the bit.

    torch warns of an operation that has no such order. cuBLAS needs a workspace of fixed size for it, which is left as
    the user has set it, and stays for later runs of the process, where it does no harm.
    """
    import torch

    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted != torch.are_deterministic_algorithms_enabled():  # else leave cuDNN's own switch as others have set it
        torch.backends.cudnn.deterministic = wanted
        torch.use_deterministic_algorithms(wanted, warn_only=wanted)


def wait_briefly() -> None:
    """Have threads of GNU's OpenMP, which torch has on Linux, wait awake for microseconds, not for milliseconds.

    Where others want the cores too, threads that wait awake keep from them the very thread that they wait for: beside
    two busy processes on two cores a step of 0.07 s took 0.9 to 2.1 s, and takes 0.25 s so; alone it loses nothing.
    Heeded when torch is imported; what the user has set of this is left.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")


@contextmanager
def lasting() -> Iterator[None]:
    """Imports inside stay for good: Python looks for no garbage among them, then (a sixth of their time) or later."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # the first time: garbage that came since would stay as well
            gc.freeze()
            atexit.register(gc.unfreeze)  # what is not taken down at the end is called a leak by triton
        gc.enable()
