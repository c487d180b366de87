from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from torch.optim import Optimizer

from metarun.algos.base.count import Count
from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.gaussian import log_normal, make_gaussian
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.learner import Learner
from metarun.algos.base.metric import Support, embed_together
from metarun.algos.base.scored import Scored
from metarun.algos.generative.decoder import make_decoder
from metarun.algos.generative.pictures import draw_rows
from metarun.algos.processes.cnp import make_mlp
from metarun.core.ranges import CountsWith, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.core.tasks import Batch, Examples, Metrics
from metarun.ops import context, norm
from metarun.ops.functional import Params, one_hot, within

SAMPLES, SHOWN, MOST_ROWS, DRAWS = 8, 5, 20, 256
"""In a picture: samples of a class, support images and rows at most; draws of tests, taken in turn."""


class Bound(NamedTuple):
    """The terms of the bound for R examples of N sets, in nats: [R], [R] and [N]."""

    log_likelihood: Tensor
    kl_latent: Tensor
    kl_context: Tensor


class NeuralStatistician(EpisodicLearner):
    """Learns a generative model of sets: a vector c, inferred from a whole set, tells how its members are made.

    The classes of a task are sets. Training sees no labels but which images belong together: it maximises a lower bound
    of the log-density of support and query images of a class together, whose loss is in nats per image. A class is then
    c's posterior given its support images, and a query belongs to the class whose posterior is nearest, by KL(class ||
    query), to that given the query alone. `log_likelihood` of a test is a lower bound, with one draw of each vector, of
    a query's log-density given the support images of its class.

    Unlike the paper: gray pixels are taken as probabilities of ink and not binarised; one layer of z; no dilation, and
    turned classes are the source's business (`data.rotation`). BatchNorm would mix the sets of a task, so that the
    posterior of one tells of another: `bn=none` is the default here.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1; predicts minus KLs [M, N].
    Args:
        backbone: from inputs to features [R, D]; shared by both inference networks.
        input_shape, normalisation: of the source.
        context: size of c.
        latent: size of z, a member's own vector.
        width, layers: units and number of hidden layers of the networks that infer c and z, and of z's prior given c.
        filters: of the decoder of images, see ImageDecoder; other inputs have one of `width` and `layers`.
        likelihood: of inputs: `bernoulli` of pixels in 0..1, or `gaussian`.
        decoder_std: standard deviation of each number of an input given z and c, > 0. None learns it, as in the paper;
            sets of numbers are then soon taken for one wide Gaussian each. A small one keeps z in use (Lucas 2019).
        skip: the decoder sees c beside z.
        sample_dropout: infer c from a random part of a set in training, of 1 to all members, so that the posterior
            given a single image is known too.
        rise_steps: outer steps over which the weight of c's divergence rises from 0 to 1 (Sønderby 2016), so that c
            tells much before it has to be brief; 0: the loss is the bound from the first step on.
        engine, task_chunk: how tests are computed, see EpisodicLearner; training goes task by task.
    Reference: Edwards, Storkey. Towards a Neural Statistician. ICLR 2017. arXiv:1606.02185, equations 3 and 4, and
        algorithm 4. Its equation 7 adds the two KLs, which have to be subtracted as in equation 4. Lucas et al. Don't
        Blame the ELBO! NeurIPS 2019. arXiv:1911.02469. Sønderby et al. Ladder Variational Autoencoders. NeurIPS 2016.
    """

    many_shapes = False

    kinds = ("classification", "sets")

    def __init__(
        self,
        backbone: nn.Module,
        input_shape: tuple[int, ...],
        normalisation: tuple[Sequence[float], Sequence[float]] | None,
        context: PositiveInt,
        latent: PositiveInt,
        width: PositiveInt,
        layers: NonNegativeInt,
        filters: PositiveInt,
        likelihood: Literal["bernoulli", "gaussian"],
        decoder_std: Annotated[PositiveFloat | None, CountsWith("likelihood", ("gaussian",))],
        skip: bool,
        sample_dropout: bool,
        rise_steps: NonNegativeInt,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(engine, task_chunk)
        if likelihood == "bernoulli" and normalisation is None:
            raise ValueError("algo.likelihood=bernoulli is for images, whose pixels are in 0..1; set it to gaussian")
        self.backbone, self.likelihood, self.skip, self.sample_dropout = backbone, likelihood, skip, sample_dropout
        self.decoder_std, learns_std = decoder_std, likelihood == "gaussian" and decoder_std is None
        self.rise_steps, self.outer_steps = rise_steps, Count() if rise_steps else None
        features, numbers = int(backbone.out_features), 2 if learns_std else 1  # type: ignore[arg-type]
        self.member = make_mlp(features, width, layers, width)
        self.context = make_mlp(width + 1, width, layers, 2 * context)
        self.latent = make_mlp(features + context, width, layers, 2 * latent)
        self.prior = make_mlp(context, width, layers, 2 * latent)
        seen = latent + context if skip else latent
        self.decoder = make_decoder(seen, input_shape, numbers, width, layers, filters)
        mean, std = normalisation or ((0.0,), (1.0,))
        per_channel = (-1, 1, 1) if len(input_shape) == 3 else (-1,)
        noise = torch.randn(DRAWS, context + latent, generator=torch.Generator().manual_seed(0))
        self.mean: Tensor
        self.std: Tensor
        self.noise: Tensor
        for name, value in (
            ("mean", torch.tensor(list(mean)).reshape(per_channel)),
            ("std", torch.tensor(list(std)).reshape(per_channel)),
            ("noise", noise.to(torch.get_default_dtype())),  # of tests, the same for every task
        ):
            self.register_buffer(name, value, persistent=False)

    meta_gradient = Learner.meta_gradient

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        found: list[Tensor] = []
        for support_x, support_y, query_x, query_y in zip(*batch.support, *batch.query, strict=True):
            x, y = torch.cat([support_x, query_x]), torch.cat([support_y, query_y])
            with context.recording() as statistics:
                features = self.backbone(x)
            norm.update_running(self.backbone, statistics)
            classes = one_hot(y, batch.n_way, x.dtype)
            seen = classes * self._draw_kept(classes)[:, None] if self.sample_dropout else classes
            bound = self.bound(features, x, classes, self.infer_context(features, seen))
            found.append(torch.stack([term.sum() for term in bound]) / len(x))
        log_likelihood, kl_latent, kl_context = torch.stack(found).mean(0)
        weight = min(1.0, self.outer_steps.number / self.rise_steps) if self.outer_steps else 1.0
        loss = kl_latent + weight * kl_context - log_likelihood  # equation 4, per image
        terms = {"loss": loss, "kl_latent": kl_latent, "kl_context": kl_context}
        return loss, {name: value.detach() for name, value in terms.items()}

    def meta_step(self, batch: Any, optims: dict[str, Optimizer]) -> Metrics:
        metrics = super().meta_step(batch, optims)
        if self.outer_steps:
            self.outer_steps.number += 1
        return metrics

    def infer_context(self, features: Tensor, members: Tensor) -> Distribution:
        """Infer q(c | D) of each of N sets, from features [R, D] and 1 where an example is a member [R, N]."""
        count = members.sum(0)[:, None]
        mean = members.T @ self.member(features) / count
        return to_gaussian(self.context(torch.cat([mean, count.log()], 1)))

    def bound(self, features: Tensor, x: Tensor, classes: Tensor, context: Distribution) -> Bound:
        """Return the terms of equation 4 for inputs x [R, ...] of the sets `classes` [R, N], a draw for each vector."""
        c = self._draw(context, 0)
        c_of_each = classes @ c  # [R, C]
        posterior = to_gaussian(self.latent(torch.cat([features, c_of_each], 1)))
        z = self._draw(posterior, c.shape[-1])
        standard = make_gaussian(torch.zeros_like(c), torch.ones_like(c))
        prior = to_gaussian(self.prior(c_of_each))
        log_likelihood = self.log_density(x, self.decode(z, c_of_each))
        return Bound(log_likelihood, kl_divergence(posterior, prior), kl_divergence(context, standard))

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """Return the numbers of p(x | z, c) [R, numbers, ...], for z [R, Z] and c [R, C]."""
        out: Tensor = self.decoder(torch.cat([z, c], 1) if self.skip else z)
        return out

    def log_density(self, x: Tensor, decoded: Tensor) -> Tensor:
        """Return log p(x | z, c) of each input [R]."""
        if self.likelihood == "bernoulli":
            pixels = (x * self.std + self.mean).clamp(0, 1)
            each = -F.binary_cross_entropy_with_logits(decoded[:, 0], pixels, reduction="none")
        else:
            std = self.decoder_std
            log_std = limit(decoded[:, 1]) if std is None else x.new_tensor(math.log(std))
            each = log_normal(x - decoded[:, 0], log_std)
        return each.flatten(1).sum(1)

    def adapt(self, params: Params, support: Examples, n_way: int) -> Support:
        return Support(support.x, one_hot(support.y, n_way, support.x.dtype))

    def predict(self, params: Params, state: Support, x: Tensor) -> Tensor:
        return self._compare(state, *self._embed(params, state, x))

    def _compare(self, state: Support, support: Tensor, query: Tensor) -> Tensor:
        """Return minus KLs [M, N] (algorithm 4) for features of the support set [S, D] and of queries [M, D]."""
        classes = self.infer_context(support, state.classes).base_dist  # type: ignore[attr-defined]
        alone = self.infer_context(query, torch.eye(len(query), dtype=query.dtype, device=query.device)).base_dist  # type: ignore[attr-defined]
        each = [make_gaussian(q.mean.unsqueeze(at), q.stddev.unsqueeze(at)) for q, at in ((classes, 0), (alone, 1))]
        return -kl_divergence(*each)

    def _score_task(self, params: Params, support: Examples, query: Examples, n_way: int, **facts: Tensor) -> Scored:
        """Score a task of a test, whose images are embedded once for both scores."""
        state = self.adapt(params, support, n_way)
        known, asked = self._embed(params, state, query.x)
        scores = self.score(params, state, self._compare(state, known, asked), query.y)
        classes = one_hot(query.y, n_way, asked.dtype)
        bound = self.bound(asked, query.x, classes, self.infer_context(known, state.classes))
        return Scored(scores | {"log_likelihood": (bound.log_likelihood - bound.kl_latent).mean()}, [])

    @torch.no_grad()
    def draw(self, batch: Batch) -> Mapping[str, Any]:
        """Draw samples of each class given its support images, which stand before them."""
        if batch.query.x.dim() != 5:
            return {}
        rows, generator = [], torch.Generator().manual_seed(0)
        for support in map(Examples, *batch.support):
            c = self.infer_context(self.backbone(support.x), one_hot(support.y, batch.n_way, support.x.dtype)).mean
            c = c.repeat_interleave(SAMPLES, 0)  # [N * SAMPLES, C]
            prior = to_gaussian(self.prior(c))
            noise = torch.randn(prior.mean.shape, generator=generator).to(c)
            decoded = self.decode(prior.mean + prior.stddev * noise, c)[:, 0]
            samples = decoded.sigmoid() if self.likelihood == "bernoulli" else decoded * self.std + self.mean
            for label, made in enumerate(samples.reshape(batch.n_way, SAMPLES, *samples.shape[1:])):
                shown = support.x[support.y == label][:SHOWN] * self.std + self.mean
                rows.append(torch.cat([shown, made]))
        return {"samples": draw_rows(torch.stack(rows[:MOST_ROWS]), given=rows[0].shape[0] - SAMPLES)}

    def _embed(self, params: Params, state: Support, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embed support and query examples: [S, D] and [M, D]."""
        return embed_together(self.backbone, within(params, "backbone"), state.x, x)

    def _draw(self, q: Distribution, first: int) -> Tensor:
        """Draw from q [R, D]; in tests by the columns of the fixed noise from `first` on, a row for each of R."""
        rows = torch.arange(len(q.mean), device=q.mean.device) % DRAWS
        fixed = self.noise[:, first : first + q.mean.shape[-1]]
        return q.mean + q.stddev * (torch.randn_like(q.mean) if self.training else fixed[rows])

    def _draw_kept(self, classes: Tensor) -> Tensor:
        """Draw which examples [R] are kept: of each set [R, N] a random part, its size any from 1 to all."""
        sizes, label = classes.sum(0), classes.argmax(1)
        kept = (torch.rand_like(sizes) * sizes).floor() + 1
        shuffled = (label + torch.rand(len(label), device=label.device, dtype=torch.float64)).argsort()  # set by set
        place = torch.empty_like(label)
        place[shuffled] = torch.arange(len(label), device=label.device)
        place_in_set = place - (sizes.cumsum(0) - sizes)[label]
        return (place_in_set < kept[label]).to(classes.dtype)


def to_gaussian(output: Tensor) -> Distribution:
    """Make a Gaussian of a network's outputs [R, 2 D]: means, and logarithms of standard deviations."""
    mean, raw = output.chunk(2, -1)
    return make_gaussian(mean, limit(raw).exp())


def limit(raw: Tensor) -> Tensor:
    """Keep the logarithm of a standard deviation in -6..6, nearly unchanged in the middle."""
    return 6 * torch.tanh(raw / 6)
