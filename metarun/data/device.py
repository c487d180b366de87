"""Small arrays on their way to where tasks are made."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(array: NDArray[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The array as a tensor on the device; a GPU fetches it when it comes to it, and nobody waits for that.

    Args:
        dtype: what it becomes before it goes, as not every device has float64; None: what it is.
    """
    tensor = torch.from_numpy(array).to(dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
