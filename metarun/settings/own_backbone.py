"""A backbone of one's own, tried before it is used: whether it returns what it promises, and knows of tasks."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metarun.core.errors import ConfigError

log = logging.getLogger(__name__)


def check_backbone(backbone: nn.Module, input_shape: Sequence[int]) -> None:
    """Raise ConfigError if `backbone`, unless it is metarun's, returns other features than `out_features` says.

    A warning tells of torch's BatchNorm layers in it. Neither the backbone nor the random numbers change.
    """
    name = type(backbone).__name__
    if f"{type(backbone).__module__}.".startswith("metarun."):
        return
    for where, layer in backbone.named_modules():
        if isinstance(layer, _BatchNorm):
            log.warning(
                "%s.%s is torch's %s, which mixes tasks and obeys no bn=; use metarun.BatchNorm(channels, bn)",
                name, where, type(layer).__name__,
            )  # fmt: skip
            break
    size = getattr(backbone, "out_features", None)
    if isinstance(size, int) and (shape := _try(backbone, input_shape)) not in (None, (2, size)):
        raise ConfigError(f"{name} returns {list(shape or ())} for 2 inputs; its out_features={size} says [2, {size}]")


def _try(backbone: nn.Module, input_shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the shape of what it returns for 2 inputs; None if it is called in another way than that."""
    trial = copy.deepcopy(backbone).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            features = trial(torch.zeros(2, *input_shape))
        except Exception:  # whatever somebody's own network raises: the run will tell
            return None
    return tuple(features.shape) if isinstance(features, Tensor) else None


def explain_lack(error: AttributeError, backbone: nn.Module) -> ConfigError | None:
    """Explain that a learner asks the backbone for the attribute that `error` is about; None for another error."""
    if error.obj is not backbone:
        return None
    return ConfigError(
        f"{type(backbone).__name__} has no {error.name}, which this algo asks its backbone for"
        + (": set self.out_features to the length of what it returns" if error.name == "out_features" else "")
    )
