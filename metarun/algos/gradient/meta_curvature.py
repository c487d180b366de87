from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base import wrappers
from metarun.algos.gradient.maml import MAML, MAMLSettings
from metarun.core.ranges import CountsWith, check_choice
from metarun.core.tasks import Objective
from metarun.ops.functional import Params, call, flatten_name, within

Factors = Literal["axes", "kronecker"]

Transform = Callable[[Tensor], nn.Module | None]
"""Makes for a parameter the module that its gradients pass through; None leaves them as they are."""


class MetaCurvature(MAML):
    """MAML that also learns matrices that transform each gradient, one for each axis of a weight.

    A convolution's gradient is multiplied by a matrix over filters, one over input channels and one over positions; a
    linear layer's by one over outputs and one over inputs; a vector's by a factor for each entry. All start as the
    identity, so training starts as MAML.

    With `kronecker` two factors L and R make one positive semi-definite matrix instead: a gradient G becomes
    L'L G R'R, of a linear layer [outputs, inputs], of each filter of a convolution [channels, positions], of a vector
    [n, 1]. So entries of a bias depend on each other, and filters do not.

    With `transform` gradients pass through modules of one's own, which are learned, as in learn2learn's GBML.

    Args: as for MAML, but
        factors: `axes` as in Park 2019, or `kronecker` as in Arnold 2021.
        transform: of a parameter makes the module from its gradient to its update, both of the parameter's shape;
            one of learn2learn's, or a class of one's own with `_partial_`. None takes `factors`.
        engine: `learn2learn` wraps the network in learn2learn's GBML with its MetaCurvatureTransform or
            KroneckerTransform, or with `transform`.
    Reference: Park, Oliva. Meta-Curvature. NeurIPS 2019. arXiv:1902.03356. kronecker: Arnold, Iqbal, Sha. When MAML Can
        Adapt Fast and How to Assist When It Cannot. AISTATS 2021. arXiv:1910.13603, section 4, without its bias.
    """

    recordable = True
    learn2learn = wrappers.meta_curvature

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        factors: Annotated[Factors, CountsWith("transform", (None,))],
        transform: Transform | None = None,
        **maml: Unpack[MAMLSettings],
    ) -> None:
        super().__init__(backbone, outputs, objective, **maml)
        check_choice("algo.factors", factors, Factors)
        self.factors = factors
        make, self.bend = {
            "axes": (make_identity, bend_gradient), "kronecker": (make_factors, bend_by_factors)
        }[factors]  # fmt: skip
        self.own, named = transform is not None, dict(self.net.named_parameters())
        self.curvature = nn.ParameterDict(
            {
                f"{flatten_name(name)}/{axis}": start
                for name, value in (named if transform is None else {}).items()
                for axis, start in make(value).items()
            }
        )
        made = {name: transform and make_transform(transform, name, value) for name, value in named.items()}
        self.transforms = nn.ModuleDict({flatten_name(name): one for name, one in made.items() if one is not None})
        self.recordable = self.recordable and not self.own  # what a module of one's own decides by is not known

    def inner_gradient(self, loss: Callable[[Params], Tensor], phi: Params, params: Params, step: int) -> Params:
        grads = super().inner_gradient(loss, phi, params, step)
        if self.own:
            return {name: self.pass_through(flatten_name(name), grad, params) for name, grad in grads.items()}
        return {name: self.bend(grad, partial(_get_matrix, params, name)) for name, grad in grads.items()}

    def pass_through(self, name: str, grad: Tensor, params: Params) -> Tensor:
        """Return what the module of one's own for the parameter makes of its gradient."""
        if name not in self.transforms:
            return grad
        update: Tensor = call(self.transforms[name], within(params, f"transforms.{name}"), grad)
        return update


def make_transform(transform: Transform, name: str, value: Tensor) -> nn.Module | None:
    """Make the module of one's own for a parameter. Raises: ValueError if it is none, or changes a gradient's shape."""
    made: object = transform
    if callable(transform) and not isinstance(transform, nn.Module):
        try:
            inspect.signature(transform)
        except ValueError as error:  # it has settings that the class does not know
            raise ValueError(f"algo.transform: {error}") from error
        made = transform(value)
    if made is None:
        return None
    kind = f"algo.transform gives {type(made).__name__} for {name}"
    if not isinstance(made, nn.Module):
        raise ValueError(f"{kind}: it must give a torch module that takes a gradient, or None")
    if made is transform:
        raise ValueError(f"{kind}: each parameter wants a module of its own; set algo.transform._partial_=true")
    with torch.no_grad():
        found = made(torch.zeros_like(value))
    if not isinstance(found, Tensor) or found.shape != value.shape:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{kind}, which makes {shape} of a gradient {list(value.shape)}: it must keep the shape")
    return made


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
