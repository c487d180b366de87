"""What a task's outputs are scored by: (output, y) -> scalars by name, `loss` among them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def classification(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy in nats and accuracy in 0..1 of logits [M, N] against labels [M]."""
    return {
        "loss": F.cross_entropy(output, y),
        "accuracy": (output.argmax(-1) == y).to(output.dtype).mean(),
    }
