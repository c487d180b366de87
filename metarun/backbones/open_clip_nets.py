from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metarun.backbones.pretrained import one_line
from metarun.backbones.trained_network import TrainedNetwork, WeightsLook, replace_layers
from metarun.core.errors import suggest
from metarun.core.ranges import FilePath, PositiveInt
from metarun.ops import context
from metarun.ops.freezing import freeze


class OpenClip(TrainedNetwork):
    """The image tower of any of open_clip's pairs, CLIP, SigLIP and others, and with `text` the tower of texts too.

    open_clip is an extra: uv sync --extra open-clip.

    Shapes: x [R, C, H, W] -> features [R, out_features]; `text` is a network from tokens [R, L] to such features.
    Args:
        input_shape, bn, normalisation: see TrainedNetwork.
        name: name of the model, such as ViT-B-32; or a .json file with a model's settings, in open_clip's form.
        weights: null for random weights; a name of the model's weights, such as openai, which open_clip downloads; or a
            file with the state_dict of the pair.
        frozen: learn nothing of the network, neither in the outer nor in an inner loop. It then has no parameters.
        image_size: side in pixels that images are scaled to; null means the size of the model.
        text: keep the tower of texts, by which `zero_shot` embeds the names of classes.
    Raises: ValueError if open_clip is not installed, or there is no such model or no such weights.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        normalisation: tuple[Sequence[float], Sequence[float]] | None,
        name: str = "ViT-B-32",
        weights: FilePath | None = None,
        frozen: bool = False,
        image_size: PositiveInt | None = None,
        text: bool = False,
    ) -> None:
        pair, look = _make_pair(name, weights, image_size, text)
        super().__init__(pair.visual, look, input_shape, bn, normalisation, name, frozen, look.size)
        self.text: TextTower | None = TextTower(pair, bn, frozen) if text else None


class TextTower(nn.Module):
    """From texts to features [R, D]. They are CLIP's tokens [R, L], which may be floats, and are cut to its length."""

    def __init__(self, pair: Any, bn: str, frozen: bool) -> None:
        super().__init__()
        for name in ("visual", "logit_scale", "logit_bias"):
            if hasattr(pair, name):
                delattr(pair, name)
        self.pair, self.length = pair, int(pair.context_length)
        replace_layers(pair, bn, frozen)
        if frozen:
            freeze(pair)

    def forward(self, tokens: Tensor) -> Tensor:
        cut = tokens[:, : self.length].long()
        if tokens.shape[1] > self.length:  # what ends a text is its largest token, and must stay
            ends = torch.where(tokens[:, self.length :].amax(-1) > 0, tokens.amax(-1).long(), cut[:, -1])
            cut = torch.cat([cut[:, :-1], ends[:, None]], -1)
        features: Tensor = self.pair.encode_text(cut)
        return features


def _make_pair(name: str, weights: str | None, image_size: int | None, text: bool) -> tuple[Any, WeightsLook]:
    """Make open_clip's pair of towers, and say what images the one of images expects."""
    try:
        import open_clip
    except ImportError as error:
        raise ValueError("backbone=open_clip needs open_clip: uv sync --extra open-clip") from error
    if name.endswith(".json"):
        if not Path(name).expanduser().is_file():
            raise ValueError(f"backbone.name={name} is no file")
        open_clip.add_model_config(Path(name).expanduser())
        name = Path(name).stem
    if name not in (known := open_clip.list_models()):
        raise ValueError(f"backbone.name={name} is no pair of open_clip{suggest(name, known)}")
    if text and "hf_tokenizer_name" in open_clip.get_model_config(name)["text_cfg"]:
        raise ValueError(f"backbone.text=true: {name} reads other tokens than CLIP's, which names of classes come as")
    asked = None if weights is None or context.now.restoring else weights
    tags = open_clip.list_pretrained_tags_by_model(name)
    if asked is not None and asked not in tags:
        asked = str(Path(asked).expanduser())
        if not Path(asked).is_file():
            raise ValueError(f"backbone.weights={weights} is neither a file nor one of {name}'s: {', '.join(tags)}")
    try:
        pair = open_clip.create_model(name, pretrained=asked, force_image_size=image_size, load_weights=True)
    except Exception as error:  # of whatever library reads or fetches them
        raise ValueError(f"backbone.weights={weights} of {name} cannot be had: {one_line(error)}") from error
    wanted = open_clip.get_model_preprocess_cfg(pair)
    size = pair.visual.image_size
    side = size if isinstance(size, int) else size[0]
    return pair, WeightsLook(wanted["mean"], wanted["std"], side, wanted.get("interpolation", "bicubic"))
