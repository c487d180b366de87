from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.core.episodes import Floats, draw_bits, scale_to_unit
from metarun.core.ranges import PositiveFloat, PositiveInt
from metarun.core.tasks import Batch, EpisodePlan, Examples, SourceInfo
from metarun.data.device import to_device
from metarun.data.functions import PointTasks, to_normal


class Quadratics(PointTasks):
    """Problems for optimizers: find theta with the least |W theta - y|^2. W [D, D] and y [D] are normal.

    As a task, the rows of W are inputs and the numbers of y their targets. Support and query set are the same, for the
    whole problem is known: `loss` is the sum over the rows, not their mean.

    Args:
        plan, device: from the runner.
        dims: D.
        scale: standard deviation of the numbers in W; those in y have 1.
    Reference: Andrychowicz et al. Learning to Learn by Gradient Descent by Gradient Descent. NeurIPS 2016.
        arXiv:1606.04474, section 3.1.
    """

    kinds = ("optimisation",)

    def __init__(self, plan: EpisodePlan, device: torch.device, dims: PositiveInt, scale: PositiveFloat) -> None:
        super().__init__(plan, device)
        self.dims, self.scale = dims, scale
        facts = {"family": type(self).__name__, "dims": dims, "scale": scale}
        self.info = SourceInfo(
            input_shape=(dims,),
            n_way=0,
            outputs=1,
            objective=sum_squares,
            split_sha256=hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest(),
            facts=facts,
        )

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        drawn = to_normal(self._draw_numbers(split, indices)).reshape(len(indices), self.dims, self.dims + 1)
        both = to_device(drawn, self.device, torch.get_default_dtype())
        examples = Examples(self.scale * both[..., :-1], both[..., -1:])
        return Batch(examples, examples, 0)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return hashlib.sha256(self._draw_numbers(split, np.arange(n_tasks)).tobytes()).hexdigest()

    def _draw_numbers(self, split: str, indices: NDArray[np.int64]) -> Floats:
        return scale_to_unit(draw_bits(self.seed(split), split, indices, self.dims * (self.dims + 1)))


def sum_squares(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the sum of squared errors of outputs [D, 1] for y [D, 1]."""
    return {"loss": (output - y).square().sum()}
