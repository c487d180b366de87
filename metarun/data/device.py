"""Copies of arrays on the device where tasks are made, and whether it has room for them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy an array to a tensor on the device. A GPU copies it in the background, and the CPU does not wait.

    Args:
        dtype: type to convert to before the copy, since not every device has float64; None keeps the array's own.
    """
    tensor = torch.from_numpy(array).to(dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def fits(tensor: Tensor, device: torch.device) -> bool:
    """Return whether a tensor takes less than half of a GPU's free memory; the CPU holds it already."""
    return device.type != "cuda" or tensor.nbytes < torch.cuda.mem_get_info(device)[0] / 2
