from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, average_classes
from metarun.core.ranges import NonNegativeInt, PositiveInt
from metarun.ops.functional import Params, call, within


class HyperNet(MetricLearner):
    """Learns a network that generates the classifier of a task, a row of weights for each class, in one pass.

    A class's weights and bias come from the mean embedding of its support images and that of all classes, so the order
    of the classes does not matter, and any number of classes and shots will do. It generates the head alone, as the
    classifier of CNAPs; the backbone is not modulated.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        width: units of the generator's hidden layers.
        layers: its hidden layers.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Ha, Dai, Le. HyperNetworks. ICLR 2017. arXiv:1609.09106; Requeima, Gordon, Bronskill, Nowozin, Turner.
        Fast and Flexible Multi-Task Classification Using Conditional Neural Adaptive Processes. NeurIPS 2019.
        arXiv:1906.07697, section 2.2. Initial weights: Chang, Flokas, Lipson. Principled Weight Initialization for
        Hypernetworks. ICLR 2020.
    """

    recordable = True

    def __init__(
        self, backbone: nn.Module, width: PositiveInt, layers: PositiveInt, engine: Engine, task_chunk: NonNegativeInt
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.generator = make_generator(int(backbone.out_features), width, layers)  # type: ignore[arg-type]

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
