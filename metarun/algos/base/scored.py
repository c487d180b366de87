"""What was found in tasks: their scores, and what their images did to running averages of BatchNorm."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Scored(NamedTuple):
    """Scores by name, and the batch statistics of the `bn=running` layers in the prediction of the queries."""

    scores: dict[str, Tensor]
    statistics: list[tuple[Tensor, Tensor]]


def join_statistics(layer: tuple[tuple[Tensor, Tensor], ...]) -> tuple[Tensor, Tensor]:
    """Join what several chunks of tasks found of one layer: means and variances, [rows, channels] each."""
    means, variances = zip(*layer, strict=True)
    channels = means[0].shape[-1]
    return torch.cat([m.reshape(-1, channels) for m in means]), torch.cat([v.reshape(-1, channels) for v in variances])
