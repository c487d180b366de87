from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.core.ranges import NonNegativeInt, PositiveFloat
from metarun.ops.functional import Params


class R2D2(MetricLearner):
    """Learns an embedding in which ridge regression from a task's support set onto its classes classifies well.

    The regression has a closed form, and the gradient goes through it. Its penalty and the scale of its outputs are
    learned, as logarithms, so that they stay positive. The paper's common shift of the outputs is left out, because the
    softmax cancels it.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        ridge: penalty on squared weights to start from, > 0 (lambda in the paper).
        scale: factor of the outputs to start from, > 0 (alpha in the paper).
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form solvers.
        ICLR 2019. arXiv:1805.08136, section 3.2.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        ridge: PositiveFloat,
        scale: PositiveFloat,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(ridge)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        weights = solve_ridge_regression(support, classes, params["log_ridge"].exp())
        return params["log_scale"].exp() * query @ weights


def solve_ridge_regression(x: Tensor, y: Tensor, ridge: Tensor) -> Tensor:
    """Find the W [D, N] that minimises |xW - y|^2 + ridge |W|^2, for x [S, D] and y [S, N].

    This solves the smaller of two systems: D x D, or S x S by Woodbury's identity. W is infinite or NaN if the system
    is singular. Raising an error would make the host wait for a GPU.
    """
    rows, features = x.shape
    if rows < features:
        kernel = x @ x.T + ridge * torch.eye(rows, dtype=x.dtype, device=x.device)
        weights: Tensor = x.T @ torch.linalg.solve_ex(kernel, y).result
        return weights
    covariance = x.T @ x + ridge * torch.eye(features, dtype=x.dtype, device=x.device)
    solved: Tensor = torch.linalg.solve_ex(covariance, x.T @ y).result
    return solved
