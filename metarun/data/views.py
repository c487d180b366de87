"""Support sets with several views of each image: the image itself, and changed copies of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarun.core.episodes import Ints
from metarun.core.tasks import Examples
from metarun.data.augment import Look


def add_views(support: Examples, gather: Callable[[], Tensor], look: Look, seed: int, split: str, at: Ints) -> Examples:
    """Return support sets of B tasks with `look.views` of each image: [B, S * views, ...], in the order of the images.

    Args:
        gather: returns the pixels of the support images, [B, S, C, H, W] uint8.
        seed, split: of the random words that change the copies.
        at: numbers of the tasks, [B].
    """
    copies = look.views - 1
    if not copies:
        return support
    changed, (tasks, images) = look.of_views, support.y.shape
    words = changed.draw_words(seed, f"{split}/views", at, images * copies)
    pixels = gather()[:, :, None].expand(-1, -1, copies, -1, -1, -1)
    others = changed(pixels, words.reshape(tasks, images, copies, -1))  # [B, S, copies, C, H, W]
    x = torch.cat([support.x[:, :, None], others], 2).flatten(1, 2)
    return Examples(x, support.y.repeat_interleave(look.views, 1))
