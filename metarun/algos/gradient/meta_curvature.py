from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base import wrappers
from metarun.algos.gradient.maml import MAML, MAMLSettings
from metarun.core.ranges import check_choice
from metarun.core.tasks import Objective
from metarun.ops.functional import Params, flatten_name

Factors = Literal["axes", "kronecker"]


class MetaCurvature(MAML):
    """MAML that also learns matrices that transform each gradient, one for each axis of a weight.

    A convolution's gradient is multiplied by a matrix over filters, one over input channels and one over positions; a
    linear layer's by one over outputs and one over inputs; a vector's by a factor for each entry. All start as the
    identity, so training starts as MAML.

    With `kronecker` two factors L and R make one positive semi-definite matrix instead: a gradient G becomes
    L'L G R'R, of a linear layer [outputs, inputs], of each filter of a convolution [channels, positions], of a vector
    [n, 1]. So entries of a bias depend on each other, and filters do not.

    Args: as for MAML, but
        factors: `axes` as in Park 2019, or `kronecker` as in Arnold 2021.
        engine: `learn2learn` wraps the network in learn2learn's GBML with its MetaCurvatureTransform or
            KroneckerTransform.
    Reference: Park, Oliva. Meta-Curvature. NeurIPS 2019. arXiv:1902.03356. kronecker: Arnold, Iqbal, Sha. When MAML Can
        Adapt Fast and How to Assist When It Cannot. AISTATS 2021. arXiv:1910.13603, section 4, without its bias.
    """

    recordable = True
    learn2learn = wrappers.meta_curvature

    def __init__(
        self, backbone: nn.Module, outputs: int, objective: Objective, factors: Factors, **maml: Unpack[MAMLSettings]
    ) -> None:
        super().__init__(backbone, outputs, objective, **maml)
        check_choice("algo.factors", factors, Factors)
        self.factors = factors
        make, self.bend = {
            "axes": (make_identity, bend_gradient), "kronecker": (make_factors, bend_by_factors)
        }[factors]  # fmt: skip
        self.curvature = nn.ParameterDict(
            {
                f"{flatten_name(name)}/{axis}": start
                for name, value in self.net.named_parameters()
                for axis, start in make(value).items()
            }
        )

    def inner_gradient(self, loss: Callable[[Params], Tensor], phi: Params, params: Params, step: int) -> Params:
        grads = super().inner_gradient(loss, phi, params, step)
        return {name: self.bend(grad, partial(_get_matrix, params, name)) for name, grad in grads.items()}


def make_identity(value: Tensor) -> dict[str, Tensor]:
    """Make the identity for each axis of a parameter, by learn2learn's names: mc, or mc_in, mc_out and mc_f."""
    if value.dim() == 1:
        return {"mc": torch.ones_like(value)}
    axes = {"mc_in": value.shape[0], "mc_out": value.shape[1]}
    return {
        axis: torch.eye(n) for axis, n in (axes | ({"mc_f": value[0, 0].numel()} if value.dim() > 2 else {})).items()
    }


def bend_gradient(grad: Tensor, matrix: Callable[[str], Tensor]) -> Tensor:
    """Multiply the gradient of a parameter by the `matrix` of each axis; mc_in is for the first, as in learn2learn."""
    if grad.dim() == 1:
        return matrix("mc") * grad
    if grad.dim() == 2:
        return matrix("mc_in") @ grad @ matrix("mc_out")
    axes = torch.einsum("ao,oif,ib,cf->abc", matrix("mc_in"), grad.flatten(2), matrix("mc_out"), matrix("mc_f"))
    return axes.reshape(grad.shape)


def make_factors(value: Tensor) -> dict[str, Tensor]:
    """Make the identity for the two factors of a parameter, by learn2learn's names."""
    rows, columns = _as_matrices(value).shape[1:]
    return {"left": torch.eye(rows), "right": torch.eye(columns)}


def bend_by_factors(grad: Tensor, matrix: Callable[[str], Tensor]) -> Tensor:
    """Multiply the gradient of a parameter by the squares of the two factors."""
    left, right = matrix("left"), matrix("right")
    return (left.T @ left @ _as_matrices(grad) @ right.T @ right).reshape(grad.shape)


def _as_matrices(value: Tensor) -> Tensor:
    """Return a parameter as matrices: [1, n, 1] of a vector, [1, n, m], or [filters, channels, positions]."""
    if value.dim() < 3:
        return value.reshape(1, len(value), -1)
    return value.flatten(2)


def _get_matrix(params: Params, name: str, axis: str) -> Tensor:
    return params[f"curvature.{flatten_name(name)}/{axis}"]
