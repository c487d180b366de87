"""Call a module with given parameters, and arithmetic on named parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metarun.ops import context

Params = dict[str, Tensor]


def call(module: nn.Module, params: Params, *inputs: Tensor) -> Any:
    """`module(*inputs)` with its parameters replaced by `params`; the module itself is left as it was."""
    return torch.func.functional_call(module, params, inputs, tie_weights=False)


def within(params: Params, prefix: str) -> Params:
    """The parameters of the submodule `prefix`, by their names inside it."""
    start = prefix + "."
    return {name[len(start) :]: value for name, value in params.items() if name.startswith(start)}


def gradient(loss: Callable[[Params], Tensor], params: Params, first_order: bool) -> Params:
    """The gradient of `loss` at `params`; with `first_order` nothing differentiates through it.

    Under vmap torch.func computes it, elsewhere plain autograd, which costs less per operation; either works
    inside no_grad and any number of times in a row.
    """
    if context.transformed():
        if not first_order:
            exact: Params = torch.func.grad(loss)(params)
            return exact
        # Detached before, not after: the outer autograd then never builds the graph of this gradient.
        grads = torch.func.grad(loss)({name: value.detach() for name, value in params.items()})
        return {name: grad.detach() for name, grad in grads.items()}
    through = torch.is_grad_enabled() and not first_order
    with torch.enable_grad(), context.differentiated(twice=through):
        at = {n: v if through and v.requires_grad else v.detach().requires_grad_() for n, v in params.items()}
        values = torch.autograd.grad(loss(at), list(at.values()), create_graph=through)
    return dict(zip(at, values, strict=True))


def transposed(function: Callable[[Params], Params], at: Params) -> Callable[[Params], Params]:
    """u -> J^T u with J the derivative of `function` at `at`. It runs once; nothing differentiates through it."""
    at = {name: value.detach() for name, value in at.items()}
    if context.transformed():
        back = torch.func.vjp(function, at)[1]
        return lambda u: back(u)[0]
    with torch.enable_grad(), context.differentiated(twice=True):
        values = function({name: value.requires_grad_() for name, value in at.items()})

    def product(u: Params) -> Params:
        along = [u[name] for name in values]
        found = torch.autograd.grad(list(values.values()), list(at.values()), along, retain_graph=True)
        return dict(zip(at, found, strict=True))

    return product


def one_hot(y: Tensor, n_way: int, dtype: torch.dtype) -> Tensor:
    """[R, n_way], 1 at the class y [R]; unlike torch's, without looking at the numbers."""
    return (y[:, None] == torch.arange(n_way, device=y.device)).to(dtype)


def dot(one: Params, other: Params) -> Tensor:
    """The inner product of two sets of parameters with the same names."""
    return torch.stack([(value * other[name]).sum() for name, value in one.items()]).sum()


def flat(name: str) -> str:
    """A parameter's name without dots, as the name of a parameter that belongs to it."""
    return name.replace(".", "/")
