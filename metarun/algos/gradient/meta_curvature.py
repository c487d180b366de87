from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from metarun.algos.base.inner_optimizer import Rule
from metarun.algos.base.learn2learn import Engine, learn2learn
from metarun.algos.base.network import with_support
from metarun.algos.gradient.maml import MAML
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params, flat


class MetaCurvature(MAML):
    """MAML that learns, beside the initial weights, how to bend each gradient: a matrix for each axis of a weight.

    A convolution's gradient is multiplied by a matrix over filters, one over input channels and one over
    positions, a linear layer's by one over outputs and one over inputs, a vector's by a factor for each entry.
    All start as the identity, where this is MAML.

    Args: as for MAML, but
        engine: `learn2learn` wraps the network in learn2learn's GBML with its MetaCurvatureTransform.
    Reference: Park, Oliva. Meta-Curvature. NeurIPS 2019. arXiv:1902.03356.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        inner_lr: PositiveFloat,
        inner_steps: PositiveInt,
        test_inner_steps: NonNegativeInt,
        report_steps: Sequence[NonNegativeInt],
        first_order: bool,
        engine: Engine,
        task_chunk: NonNegativeInt,
        inner_optimizer: Rule = "sgd",
        inner_clip_norm: PositiveFloat | None = None,
    ) -> None:
        steps, inner = (inner_steps, test_inner_steps, report_steps), (inner_optimizer, inner_clip_norm)
        super().__init__(backbone, outputs, objective, inner_lr, *steps, first_order, engine, task_chunk, *inner)
        self.curvature = nn.ParameterDict(
            {
                f"{flat(name)}/{axis}": start
                for name, value in self.net.named_parameters()
                for axis, start in identity(value).items()
            }
        )

    def inner_gradient(self, loss: Callable[[Params], Tensor], phi: Params, params: Params, step: int) -> Params:
        grads = super().inner_gradient(loss, phi, params, step)
        return {name: bent(grad, partial(_matrix, params, name)) for name, grad in grads.items()}

    def adapt_learn2learn(self, support: Examples, n_way: int) -> Callable[[Tensor], Tensor]:
        names = iter(dict(self.net.named_parameters()))

        def transform(parameter: Tensor) -> nn.Module:  # which learn2learn asks for in the network's order
            made: nn.Module = learn2learn().optim.transforms.MetaCurvatureTransform(parameter)
            name = flat(next(names))
            for axis in dict(made.named_parameters()):
                setattr(made, axis, self.curvature[f"{name}/{axis}"])
            return made

        with torch.enable_grad():
            first_order = self.first_order or not self.training
            wrapped = learn2learn().algorithms.GBML(self.net, transform, lr=self.inner_lr, first_order=first_order)
            task = wrapped.clone()
            for _ in range(self.steps):
                task.adapt(self.objective(task(support.x), support.y)["loss"])
        return partial(with_support, self.net, task, support.x)


def identity(value: Tensor) -> dict[str, Tensor]:
    """What leaves the gradient of a parameter as it is, by learn2learn's names: mc, or mc_in, mc_out and mc_f."""
    if value.dim() == 1:
        return {"mc": torch.ones_like(value)}
    axes = {"mc_in": value.shape[0], "mc_out": value.shape[1]}
    return {
        axis: torch.eye(n) for axis, n in (axes | ({"mc_f": value[0, 0].numel()} if value.dim() > 2 else {})).items()
    }


def bent(grad: Tensor, matrix: Callable[[str], Tensor]) -> Tensor:
    """The gradient of one parameter, times the `matrix` of each axis; `mc_in` is of the first, as in learn2learn."""
    if grad.dim() == 1:
        return matrix("mc") * grad
    if grad.dim() == 2:
        return matrix("mc_in") @ grad @ matrix("mc_out")
    axes = torch.einsum("ao,oif,ib,cf->abc", matrix("mc_in"), grad.flatten(2), matrix("mc_out"), matrix("mc_f"))
    return axes.reshape(grad.shape)


def _matrix(params: Params, name: str, axis: str) -> Tensor:
    return params[f"curvature.{flat(name)}/{axis}"]
