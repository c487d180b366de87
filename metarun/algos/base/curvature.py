"""How a loss bends at given parameters, as products with vectors."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from metarun.ops.functional import Params, dot, gradient, transpose_jacobian

Product = Callable[[Params], Params]


def hessian(output: Callable[[Params], Tensor], loss: Callable[[Tensor], Tensor], phi: Params) -> Product:
    """v -> H v with H the second derivative of `loss(output)` at `phi`; it may bend downwards."""
    return transpose_jacobian(lambda p: gradient(lambda q: loss(output(q)), p, False), phi)


def gauss_newton(output: Callable[[Params], Tensor], loss: Callable[[Tensor], Tensor], phi: Params) -> Product:
    """v -> J^T L'' J v with J the derivative of `output` at `phi` and L'' the second one of `loss` there.

    The Hessian without what comes of the outputs' own bend; nowhere downwards if `loss` is convex.
    Reference: Schraudolph. Fast Curvature Matrix-Vector Products. Neural Computation 2002.
    """

    def outputs(p: Params) -> Params:
        return {"": output(p)}

    at = {"": output(phi).detach()}
    back = transpose_jacobian(outputs, phi)  # u -> J^T u, which is linear: its own transposed, at any u, is v -> J v
    ahead = transpose_jacobian(lambda u: gradient(lambda p: dot(outputs(p), u), phi, False), at)
    bend = transpose_jacobian(lambda o: gradient(lambda p: loss(p[""]), o, False), at)
    return lambda v: back(bend(ahead(v)))


CURVATURES = {"hessian": hessian, "gauss_newton": gauss_newton}
