"""torch's fused attention has no second derivative; written out, by torch itself, it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch.backends import cuda, mha

from metarun.ops import context

FUSED: tuple[tuple[Callable[[], bool], Callable[[bool], Any]], ...] = (
    (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),  # on a CPU too
    (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    (mha.get_fastpath_enabled, mha.set_fastpath_enabled),  # of whole layers in eval mode
)
"""Whether torch may use each fused kernel, and how that is set: a third of the time of sdpa_kernel."""


def differentiable_attention() -> AbstractContextManager[None]:
    """Inside, attention is written out where an inner loop or a transform may differentiate it twice."""
    return _written_out() if context.in_inner_loop() or context.is_transformed() else nullcontext()


@contextmanager
def _written_out() -> Iterator[None]:
    before = [allowed() for allowed, _ in FUSED]
    try:
        for _, allow in FUSED:
            allow(False)
        yield
    finally:
        for (_, allow), value in zip(FUSED, before, strict=True):
            allow(value)
