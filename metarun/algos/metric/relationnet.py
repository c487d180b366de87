from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.algos.base.network import with_support
from metarun.core.ranges import NonNegativeInt, PositiveInt, check_choice
from metarun.ops.convolution import Conv2d
from metarun.ops.functional import Params, call, one_hot, within
from metarun.ops.norm import batch_norm, needs_bias
from metarun.ops.pooling import MaxPool2d

Loss = Literal["mse", "cross_entropy"]


class RelationNet(MetricLearner):
    """Learns an embedding and the comparison itself: a small network scores a query's map beside a class's map.

    A class's map is the sum of the maps of its support images. The paper regresses the sigmoid of the scores onto 1 for
    the query's class and 0 for the others; `loss=cross_entropy` treats the scores as logits instead, as later work
    does. `bn=support` normalises the relation module by the support images, each paired with each class.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts scores [M, N] before the sigmoid.
    Args:
        backbone: has a `feature_map` from inputs to maps [R, c, h, w] of `map_shape` c, h, w; without one, its
            embedding counts as a map of one pixel. The paper's backbone halves a 28x28 image twice.
        bn: which statistics normalise the relation module, see metarun/ops/norm.py.
        hidden: filters of the relation module's two convolutions.
        units: hidden units of its fully connected layer.
        loss: `mse`, the paper's, or `cross_entropy`.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Sung et al. Learning to Compare: Relation Network for Few-Shot Learning. CVPR 2018. arXiv:1711.06025,
        equations 1 and 2, figure 2.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        bn: str,
        hidden: PositiveInt,
        units: PositiveInt,
        loss: Loss,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        maps = FeatureMap(backbone)
        super().__init__(maps, engine, task_chunk)
        check_choice("algo.loss", loss, Loss)
        self.loss = loss
        self.relation = make_relation_module(maps.shape, bn, hidden, units)

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        class_maps = torch.einsum("sn,schw->nchw", classes, support)
        pairs, seen = (_pair_maps(class_maps, maps) for maps in (query, support))
        relation = partial(call, self.relation, within(params, "relation"))
        return with_support(self.relation, relation, seen, pairs).reshape(query.shape[0], -1)  # [M, N], equation 1

    def score(self, params: Params, state: object, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        if self.loss == "mse":
            scores["loss"] = F.mse_loss(output.sigmoid(), one_hot(y, output.shape[-1], output.dtype))  # equation 2
        return scores


class FeatureMap(nn.Module):
    """A backbone's last feature map [R, c, h, w], of `shape` c, h, w."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        one_pixel = (int(backbone.out_features), 1, 1)  # type: ignore[arg-type]
        self.shape: tuple[int, int, int] = getattr(backbone, "map_shape", one_pixel)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = getattr(self.backbone, "feature_map", self.backbone)(x)
        return out.reshape(-1, *self.shape)


def make_relation_module(map_shape: tuple[int, int, int], bn: str, hidden: int, units: int) -> nn.Module:
    """Make the module from two stacked maps [R, 2c, h, w] to a score [R, 1]; it pools maps larger than a pixel."""
    channels, height, width = map_shape
    layers: list[nn.Module] = []
    for inputs in (2 * channels, hidden):
        layers += [Conv2d(inputs, hidden, 3, padding=1, bias=needs_bias(bn)), batch_norm(hidden, bn), nn.ReLU()]
        if min(height, width) > 1:
            layers.append(MaxPool2d(2))
            height, width = height // 2, width // 2
    layers += [nn.Flatten(), nn.Linear(hidden * height * width, units), nn.ReLU(), nn.Linear(units, 1)]
    return nn.Sequential(*layers)


def _pair_maps(class_maps: Tensor, maps: Tensor) -> Tensor:
    """Stack each of R maps under each of N class maps: [R * N, 2c, h, w]."""
    rows, ways = maps.shape[0], class_maps.shape[0]
    both = [class_maps.expand(rows, -1, -1, -1, -1), maps[:, None].expand(-1, ways, -1, -1, -1)]
    return torch.cat(both, 2).flatten(0, 1)
