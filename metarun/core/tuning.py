"""Settings of the process: how it keeps memory, waits for threads, multiplies in float32 and collects garbage."""

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
    """Make the process keep the memory of freed CPU tensors for later tensors.

    glibc returns large pieces to the system at once, and then every new piece costs a page fault for each 4 KB. These
    faults took a quarter of an outer step of small tensors, and half of one at 84x84. With another libc this does
    nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)  # a piece with a mapping of its own is returned when it is freed
    mallopt(_TRIM_THRESHOLD, -1)  # never


def set_precision(precision: str) -> None:
    """Set the precision of matrix products and convolutions in float32 for this process.

    `float32` is exact. `tf32` rounds the factors to 10 bits, as torch does by default in convolutions on a GPU, and
    `bf16` to 7 bits, each on devices that can. Sums and everything else stay float32. Rounding affects second-order
    gradients most: see scripts/bench.py --only tf32,bf16.
    """
    import torch

    backends: Any = torch.backends
    # Set torch's older switches first: reading one that contradicts the new switches, as torch.compile does, fails.
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = precision == "tf32"
    backends.fp32_precision = "ieee" if precision == "float32" else precision
    # cuDNN's convolutions use TF32 by default, and in torch 2.11 they ignore the general switch.
    for products in (backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul):
        products.fp32_precision = "none" if precision == "bf16" else backends.fp32_precision  # CUDA has no bf16 here
    for products in (backends.mkldnn, backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul):
        products.fp32_precision = backends.fp32_precision  # torch.export may have set them, and then they stay


def repeat_exactly(wanted: bool) -> None:
    """Set whether a GPU adds in the same order each time, so that a run repeats to the bit.

    torch warns of operations that have no fixed order. cuBLAS needs a workspace of fixed size. A size that the user has
    set is kept. The workspace stays for later runs of the process, where it does no harm.
    """
    import torch

    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted != torch.are_deterministic_algorithms_enabled():  # else keep cuDNN's own switch as others have set it
        torch.backends.cudnn.deterministic = wanted
        torch.use_deterministic_algorithms(wanted, warn_only=wanted)


def wait_briefly() -> None:
    """Make the threads of GNU's OpenMP, which torch uses on Linux, spin for microseconds instead of milliseconds.

    On busy cores, a spinning thread keeps the very thread that it waits for from running. Beside two busy processes on
    two cores, a step of 0.07 s took 0.9 to 2.1 s before and takes 0.25 s now; on idle cores nothing is lost. Call this
    before torch is imported. Values that the user has set are kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")


@contextmanager
def frozen_imports() -> Iterator[None]:
    """Exempt the objects of imports inside the context from garbage collection, during the imports and for good.

    Collection would take a sixth of the time of the imports.
    """
    global _frozen
    gc.disable()
    try:
        yield
    finally:
        if not _frozen:  # a second freeze would also keep the garbage made in between
            _frozen = True
            gc.freeze()
            atexit.register(gc.unfreeze)  # triton reports objects that survive the end as leaks
        gc.enable()


_frozen = False  # gc.get_freeze_count() counts them one by one: 0.05 s for the objects of torch and its like
