"""Call a module with given parameters, and arithmetic on named parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metarun import norm

Params = dict[str, Tensor]


def call(module: nn.Module, params: Params, x: Tensor) -> Tensor:
    """`module(x)` with its parameters replaced by `params`; the module itself is left as it was."""
    out: Tensor = torch.func.functional_call(module, params, (x,), tie_weights=False)
    return out


def within(params: Params, prefix: str) -> Params:
    """The parameters of the submodule `prefix`, by their names inside it."""
    start = prefix + "."
    return {name[len(start) :]: value for name, value in params.items() if name.startswith(start)}


def gradient(loss: Callable[[Params], Tensor], params: Params, first_order: bool) -> Params:
    """The gradient of `loss` at `params`; with `first_order` nothing differentiates through it.

    Under vmap torch.func computes it, elsewhere plain autograd, which costs less per operation; either works
    inside no_grad and any number of times in a row.
    """
    if norm.transformed():
        if not first_order:
            exact: Params = torch.func.grad(loss)(params)
            return exact
        # Detached before, not after: the outer autograd then never builds the graph of this gradient.
        grads = torch.func.grad(loss)({name: value.detach() for name, value in params.items()})
        return {name: grad.detach() for name, grad in grads.items()}
    through = torch.is_grad_enabled() and not first_order
    with torch.enable_grad():
        at = params if through else {name: value.detach().requires_grad_() for name, value in params.items()}
        values = torch.autograd.grad(loss(at), list(at.values()), create_graph=through)
    return dict(zip(at, values, strict=True))
