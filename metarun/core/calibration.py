"""Probabilities that mean what they say: one temperature for all logits, and how far confidence is from accuracy."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15
"""Bins of confidence in the calibration error, as in Guo et al."""

LEAST, MOST = 1e-3, 1e3
"""Least and greatest temperature."""


def fit_temperature(logits: Tensor, y: Tensor) -> float:
    """Find the temperature at which softmax(logits / temperature) is likeliest for the labels; argmax stays the same.

    One label in R + 2 is taken to be wrong, as in Platt scaling: else the temperature is zero where no answer is wrong.

    Shapes: logits [R, N], y [R] int64 in 0..N-1.
    Reference: Guo, Pleiss, Sun, Weinberger. On Calibration of Modern Neural Networks. ICML 2017. arXiv:1706.04599,
        section 4.2.
    """
    from scipy.optimize import minimize_scalar  # takes half a second to import

    exact = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(exact / math.exp(log_temperature), y, label_smoothing=1 / (len(y) + 2)))

    found = minimize_scalar(loss, bounds=(math.log(LEAST), math.log(MOST)), method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x))


def find_calibration_error(probabilities: Tensor, y: Tensor) -> float:
    """Return the expected calibration error in 0..1 of probabilities [R, N] for labels y [R]."""
    return float(measure_calibration_error(probabilities, y))


def measure_calibration_error(probabilities: Tensor, y: Tensor) -> Tensor:
    """Return the same as a tensor, float64, also for many tasks at once under vmap.

    It is the mean distance of confidence from accuracy in bins of equal width (ECE of Guo et al., equation 3).
    """
    confidence, answer = probabilities.double().max(-1)
    right = (answer == y).double()
    which = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # bins are open below, closed above
    inside = (which[:, None] == torch.arange(BINS, device=y.device)).double()  # [R, BINS]
    return ((right - confidence) @ inside).abs().sum() / len(y)
