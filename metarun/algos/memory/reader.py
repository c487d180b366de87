from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.gaussian import bound_gaussian
from metarun.algos.base.metric import embed_together
from metarun.core import objectives
from metarun.core.tasks import Batch, Examples, Prediction
from metarun.ops.functional import Params, one_hot, within


class Labelled(NamedTuple):
    """A task's state: the support inputs, and their targets [S, T]: one-hot labels, or a function's values."""

    x: Tensor
    targets: Tensor


class SupportReader(EpisodicLearner):
    """A method whose network reads a labelled support set and then predicts the queries, without an inner loop.

    Support and query inputs are embedded in one pass. A method writes `read`. Of functions, the network predicts a
    Gaussian at each query point, and the loss is its negative log-likelihood.

    Args:
        backbone: from inputs to embeddings [R, D].
        outputs: classes of a task, or D_out of a function.
        n_way: classes of a task; 0 if tasks are functions.
        min_std: least standard deviation of a Gaussian, in 0..1.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    """

    kinds = ("classification", "regression")

    def __init__(
        self, backbone: nn.Module, outputs: int, n_way: int, min_std: float, engine: str, task_chunk: int
    ) -> None:
        super().__init__(engine, task_chunk, objectives.classification if n_way else self._score_gaussian)
        self.backbone, self.min_std = backbone, min_std
        self.features, self.targets = int(backbone.out_features), outputs  # type: ignore[arg-type]
        self.predicted = outputs if n_way else 2 * outputs  # numbers of a prediction

    @abstractmethod
    def read(self, params: Params, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """Predict [M, P] for embedded queries [M, D], from the embedded support set [S, D] and its targets [S, T].

        P is N logits, or a mean and a number for the standard deviation of each of D_out values.
        """

    def adapt(self, params: Params, support: Examples, n_way: int) -> Labelled:
        return Labelled(support.x, one_hot(support.y, n_way, support.x.dtype) if n_way else support.y)

    def predict(self, params: Params, state: Labelled, x: Tensor) -> Tensor:
        support, query = embed_together(self.backbone, within(params, "backbone"), state.x, x)
        return self.read(params, support, state.targets, query)

    def draw_order(self, support: Tensor) -> Tensor:
        """Draw an order [S] of the support set: anew for each training task, always the same one in tests."""
        rows = support.shape[0]
        if self.training:
            return torch.rand(rows, device=support.device).argsort()
        # A hash of the positions; numbers that torch drew would differ from task to task under vmap.
        return (torch.arange(rows, device=support.device) * 2654435761 % 2**32).argsort()

    def predictions(self, batch: Batch) -> Prediction | None:
        found = super().predictions(batch)
        if found is None:
            return None
        gaussian = bound_gaussian(found.mean, self.min_std)
        return Prediction(gaussian.mean, gaussian.stddev)

    def _score_gaussian(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        return objectives.gaussian_nll(bound_gaussian(output, self.min_std), y)


def label_tokens(support: Tensor, targets: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Join embeddings with targets: [S, D + T + 1] and [M, D + T + 1].

    A query's targets are zeros; the last number is 1 for a query, so that zeros are not taken for values.
    """
    known = torch.cat([support, targets, torch.zeros_like(support[:, :1])], -1)
    blank = torch.zeros_like(targets[:1]).expand(len(query), -1)
    return known, torch.cat([query, blank, torch.ones_like(query[:, :1])], -1)
