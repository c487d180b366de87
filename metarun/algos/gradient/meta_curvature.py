from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base import wrappers
from metarun.algos.gradient.maml import MAML, MAMLSettings
from metarun.core.tasks import Objective
from metarun.ops.functional import Params, flatten_name


class MetaCurvature(MAML):
    """MAML that also learns matrices that transform each gradient, one for each axis of a weight.

    A convolution's gradient is multiplied by a matrix over filters, one over input channels and one over positions; a
    linear layer's by one over outputs and one over inputs; a vector's by a factor for each entry. All start as the
    identity, so training starts as MAML.

    Args: as for MAML, but
        engine: `learn2learn` wraps the network in learn2learn's GBML with its MetaCurvatureTransform.
    Reference: Park, Oliva. Meta-Curvature. NeurIPS 2019. arXiv:1902.03356.
    """

    recordable = True
    learn2learn = wrappers.meta_curvature

    def __init__(self, backbone: nn.Module, outputs: int, objective: Objective, **maml: Unpack[MAMLSettings]) -> None:
        super().__init__(backbone, outputs, objective, **maml)
        self.curvature = nn.ParameterDict(
            {
                f"{flatten_name(name)}/{axis}": start
                for name, value in self.net.named_parameters()
                for axis, start in make_identity(value).items()
            }
        )

    def inner_gradient(self, loss: Callable[[Params], Tensor], phi: Params, params: Params, step: int) -> Params:
        grads = super().inner_gradient(loss, phi, params, step)
        return {name: bend_gradient(grad, partial(_get_matrix, params, name)) for name, grad in grads.items()}


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


def _get_matrix(params: Params, name: str, axis: str) -> Tensor:
    return params[f"curvature.{flatten_name(name)}/{axis}"]
