from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from metarun.ops.functional import Params

AIM_SHARE = 0.1
MIN_AIM = 1e-10


class MetaOptNet(MetricLearner):
    """Learns an embedding in which a linear multi-class support vector machine, fit to a task's support set, does well.

    The machine's dual is a quadratic programme, which is solved to convergence for each task; the gradient comes from
    its optimality conditions. The paper also regularises by label smoothing, DropBlock and augmentation. Label
    smoothing is missing here; the others are settings of the backbone and the data.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        penalty: cost of a support image on the wrong side of the margin, > 0 (C in the paper; its code has 0.1).
        damping: added to the diagonal of the support set's Gram matrix, > 0 (1 in the paper's code).
        iterations: iterations of the interior point method; 20 reach 1e-9.
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
        dual = solve_crammer_singer(gram.double(), classes.double(), self.penalty, self.iterations).to(support.dtype)
        return params["log_scale"].exp() * query @ (support.T @ dual)  # w_k = sum_n alpha_nk x_n


def solve_crammer_singer(gram: Tensor, classes: Tensor, penalty: float, iterations: int) -> Tensor:
    """Find the alpha [S, N] that minimises tr(alpha' gram alpha) / 2 - sum(alpha * classes), differentiable in `gram`.

    Its rows sum to 0, and alpha <= penalty * classes (Crammer, Singer. On the Algorithmic Implementation of
    Multiclass Kernel-based Vector Machines. JMLR 2001). So each row of slack = penalty * classes - alpha lies in a
    simplex. A primal-dual interior point method starts from the middle of the simplices. Each of its linear systems
    splits into one of size S for each class, and one of size S that couples them.

    Args:
        gram: positive definite [S, S], float64.
        classes: one-hot [S, N].
    """
    with torch.no_grad():
        slack = torch.full_like(classes, penalty / classes.shape[1])
        price, shift = torch.ones_like(slack), torch.zeros_like(slack[:, :1])  # multipliers of slack >= 0, of the sums
        for _ in range(iterations):
            aim = (AIM_SHARE * (slack * price).mean()).clamp_min(MIN_AIM)
            push = aim / slack - (_compute_gradient(gram, classes, penalty, slack) + shift)
            step, shift_step = _solve(gram, price / slack, push)
            price_step = (aim - price * step) / slack - price
            length = torch.minimum(_limit_step(slack, step), _limit_step(price, price_step))
            slack, price = slack + length * step, price + length * price_step
            shift = shift + length * shift_step
    # A Newton step from the solution is zero, and its derivative is that of the solution.
    residual = _compute_gradient(gram, classes, penalty, slack) + shift - price
    step, _ = _solve(gram.detach(), price / slack, -residual)
    return penalty * classes - (slack + step)


def _compute_gradient(gram: Tensor, classes: Tensor, penalty: float, slack: Tensor) -> Tensor:
    """Compute the gradient of the objective by the slack."""
    return classes - gram @ (penalty * classes - slack)


def _solve(gram: Tensor, diagonal: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Solve (gram + diag(diagonal_k)) x_k + y = right_k for x [S, N], whose rows sum to 0, and y [S, 1].

    They are infinite or NaN if a matrix is singular. Raising an error would make the host wait for a GPU.
    """
    each = gram + torch.diag_embed(diagonal.T)  # [N, S, S]
    inverse = torch.linalg.inv_ex(each).inverse
    alone = (inverse @ right.T[:, :, None])[:, :, 0].T  # [S, N]
    shift = torch.linalg.solve_ex(inverse.sum(0), alone.sum(1, keepdim=True)).result
    return alone - (inverse @ shift)[:, :, 0].T, shift


def _limit_step(value: Tensor, step: Tensor) -> Tensor:
    """Return the largest fraction of `step`, at most 1, that leaves at least 1 % of each positive value."""
    return (0.99 / (-step / value).clamp_min(0.99)).amin()
