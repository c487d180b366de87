from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from metarun.algos.base.untrained import Untrained
from metarun.core import objectives
from metarun.core.ranges import PositiveInt, UpTo
from metarun.core.tasks import Batch, Prediction
from metarun.ops.gaussian_process import Prior, posterior


class GPOracle(Untrained):
    """Learns nothing: predicts by the exact posterior of the Gaussian process that the functions were drawn from.

    No learner has a higher expected log-likelihood, so the difference shows how much a learner can still gain. If a
    hyper-parameter is drawn for each task, its value is unknown here: the posterior is a mixture over the middles of
    `nodes` equal parts of its range, each weighted by its evidence.

    `log_likelihood` is the joint one of all query points. `log_likelihood@pointwise` is that of each point given only
    the support set: the best value for a method that predicts points independently, such as CNP.

    Args:
        prior: from the source.
        nodes: number of grid points for each hyper-parameter that is drawn from a range, >= 1.
    Reference: Rasmussen, Williams. Gaussian Processes for Machine Learning. MIT Press 2006. Section 2.2.
    """

    kinds = ("gaussian process",)

    def __init__(
        self, prior: Prior, nodes: Annotated[PositiveInt, UpTo("values that each hyper-parameter has")]
    ) -> None:
        super().__init__()
        self.prior, self.nodes = prior, nodes

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return self._solve(batch)[0]

    def predictions(self, batch: Batch) -> Prediction:
        return self._solve(batch)[1]

    def _solve(self, batch: Batch) -> tuple[dict[str, Tensor], Prediction]:
        """Compute scores and predictions in float64, as the matrices may be close to singular."""
        support, query = ([part.double() for part in side] for side in (batch.support, batch.query))
        x = torch.cat([support[0], query[0]], 1)
        y = query[1][..., 0]
        hyper = self.prior.grid(self.nodes, x)[:, None]  # [G, 1, 3]
        known = posterior(self.prior.covariance(hyper, x), support[1][..., 0].expand(len(hyper), -1, -1))
        log_weight = known.log_evidence.log_softmax(0)  # [G, B]
        weight = log_weight.exp()[..., None]
        mean = (weight * known.mean).sum(0)  # [B, M]
        variance = known.covariance.diagonal(dim1=-2, dim2=-1) + (known.mean - mean).square()
        together = (log_weight + known.log_density(y)).logsumexp(0) / y.shape[-1]
        scores = {
            "loss": -together,
            "log_likelihood": together,
            "log_likelihood@pointwise": (log_weight[..., None] + known.log_densities(y)).logsumexp(0).mean(-1),
            "mse": objectives.mse(mean[..., None], query[1]),
        }
        std = (weight * variance).sum(0).sqrt()
        dtype = batch.query.y.dtype
        predicted = Prediction(mean[..., None].to(dtype), std[..., None].to(dtype))
        return {name: score.to(dtype) for name, score in scores.items()}, predicted
