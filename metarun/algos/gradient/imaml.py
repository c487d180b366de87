from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base.curvature import CURVATURES, Curvature
from metarun.algos.base.inner_loop import InnerSettings
from metarun.algos.base.own_gradient import OwnGradientLearner, pull
from metarun.algos.base.proximal import check_rate, hold_near
from metarun.algos.gradient.maml import MAML, Adapted
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, check_choice
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params, call, dot, gradient, within


class IMAML(OwnGradientLearner, MAML):
    """MAML with an inner loop that stays near theta, and a meta-gradient that depends only on its end, not on its path.

    phi minimises the support loss plus lam / 2 times the squared distance to theta. The derivative of this minimum by
    theta follows from the curvature H of the loss at phi. So memory does not grow with inner steps: the meta-gradient
    solves a linear system with the matrix I + H / lam by conjugate gradient. With the Hessian, this matrix is positive
    definite only if lam exceeds the loss's largest negative curvature; otherwise phi is no minimum, and the solution
    is far from the gradient along the path. `gauss_newton` has no negative curvature, so that every lam works; it
    equals the Hessian if the network is linear in its weights near phi. The authors' code uses damping instead: it
    solves 2 I + H / (lam + 10), which is close to first-order MAML. It pulls towards theta once, after the inner loop,
    and not at all in tests; here every inner step pulls, in training and in tests.

    Args: as for MAML, but
        inner_lr: below 2 / lam, or else gradient descent diverges.
        lam: strength of the pull towards theta (lambda in the paper), > 0.
        cg_steps: iterations of conjugate gradient, >= 1; more than the number of weights are useless.
        curvature: H of the support loss, `hessian` (the paper's) or `gauss_newton`.
        cg_damping: added to lam only in the linear system, >= 0; large values approach first-order MAML.
        engine: `vectorized`; learn2learn has no iMAML.
    Reference: Rajeswaran, Finn, Kakade, Levine. Meta-Learning with Implicit Gradients. NeurIPS 2019.
        arXiv:1909.04630.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        *,
        lam: PositiveFloat,
        cg_steps: PositiveInt,
        curvature: Curvature = "hessian",
        cg_damping: NonNegativeFloat = 0.0,
        report_steps: Sequence[NonNegativeInt],
        **inner: Unpack[InnerSettings],
    ) -> None:
        super().__init__(backbone, outputs, objective, report_steps=report_steps, first_order=True, **inner)
        check_rate(self.inner, lam)
        check_choice("algo.curvature", curvature, Curvature)
        self.lam, self.cg_steps, self.curvature, self.cg_damping = lam, cg_steps, curvature, cg_damping

    def select_adapted(self, net: Params) -> Params:
        return {name: value.detach() for name, value in net.items()}

    def support_loss(self, net: Params, support: Examples) -> Callable[[Params], Tensor]:
        return hold_near(super().support_loss(net, support), net, self.lam)

    def extra_scores(self, params: Params, state: Adapted, query: Examples) -> dict[str, Tensor]:
        if not self.training:
            return super().extra_scores(params, state, query)
        (x, y), net, strength = state.support, within(params, "net"), self.lam + self.cg_damping

        def query_loss(phi: Params) -> Tensor:
            return self.objective(self.predict(params, state._replace(phi=phi), query.x), query.y)["loss"]

        def output(phi: Params) -> Tensor:
            found: Tensor = call(self.net, net | phi, x)
            return found

        curvature = CURVATURES[self.curvature](output, lambda out: self.objective(out, y)["loss"], state.phi)

        def system(v: Params) -> Params:  # I + H / (lam + damping)
            bend = curvature(v)
            return {name: value + bend[name] / strength for name, value in v.items()}

        direction = solve_by_conjugate_gradient(
            system, gradient(query_loss, state.phi, first_order=True), self.cg_steps
        )
        return {"pull": pull(net, direction)}


def solve_by_conjugate_gradient(matrix: Callable[[Params], Params], b: Params, steps: int) -> Params:
    """Solve `matrix(x)` = b for x by so many iterations from 0, for a symmetric positive definite matrix.

    Directions of negative curvature, which a network's Hessian may have, are not followed.
    """
    x = {name: torch.zeros_like(value) for name, value in b.items()}
    residual, direction, size = b, b, dot(b, b)
    for _ in range(steps):
        image = matrix(direction)
        bend = dot(direction, image)
        step = torch.where(bend > 0, size / bend, 0.0)
        x = _add(x, step, direction)
        residual = _add(residual, -step, image)
        before, size = size, dot(residual, residual)
        direction = _add(residual, torch.where(before > 0, size / before, 0.0), direction)
    return x


def _add(one: Params, factor: Tensor, other: Params) -> Params:
    return {name: value + factor * other[name] for name, value in one.items()}
