from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarun.core import objectives
from metarun.core.episodes import draw_bits
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, SourceInfo
from metarun.data.device import to_device
from metarun.data.functions import PointTasks
from metarun.data.open_images import open_images


class Completion(PointTasks):
    """Images as functions from a place to a colour. A task is one image: some pixels are known, others are asked for.

    x [.., 2] is the row and column of the middle of a pixel, each from -1 to 1; y [.., C] are its C channels in 0..1.
    A split uses the images of the source's classes of that split, each image once before any comes again.

    Args:
        plan, device: see PointTasks.
        open_source: from the runner; opens the source that a name of `data=` stands for.
        images: name of the source of the images.
    Raises: ValueError if the source has no images, or an image has fewer pixels than a task has points.
    Reference: Garnelo et al. Conditional Neural Processes. ICML 2018. arXiv:1807.01613, section 4.2.
    """

    def __init__(
        self, plan: EpisodePlan, device: torch.device, open_source: Callable[[str, EpisodePlan], Any], images: str
    ) -> None:
        super().__init__(plan, device)
        whole = EpisodeShape(1, 1, 1)
        once = EpisodePlan(whole, whole, plan.seed, plan.eval_seed)
        self.source = source = open_images(open_source, images, {}, "omniglot", plan=once)
        channels, height, width = source.info.input_shape
        self.places = torch.cartesian_prod(_middles(height), _middles(width)).to(device)  # [H W, 2]
        for split, key in (("train", "data.train"), ("test", "data")):
            points = self.most_shots(split) + self.shape(split).n_query
            if points > height * width:
                raise ValueError(
                    f"{key}.k_shot and {key}.n_query are {points} points together, and an image of {images} has "
                    f"{height * width} pixels; set {key}.n_query={max(height * width - self.most_shots(split), 1)}"
                )
        self.info = SourceInfo(
            input_shape=(2,),
            n_way=0,
            outputs=channels,
            objective=objectives.regression,
            split_sha256=source.info.split_sha256,
            facts={"images": images, "pixels": [height, width], **source.info.facts},
        )

    def batch(self, split: str, indices: NDArray[np.int64]) -> Batch:
        """Return the tasks with the numbers `indices` [B] of a split's stream."""
        values = self.source.gather_plain_images(split, indices).flatten(2).transpose(1, 2)  # [B, H W, C]
        order = to_device(self._draw_pixels(split, indices), self.device)  # [B, P]
        x, y = self.places[order], torch.take_along_dim(values, order[..., None], 1)  # [B, P, 2] and [B, P, C]
        return self.sides(split, int(indices[0]), x, y)

    def fingerprint(self, split: str, n_tasks: int) -> str:
        indices = np.arange(n_tasks)
        values = (self.source.gather_plain_images(split, indices) * 255).round().to(torch.uint8).cpu().numpy()
        return hashlib.sha256(values.tobytes() + self._draw_pixels(split, indices).tobytes()).hexdigest()

    def _draw_pixels(self, split: str, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw the pixels that each task uses, those of the support set first: [B, P]."""
        bits = draw_bits(self.seed(split), f"{split}/pixels", indices, len(self.places))
        return np.argsort(bits, 1, kind="stable")[:, : self.most_shots(split) + self.shape(split).n_query]


def _middles(n: int) -> Tensor:
    """Return the middles of n pixels in a row, from -1 to 1: [n]."""
    return (torch.arange(n) + 0.5) * (2 / n) - 1
