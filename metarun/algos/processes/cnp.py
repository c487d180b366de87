from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from metarun.algos.base.gaussian import bound_gaussian
from metarun.algos.base.learner import Learner
from metarun.core import objectives
from metarun.core.ranges import PositiveFloat, PositiveInt
from metarun.core.tasks import Batch, Examples, Metrics, Prediction


class CNP(Learner):
    """Learns to predict a function's values, with their uncertainty, from the mean of its support points' encodings.

    Training tasks should have support sets of many sizes. Loss and scores count only the query points; the paper counts
    the support points too. The method has its own networks and uses no backbone.

    Shapes: support.x [B, S, D_in], support.y [B, S, D_out]; predicts a Gaussian of [B, M, D_out].
    Args:
        input_shape, outputs: D_in and D_out, from the source.
        width: units of every hidden layer, and size of an encoding.
        layers: hidden layers of the encoder, and of the decoder.
        min_std: least standard deviation of a prediction, in 0..1; it keeps the density of smooth data bounded.
    Reference: Garnelo et al. Conditional Neural Processes. ICML 2018. arXiv:1807.01613.
    """

    kinds = ("regression",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        width: PositiveInt,
        layers: PositiveInt,
        min_std: PositiveFloat,
    ) -> None:
        super().__init__()
        inputs = math.prod(input_shape)
        self.encoder = make_mlp(inputs + outputs, width, layers, width)
        self.decoder = Decoder(inputs + width, width, layers, outputs, min_std)

    def predict(self, support: Examples, x: Tensor) -> Distribution:
        """Predict the values at x [B, M, D_in], independent of each other given the support set."""
        encoded = self.encoder(torch.cat(support, -1)).mean(1, keepdim=True)  # [B, 1, D]
        predicted: Distribution = self.decoder(x, encoded.expand(-1, x.shape[1], -1))
        return predicted

    def meta_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        scores = self._scores(batch)
        return scores["loss"].mean(), {name: score.detach().mean() for name, score in scores.items()}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            return self._scores(batch)

    def predictions(self, batch: Batch) -> Prediction:
        with torch.no_grad():
            predicted = self.predict(batch.support, batch.query.x)
        return Prediction(predicted.mean, predicted.stddev)

    def _scores(self, batch: Batch) -> dict[str, Tensor]:
        scores = objectives.gaussian_nll(self.predict(batch.support, batch.query.x), batch.query.y)
        return scores | {"log_likelihood@pointwise": scores["log_likelihood"]}  # points are predicted independently


class Decoder(nn.Module):
    """Predicts a Gaussian at each query point, from its input and features of its function there."""

    def __init__(self, inputs: int, width: int, layers: int, outputs: int, min_std: float) -> None:
        super().__init__()
        self.network = make_mlp(inputs, width, layers, 2 * outputs)
        self.min_std = min_std

    def forward(self, *inputs: Tensor) -> Distribution:
        return bound_gaussian(self.network(torch.cat(inputs, -1)), self.min_std)


def make_mlp(inputs: int, width: int, layers: int, outputs: int) -> nn.Sequential:
    """Make a network of `layers` hidden layers with ReLU and a linear layer, which act on the last dimension.

    Weights start as in the authors' code (Glorot 2010, biases of 0). With torch's smaller initial weights, the encoding
    of a support set nearly vanishes, and little is learned in the first thousand steps.
    """
    sizes = [inputs, *[width] * layers]
    hidden = [module for n, m in pairwise(sizes) for module in (_make_linear(n, m), nn.ReLU())]
    return nn.Sequential(*hidden, _make_linear(sizes[-1], outputs))


def _make_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
