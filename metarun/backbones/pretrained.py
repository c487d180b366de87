"""torchvision's classifiers without their last layer, and the transforms that their trained weights expect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from metarun.core.errors import suggest
from metarun.ops import context

TRAINING_HEADS = ("aux1", "aux2", "AuxLogits")
"""Extra classifiers of GoogLeNet and Inception that only training uses."""

OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])")
"""Names of layers in DenseNet's published files; torchvision has renamed them since."""


def classifier(name: str, weights: str | None) -> tuple[nn.Module, Any]:
    """Return the model without its last layer, and the transforms that its weights expect, or None without weights.

    Raises: ValueError if there is no such model or no such weights.
    """
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"backbone.name={name} is no classifier of torchvision{suggest(name, known)}")
    choices = models.get_model_weights(name)
    trained = choices.__members__.get(weights or "")
    sizes = {"image_size": trained.meta["min_size"][0]} if trained and name.startswith("vit_") else {}
    net = models.get_model(name, **sizes)  # a ViT has one weight for each patch, so it depends on the image size
    head = _find_last(net, nn.Linear) or _find_last(net, nn.Conv2d)  # SqueezeNet's is a 1x1 convolution
    parent, _, last = head.rpartition(".")
    setattr(net.get_submodule(parent), last, nn.Identity())
    for part in TRAINING_HEADS:
        if hasattr(net, part):
            setattr(net, part, None)
            net.aux_logits = False
    if weights is None:
        return net, None
    if not context.now.restoring:
        load_weights(net, _read_state(weights, name, choices.__members__), (head, *TRAINING_HEADS), weights)
    if hasattr(net, "transform_input"):
        net.transform_input = True  # as torchvision does with its weights
    return net, (trained or choices.DEFAULT).transforms()


def _find_last(net: nn.Module, kind: type[nn.Module]) -> str:
    """Return the path of the last layer of a kind in the network, or an empty one."""
    return next((path for path, module in reversed(list(net.named_modules())) if isinstance(module, kind)), "")


def _read_state(weights: str, name: str, choices: Mapping[str, Any]) -> dict[str, Tensor]:
    if weights in choices:
        url, folder = choices[weights].url, Path(torch.hub.get_dir()) / "checkpoints"
        try:
            state: dict[str, Tensor] = choices[weights].get_state_dict(check_hash=True, weights_only=True)
            return state
        except (OSError, RuntimeError, UnpicklingError) as error:
            raise ValueError(
                f"backbone.weights={weights} of {name} cannot be had ({one_line(error)}): put {url} into {folder}, "
                "or set backbone.weights=FILE, or null to begin at random"
            ) from error
    file = Path(weights).expanduser()
    if not file.is_file():
        raise ValueError(f"backbone.weights={weights} is neither a file nor one of {name}'s: {', '.join(choices)}")
    return read_state_file(file, weights)


def read_state_file(file: Path, weights: str) -> dict[str, Tensor]:
    """Read a state_dict of torch. Raises: ValueError, which calls it `weights`, if it cannot be read."""
    try:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise ValueError(f"backbone.weights={weights} cannot be read: {one_line(error)}") from error
    return state


def load_weights(net: nn.Module, state: Any, aside: tuple[str, ...], weights: str) -> None:
    """Load `state` into `net`. Only keys that begin with a name of `aside` may be left over.

    Raises: ValueError if it does not fit.
    """
    try:
        if any(map(OLD_DENSENET.search, state)):  # only then: a new dict loses the versions that a state_dict carries
            state = {OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
        missing, left = net.load_state_dict(state, strict=False)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"backbone.weights={weights} are not of this network: {one_line(error)}") from error
    left = [key for key in left if not key.startswith(aside)]
    if missing or left:
        which = f"{missing[0]} is missing" if missing else f"it has no {left[0]}"
        raise ValueError(f"backbone.weights={weights} are not of this network: {which}")


def one_line(error: BaseException) -> str:
    """Return the text of an error as one line, shortened if it is long."""
    text = " ".join(str(error).split())
    return text if len(text) < 200 else f"{text[:200]} ..."
