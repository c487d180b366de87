"""The curvature of a loss at given parameters, as products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from metarun.ops.functional import Params, dot, gradient, transpose_jacobian

Product = Callable[[Params], Params]
Curvature = Literal["hessian", "gauss_newton"]


def make_hessian_product(output: Callable[[Params], Tensor], loss: Callable[[Tensor], Tensor], phi: Params) -> Product:
    """Return v -> H v with H the second derivative of `loss(output)` at `phi`, which may have negative curvature."""
    return transpose_jacobian(lambda p: gradient(lambda q: loss(output(q)), p, False), phi)


def make_gauss_newton_product(
    output: Callable[[Params], Tensor], loss: Callable[[Tensor], Tensor], phi: Params
) -> Product:
    """Return v -> J^T L'' J v with J the derivative of `output` at `phi` and L'' the second derivative of `loss` there.

    This is the Hessian without the term from the outputs' own curvature. It has no negative curvature if `loss` is
    convex.
    Reference: Schraudolph. Fast Curvature Matrix-Vector Products. Neural Computation 2002.
    """

    def outputs(p: Params) -> Params:
        return {"": output(p)}

    at = {"": output(phi).detach()}
    back = transpose_jacobian(outputs, phi)  # u -> J^T u is linear: its transpose, at any u, is v -> J v
    ahead = transpose_jacobian(lambda u: gradient(lambda p: dot(outputs(p), u), phi, False), at)
    bend = transpose_jacobian(lambda o: gradient(lambda p: loss(p[""]), o, False), at)
    return lambda v: back(bend(ahead(v)))


CURVATURES = {"hessian": make_hessian_product, "gauss_newton": make_gauss_newton_product}
