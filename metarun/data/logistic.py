from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from metarun.core.episodes import draw_bits, scale_to_unit
from metarun.core.ranges import PositiveFloat, PositiveInt
from metarun.core.tasks import Batch, EpisodePlan, Examples
from metarun.data.device import to_device
from metarun.data.functions import to_normal
from metarun.data.quadratics import Quadratics


class Logistic(Quadratics):
    """Problems for optimizers: logistic regressions, whose answers 0 and 1 are drawn from a regression of the kind.

    Inputs x [D] and the weights behind the answers are normal. Support and query points differ, so `loss`, the mean
    cross-entropy in nats, is that of new points.

    Args:
        plan, device: from the runner.
        dims: D.
        scale: standard deviation of the inputs, > 0.
    """

    def __init__(self, plan: EpisodePlan, device: torch.device, dims: PositiveInt, scale: PositiveFloat) -> None:
        super().__init__(plan, device, dims, scale)
        self.info = replace(self.info, objective=binary_cross_entropy)

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        k, points = self.shape(split).k_shot, self.shape(split).k_shot + self.shape(split).n_query
        u = self._draw_numbers(split, indices)
        weights, drawn = to_normal(u)[:, : self.dims], u[:, self.dims :].reshape(len(u), points, self.dims + 1)
        x = self.scale * to_normal(drawn[..., :-1])  # [B, P, D]
        y = drawn[..., -1:] < 1 / (1 + np.exp(-x @ weights[..., None]))
        inputs, answers = (to_device(side, self.device, torch.get_default_dtype()) for side in (x, y))
        return Batch(Examples(inputs[:, :k], answers[:, :k]), Examples(inputs[:, k:], answers[:, k:]), 0)

    def _draw_numbers(self, split: str, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        points = self.shape(split).k_shot + self.shape(split).n_query
        return scale_to_unit(draw_bits(self.seed(split), split, indices, self.dims + points * (self.dims + 1)))


def binary_cross_entropy(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the mean cross-entropy in nats of logits [M, 1] for answers y [M, 1], 0 or 1."""
    return {"loss": F.binary_cross_entropy_with_logits(output, y)}
