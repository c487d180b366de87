"""Shift and scale the channels that enter a network's ReLUs (FiLM).

Reference: Perez, Strub, de Vries, Dumoulin, Courville. FiLM: Visual Reasoning with a General Conditioning Layer. AAAI
2018. arXiv:1709.07871.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextmanager
def modulate(network: nn.Module, films: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, what enters the modules of `network` by these names is shifted by film[0] and scaled by 1 + film[1].

    Args:
        films: [1, C] or [2, C] each; zeros change nothing.
    """
    with ExitStack() as held:
        for name, film in films.items():
            hook = network.get_submodule(name).register_forward_pre_hook(partial(_enter, film))
            held.callback(hook.remove)
        yield


def count_channels_before_relus(backbone: nn.Module, algo: str) -> dict[str, int]:
    """Count the channels that enter each ReLU of a backbone whose modules run in the order in which they were built.

    Raises: ValueError if there is no ReLU, in the name of `algo`.
    """
    found, channels = {}, 0
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            channels = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
        elif isinstance(module, nn.ReLU):
            found[name] = channels
    if not found:
        raise ValueError(
            f"algo={algo} needs a backbone with a ReLU to modulate, and {type(backbone).__name__} has none"
        )
    return found


def _enter(film: Tensor, module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    h: Tensor = inputs[0]
    film = film.reshape(-1, h.shape[1], *(1,) * (h.dim() - 2))  # [1 or 2, C, 1, 1]
    return (1 + film[1]) * h + film[0] if len(film) == 2 else h + film[0]
