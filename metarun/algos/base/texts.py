"""Embeddings of texts by the tower of texts that a backbone of image and text has."""

from __future__ import annotations

from collections.abc import Callable

import torch
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


def remember_texts(backbone: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return `embed_texts` of the backbone as it is, from [R, L] to [R, D], which embeds no text twice."""
    known: dict[bytes, Tensor] = {}
    params: Params = dict(backbone.named_parameters())

    def embed(tokens: Tensor) -> Tensor:
        names = [row.tobytes() for row in tokens.cpu().numpy()]
        new = {name: place for place, name in enumerate(names) if name not in known}
        if new:
            known.update(zip(new, embed_texts(backbone, params, tokens[list(new.values())]), strict=True))
        return torch.stack([known[name] for name in names])

    return embed
