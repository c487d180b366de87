"""What a task's outputs are scored by: (output, y) -> scalars by name, `loss` among them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution


def classification(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy in nats and accuracy in 0..1 of logits [M, N] against labels [M]."""
    return {
        "loss": F.cross_entropy(output, y),
        "accuracy": (output.argmax(-1) == y).to(output.dtype).mean(),
    }


def regression(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Mean squared error, over points and dimensions, of values [M, D_out] against y [M, D_out]."""
    mse = F.mse_loss(output, y)
    return {"loss": mse, "mse": mse}


def gaussian_nll(predicted: Distribution, y: Tensor) -> dict[str, Tensor]:
    """Log-density in nats for each point, and mean squared error, of each task [...].

    Args:
        predicted: of the values at points [..., M], their D_out dimensions one event.
        y: [..., M, D_out].
    """
    log_likelihood = predicted.log_prob(y).mean(-1)
    return {"loss": -log_likelihood, "log_likelihood": log_likelihood, "mse": mse(predicted.mean, y)}


def mse(output: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each task [...], over points and dimensions, of values [..., M, D_out]."""
    return (output - y).square().mean((-2, -1))
