from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base import wrappers
from metarun.algos.gradient.maml import MAML, MAMLSettings
from metarun.core.tasks import Objective
from metarun.ops.functional import Params, flatten_name


class MetaSGD(MAML):
    """MAML that also learns a step size for every single weight, which may reverse the direction of its step.

    Rates may become negative. The paper draws their initial values from a small range; here all start at `inner_lr`,
    as in learn2learn.

    Args: as for MAML, but
        inner_lr: where every learned rate starts.
        engine: `learn2learn` wraps the network in learn2learn's MetaSGD.
    Reference: Li, Zhou, Chen, Li. Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. 2017.
        arXiv:1707.09835.
    """

    recordable = True
    learn2learn = wrappers.meta_sgd

    def __init__(self, backbone: nn.Module, outputs: int, objective: Objective, **maml: Unpack[MAMLSettings]) -> None:
        super().__init__(backbone, outputs, objective, **maml)
        self.rates = nn.ParameterDict(
            {flatten_name(name): torch.full_like(value, self.inner.lr) for name, value in self.net.named_parameters()}
        )

    def rate(self, params: Params, step: int, name: str) -> Tensor | float:
        return params[f"rates.{flatten_name(name)}"]  # alpha
