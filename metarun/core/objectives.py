"""Objectives that score the outputs of a task: (output, y) -> scalars by name, `loss` among them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution


def classification(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the mean cross-entropy in nats and the accuracy in 0..1 of logits [M, N] for labels y [M].

    Of many tasks at once, [B, M, N] for [B, M], these are [B].
    """
    if output.ndim == 3 and output.shape[:2] == y.shape:
        losses = F.cross_entropy(output.mT, y, reduction="none")  # [B, M]; a fifth of the time of rows [B * M, N]
        return {"loss": losses.mean(-1), "accuracy": (output.max(-1).indices == y).to(output.dtype).mean(-1)}
    if output.ndim != 2 or len(output) != len(y):
        raise ValueError(f"outputs of shape {list(output.shape)} are no logits [M, N] for M={len(y)} labels")
    return {
        "loss": F.cross_entropy(output, y),
        "accuracy": (output.argmax(-1) == y).to(output.dtype).mean(),
    }


def regression(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the mean squared error, over points and dimensions, of values [M, D_out] for y [M, D_out]."""
    if output.shape != y.shape:
        raise ValueError(f"outputs of shape {list(output.shape)} are no values for y of shape {list(y.shape)}")
    mse = F.mse_loss(output, y)
    return {"loss": mse, "mse": mse}


def gaussian_nll(predicted: Distribution, y: Tensor) -> dict[str, Tensor]:
    """Return the mean log-density of a point in nats and the mean squared error of each task [...].

    Args:
        predicted: distribution of the values at points [..., M]; the D_out dimensions of a point are one event.
        y: the values [..., M, D_out].
    """
    log_likelihood = predicted.log_prob(y).mean(-1)
    return {"loss": -log_likelihood, "log_likelihood": log_likelihood, "mse": mse(predicted.mean, y)}


def mse(output: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared error of each task [...], over points and dimensions, for values [..., M, D_out]."""
    return (output - y).square().mean((-2, -1))


def no_objective(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Stand for an objective where tasks are environments: rewards score what is done there."""
    raise TypeError("environments have no right answers to hold outputs against")
