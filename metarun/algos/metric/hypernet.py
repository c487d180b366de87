from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from metarun.algos.base.film import count_channels_before_relus, modulate
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, Support, average_classes
from metarun.core.ranges import NonNegativeInt, PositiveInt
from metarun.ops import context
from metarun.ops.functional import Params, call, within


class HyperNet(MetricLearner):
    """Learns a network that generates the classifier of a task, a row of weights for each class, in one pass.

    A class's weights and bias come from the mean embedding of its support images and that of all classes, so the order
    of the classes does not matter, and any number of classes and shots will do. With `film` another network generates
    a factor and a summand of each channel that enters a ReLU of the backbone, from the mean embedding of all support
    images, which the bare backbone embeds; CNAPs has a network of its own for that.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        width: units of the generator's hidden layers.
        layers: its hidden layers.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
        film: modulate the backbone, too.
    Reference: Ha, Dai, Le. HyperNetworks. ICLR 2017. arXiv:1609.09106; Requeima, Gordon, Bronskill, Nowozin, Turner.
        Fast and Flexible Multi-Task Classification Using Conditional Neural Adaptive Processes. NeurIPS 2019.
        arXiv:1906.07697, sections 2.2 and 3.1. Initial weights: Chang, Flokas, Lipson. Principled Weight
        Initialization for Hypernetworks. ICLR 2020.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        width: PositiveInt,
        layers: PositiveInt,
        engine: Engine,
        task_chunk: NonNegativeInt,
        film: bool = False,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        features = int(backbone.out_features)  # type: ignore[arg-type]
        self.generator = make_generator(features, width, layers)
        self.sites = count_channels_before_relus(backbone, "hypernet algo.film=true") if film else {}
        if film:
            last = nn.Linear(width, 2 * sum(self.sites.values()))
            nn.init.normal_(last.weight, std=0.01 / math.sqrt(width))  # at first it changes next to nothing
            nn.init.zeros_(last.bias)
            self.modulator = nn.Sequential(nn.Linear(features, width), nn.ReLU(), last)

    def input_encoder(self) -> Callable[[Tensor], Tensor] | None:
        return None if self.sites else super().input_encoder()

    def predict(self, params: Params, state: Support, x: Tensor) -> Tensor:
        if not self.sites:
            return super().predict(params, state, x)
        with modulate(self.backbone, self.find_films(params, state.x)):
            return super().predict(params, state, x)

    def find_films(self, params: Params, support_x: Tensor) -> dict[str, Tensor]:
        """Generate a summand and a factor of each channel, [2, C], for each ReLU of the backbone."""
        with context.recording():  # the averages of `bn=running` are those of the modulated backbone
            embedded = call(self.backbone, within(params, "backbone"), support_x)
        flat = call(self.modulator, within(params, "modulator"), embedded.mean(0))
        parts = flat.split([2 * channels for channels in self.sites.values()])
        return {site: part.reshape(2, -1) for site, part in zip(self.sites, parts, strict=True)}

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        means = average_classes(support, classes)  # [N, D]
        center = means.mean(0).expand_as(means)
        told = torch.cat([means - center, center], -1)  # what tells classes apart, and what they share
        generated = call(self.generator, within(params, "generator"), told)  # [N, D + 1]
        logits: Tensor = query @ generated[:, :-1].T + generated[:, -1]
        return logits


def make_generator(features: int, width: int, layers: int) -> nn.Sequential:
    """Make the network [R, 2 D] -> [R, D + 1], whose logits begin with a variance near 1.

    The last two layers have no bias: what is added to the weights of all classes changes no prediction.
    """
    hidden: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(pairwise([2 * features, *[width] * layers])):
        layer = nn.Linear(inputs, outputs, bias=place < layers - 1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        hidden += [layer, nn.ReLU()]
    last = nn.Linear(width, features + 1, bias=False)
    nn.init.normal_(last.weight, std=math.sqrt(1 / (width * features)))
    return nn.Sequential(*hidden, last)
