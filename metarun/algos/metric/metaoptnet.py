from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from metarun.ops.functional import Params

SHRINK = 0.1
SMALLEST = 1e-10


class MetaOptNet(MetricLearner):
    """Learns an embedding in which a linear multi-class support vector machine, fit to a task's support set, does well.

    The machine's dual is a quadratic programme, solved to the end for each task; the gradient is that of its
    optimality conditions. The paper regularises by label smoothing, dropout of blocks and augmentation as well;
    the first is not here, the others are the backbone's and the data's.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        penalty: of a support image on the wrong side of the margin, > 0 (C in the paper; its code has 0.1).
        damping: added to the diagonal of the support set's Gram matrix, > 0 (1 in the paper's code).
        iterations: of the interior point method; 20 reach 1e-9.
        scale: factor of the outputs to start from, > 0; learned, as a logarithm (gamma in the paper).
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Lee, Maji, Ravichandran, Soatto. Meta-Learning with Differentiable Convex Optimization. CVPR 2019.
        arXiv:1904.03758, section 3.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        penalty: PositiveFloat,
        damping: PositiveFloat,
        iterations: PositiveInt,
        scale: PositiveFloat,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.penalty, self.damping, self.iterations = penalty, damping, iterations
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        gram = support @ support.T + self.damping * torch.eye(len(support), dtype=support.dtype, device=support.device)
        dual = crammer_singer(gram.double(), classes.double(), self.penalty, self.iterations).to(support.dtype)
        return params["log_scale"].exp() * query @ (support.T @ dual)  # w_k = sum_n alpha_nk x_n


def crammer_singer(gram: Tensor, classes: Tensor, penalty: float, iterations: int) -> Tensor:
    """The alpha [S, N] that minimises tr(alpha' gram alpha) / 2 - sum(alpha * classes), differentiable in `gram`.

    Its rows sum to 0, and alpha <= penalty * classes (Crammer, Singer. On the Algorithmic Implementation of
    Multiclass Kernel-based Vector Machines. JMLR 2001). So each row of slack = penalty * classes - alpha lies in a
    simplex. A primal-dual interior point method starts from the middle of the simplices; each of its linear systems
    falls apart into N of size S, one a class, and one of size S that joins them.

    Args:
        gram: positive definite [S, S], float64.
        classes: one-hot [S, N].
    """
    with torch.no_grad():
        slack = torch.full_like(classes, penalty / classes.shape[1])
        price, shift = torch.ones_like(slack), torch.zeros_like(slack[:, :1])  # multipliers of slack >= 0, of the sums
        for _ in range(iterations):
            aim = (SHRINK * (slack * price).mean()).clamp_min(SMALLEST)
            push = aim / slack - (_gradient(gram, classes, penalty, slack) + shift)
            step, shift_step = _solve(gram, price / slack, push)
            price_step = (aim - price * step) / slack - price
            length = torch.minimum(_room(slack, step), _room(price, price_step))
            slack, price = slack + length * step, price + length * price_step
            shift = shift + length * shift_step
    # A Newton step from the solution goes nowhere, and has the solution's derivative.
    residual = _gradient(gram, classes, penalty, slack) + shift - price
    step, _ = _solve(gram.detach(), price / slack, -residual)
    return penalty * classes - (slack + step)


def _gradient(gram: Tensor, classes: Tensor, penalty: float, slack: Tensor) -> Tensor:
    """Of the objective with respect to the slack."""
    return classes - gram @ (penalty * classes - slack)


def _solve(gram: Tensor, diagonal: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The x [S, N] with rows of sum 0 and the y [S, 1] for which (gram + diag(diagonal_k)) x_k + y = right_k.

    Where a matrix is singular, they are infinite or NaN; to raise an error, the host would have to wait for a GPU.
    """
    each = gram + torch.diag_embed(diagonal.T)  # [N, S, S]
    inverse = torch.linalg.inv_ex(each).inverse
    alone = (inverse @ right.T[:, :, None])[:, :, 0].T  # [S, N]
    shift = torch.linalg.solve_ex(inverse.sum(0), alone.sum(1, keepdim=True)).result
    return alone - (inverse @ shift)[:, :, 0].T, shift


def _room(value: Tensor, step: Tensor) -> Tensor:
    """The largest part of `step`, at most all of it, that leaves 1 % of each positive value."""
    return (0.99 / (-step / value).clamp_min(0.99)).amin()
