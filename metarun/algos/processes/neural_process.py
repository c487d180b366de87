from __future__ import annotations

import math
from typing import TypedDict, Unpack

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from metarun.algos.base.gaussian import make_gaussian
from metarun.algos.base.learner import Learner
from metarun.algos.processes.cnp import Decoder, make_mlp
from metarun.core import objectives
from metarun.core.ranges import PositiveFloat, PositiveInt
from metarun.core.tasks import Batch, Examples, Metrics, Prediction


class LatentSettings(TypedDict):
    """Settings of neural processes with a latent vector z.

    Keys:
        width, layers, min_std: see CNP.
        latent: size of z; a large z is mostly noise at first, and slows learning down.
        test_samples: draws of z in validation and test, the same for every task, >= 1.
    """

    width: PositiveInt
    layers: PositiveInt
    latent: PositiveInt
    min_std: PositiveFloat
    test_samples: PositiveInt


class NP(Learner):
    """Learns a distribution over functions: a latent vector z, inferred from points, determines all values together.

    Training maximises a lower bound of the query points' log-likelihood: z is drawn from its posterior given support
    and query points, q(z | C, T), with a penalty for the distance to that given only the support points, q(z | C). In
    tests, `log_likelihood` is the joint one of all query points, estimated with importance-weighted draws from
    q(z | C, T): a lower bound that tightens with their number. `log_likelihood@pointwise` and `mse` are those of single
    points, with z from q(z | C).

    Shapes: as CNP.
    Args:
        input_shape, outputs: D_in and D_out, from the source.
        deterministic: whether the decoder also gets the mean of the support points' encodings, as in CNP and in the
            authors' code (Kim 2019); else it knows the support points only through z.
        settings: see LatentSettings.
    Reference: Garnelo et al. Neural Processes. 2018. arXiv:1807.01622. The path beside z: Kim et al. Attentive Neural
        Processes. ICLR 2019. arXiv:1901.05761. The weights: Burda, Grosse, Salakhutdinov. Importance Weighted
        Autoencoders. ICLR 2016. arXiv:1509.00519, equation 8.
    """

    kinds = ("regression",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        deterministic: bool = False,
        **settings: Unpack[LatentSettings],
    ) -> None:
        super().__init__()
        inputs, width, layers, latent = (
            math.prod(input_shape),
            settings["width"],
            settings["layers"],
            settings["latent"],
        )
        self.latent_encoder = make_mlp(inputs + outputs, width, layers, width)
        self.latent_head = make_mlp(width, width, 1, 2 * latent)
        self.encoder = make_mlp(inputs + outputs, width, layers, width) if deterministic else None
        self.decoder = Decoder(inputs + latent + width * deterministic, width, layers, outputs, settings["min_std"])
        noise = torch.randn(settings["test_samples"], 1, latent, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", noise, persistent=False)
        self.noise: Tensor

    def infer(self, *sides: Examples) -> Distribution:
        """Infer q(z | points) for each task [B, Z]; the order of the points does not matter."""
        encoded = torch.cat([self.latent_encoder(torch.cat(side, -1)) for side in sides], 1).mean(1)
        mean, raw = self.latent_head(encoded).chunk(2, -1)
        return make_gaussian(mean, 0.1 + 0.9 * torch.sigmoid(raw))  # bounds as in the authors' code

    def features(self, support: Examples, x: Tensor) -> list[Tensor]:
        """Return features of the function at x beside z, [B, M, ...] each."""
        if self.encoder is None:
            return []
        return [self.encoder(torch.cat(support, -1)).mean(1, keepdim=True).expand(-1, x.shape[1], -1)]

    def decode(self, support: Examples, x: Tensor, z: Tensor) -> Distribution:
        """Predict the values [L, B, M, D_out] at x [B, M, D_in] for each draw of z [L, B, Z]."""
        known = [x, *self.features(support, x)]
        known = [part.expand(len(z), *part.shape) for part in known]
        predicted: Distribution = self.decoder(*known, z[:, :, None].expand(-1, -1, x.shape[1], -1))
        return predicted

    def meta_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        support, query = batch.support, batch.query
        prior, posterior = self.infer(support), self.infer(support, query)
        z = posterior.rsample((1,))
        likelihood = self.decode(support, query.x, z).log_prob(query.y)[0].sum(-1)  # [B]
        kl = kl_divergence(posterior, prior)
        loss = -((likelihood - kl) / query.x.shape[1]).mean()  # the bound, per query point
        return loss, {"loss": loss.detach(), "kl": kl.detach().mean()}

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        support, query = batch.support, batch.query
        with torch.no_grad():
            prior, posterior = self.infer(support), self.infer(support, query)
            z = posterior.mean + posterior.stddev * self.noise  # [L, B, Z]
            together = self.decode(support, query.x, z).log_prob(query.y).sum(-1)  # [L, B]
            log_likelihood = _log_mean_exp(together + prior.log_prob(z) - posterior.log_prob(z)) / query.x.shape[1]
            predicted = self._from_support(batch)
            return {
                "loss": -log_likelihood,
                "log_likelihood": log_likelihood,
                "log_likelihood@pointwise": _log_mean_exp(predicted.log_prob(query.y)).mean(-1),
                "mse": objectives.mse(predicted.mean.mean(0), query.y),
            }

    def predictions(self, batch: Batch) -> Prediction:
        with torch.no_grad():
            predicted = self._from_support(batch)
        variance = predicted.variance.mean(0) + predicted.mean.var(0, correction=0)  # of the mixture over z
        return Prediction(predicted.mean.mean(0), variance.sqrt())

    def _from_support(self, batch: Batch) -> Distribution:
        prior = self.infer(batch.support)
        return self.decode(batch.support, batch.query.x, prior.mean + prior.stddev * self.noise)


def _log_mean_exp(values: Tensor) -> Tensor:
    """Compute log(mean(exp(values))) over the first dimension."""
    return values.logsumexp(0) - math.log(len(values))
