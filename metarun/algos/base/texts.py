"""Embeddings of texts by the tower of texts that a backbone of image and text has."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from metarun.ops.functional import Params, call, within


def find_text_tower(backbone: nn.Module) -> nn.Module:
    """Return the tower of texts of a backbone. Raises: ValueError if it has none."""
    tower = getattr(backbone, "text", None)
    if not isinstance(tower, nn.Module):
        raise ValueError("names of classes need a tower of texts: set backbone=open_clip backbone.text=true")
    return tower


def embed_texts(backbone: nn.Module, params: Params, tokens: Tensor) -> Tensor:
    """Embed texts [R, L] by the backbone's tower: [R, D], of length 1."""
    embedded: Tensor = call(find_text_tower(backbone), within(params, "text"), tokens)
    return F.normalize(embedded, dim=-1)
