"""Normal numbers from uniform ones."""

from __future__ import annotations

import torch
from torch import Tensor


def to_normal(u: Tensor) -> Tensor:
    """Turn numbers in [0, 1) into standard normal ones, all of them finite in float32 too."""
    z: Tensor = torch.special.ndtri(u.clamp(2.0**-25, 1 - 2.0**-24))
    return z
