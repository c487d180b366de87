from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from metarun.backbones.pretrained import load_weights, one_line, read_state_file
from metarun.backbones.trained_network import TrainedNetwork, WeightsLook
from metarun.core.errors import suggest
from metarun.core.ranges import FilePath, PositiveInt
from metarun.ops import context


class Timm(TrainedNetwork):
    """Any network of timm by its name, without its classifier, with or without trained weights.

    timm is an extra: uv sync --extra timm. Its networks pool their features themselves.

    Shapes: x [R, C, H, W] -> features [R, out_features].
    Args:
        input_shape, bn, normalisation: see TrainedNetwork.
        name: name of the model, such as resnet18 or vit_small_patch14_dinov2.lvd142m; what is behind the point names
            weights.
        weights: null for random weights; DEFAULT for those that timm downloads for the name; or a file with the model's
            state_dict, .safetensors or torch's, which may lack the classifier.
        frozen: learn nothing of the network, neither in the outer nor in an inner loop; with `bn=running` the averages
            stay too. The network then has no parameters.
        image_size: side in pixels that images are scaled to; null means the size of the weights, or no scaling without
            weights.
    Raises: ValueError if timm is not installed, if there is no such model or no such weights, or it does not take these
        images.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        normalisation: tuple[Sequence[float], Sequence[float]] | None,
        name: str = "resnet18",
        weights: FilePath | None = None,
        frozen: bool = False,
        image_size: PositiveInt | None = None,
    ) -> None:
        net, look = _make_net(name, weights)
        super().__init__(net, look, input_shape, bn, normalisation, name, frozen, image_size)


def _make_net(name: str, weights: str | None) -> tuple[nn.Module, WeightsLook | None]:
    """Make timm's network without its classifier, and say what its weights expect; None without weights."""
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError as error:
        raise ValueError("backbone=timm needs timm, which is not installed: uv sync --extra timm") from error
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise ValueError(f"backbone.name={name} is no network of timm{suggest(name, known)}")
    named = weights == "DEFAULT" and not context.now.restoring
    try:
        net: nn.Module = timm.create_model(name, pretrained=named, num_classes=0)
    except Exception as error:  # of whatever library fetches them
        raise ValueError(
            f"backbone.weights=DEFAULT of {name} cannot be had ({one_line(error)}): set backbone.weights=FILE, or null "
            "to begin at random"
        ) from error
    if weights is None:
        return net, None
    if weights != "DEFAULT" and not context.now.restoring:
        load_weights(net, _read_state(weights), _name_classifier(net), weights)
    found: dict[str, Any] = resolve_model_data_config(net)  # type: ignore[no-untyped-call]
    return net, WeightsLook(found["mean"], found["std"], found["input_size"][-1], found["interpolation"])


def _name_classifier(net: Any) -> tuple[str, ...]:
    """Return the names of the classifier's parts in a file of weights."""
    known = net.default_cfg.get("classifier") or ()
    return (known,) if isinstance(known, str) else tuple(known)


def _read_state(weights: str) -> Any:
    file = Path(weights).expanduser()
    if not file.is_file():
        raise ValueError(
            f"backbone.weights={weights} is neither a file nor DEFAULT, which is what timm has for the name"
        )
    if file.suffix != ".safetensors":
        return read_state_file(file, weights)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"backbone.weights={weights} cannot be read: {one_line(error)}") from error
