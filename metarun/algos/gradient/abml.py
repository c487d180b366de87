from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.gaussian import make_gaussian
from metarun.algos.base.inner_loop import InnerLoop, InnerSettings
from metarun.algos.base.network import Network, with_support
from metarun.core import objectives
from metarun.core.calibration import measure_calibration_error
from metarun.core.ranges import CountsBeside, CountsWith, NonNegativeFloat, PositiveFloat, PositiveInt
from metarun.core.tasks import Batch, Examples, Prediction
from metarun.ops import context
from metarun.ops.functional import Params, call, flatten_name, gradient, unflatten, within
from metarun.ops.noise import draw_normal


class Posterior(NamedTuple):
    """A task's state: means and logarithms of the deviations of the weights, before and after the inner loop.

    `noise` [2, L, n] is for predictions and for the bound.
    """

    prior: Params
    phi: Params
    support: Examples
    noise: Tensor


class ABML(EpisodicLearner):
    """MAML over distributions: the inner loop fits a Gaussian over the weights, which begins at its own prior.

    theta is a mean and a deviation of each weight: the prior of a task's weights, and where the inner loop starts. It
    descends the bound on the support set's evidence; training descends the same bound on support and query set
    together. Predictions are averaged over draws of the weights: probabilities, not logits.

    Expectations are over draws of all weights in opposite pairs, the same for all examples; the paper draws layers'
    outputs (local reparametrization, Flipout), which is less noisy. Bounds are per example.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1 or [S, D_out]; predicts logarithms of probabilities
        [M, N], or means and deviations [M, 2 D_out].
    Args:
        backbone: from inputs to features [R, out_features].
        outputs, n_way: classes of a task, or D_out and 0.
        samples, test_samples: draws of the weights in training, and in validation and test; rounded up to be even.
        inner_kl, outer_kl: weight of the distance to the prior in the two bounds; 1 is the bound itself, which holds
            the many weights of a network for images so near to the prior that it does not learn in 60 outer steps.
        hyperprior: weight of the prior of theta for a task, 1 over the training tasks in the paper: normal for means,
            gamma for precisions.
        shape, rate: of that gamma distribution (a0 and b0 in the paper).
        start_std: deviation of all weights at the start, > 0.
        noise: deviation of a function's values around the network's; 0.7071 makes the inner loss the squared error.
        inner: see InnerSettings.
    Reference: Ravi, Beatson. Amortized Bayesian Meta-Learning. ICLR 2019, equations 4 and 5 and algorithm 1.
    """

    kinds = ("classification", "regression")
    goal = "bound"
    directions = {"ece": "lower"}  # noqa: RUF012

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        n_way: int,
        *,
        samples: PositiveInt,
        test_samples: PositiveInt,
        inner_kl: NonNegativeFloat,
        outer_kl: NonNegativeFloat,
        hyperprior: NonNegativeFloat,
        shape: Annotated[PositiveFloat, CountsWith("hyperprior")],
        rate: Annotated[PositiveFloat, CountsWith("hyperprior")],
        start_std: PositiveFloat,
        noise: Annotated[PositiveFloat, CountsBeside("data", ("regression",))],
        **inner: Unpack[InnerSettings],
    ) -> None:
        super().__init__(inner["engine"], inner["task_chunk"], objectives.classification)
        self.inner = InnerLoop.of(inner, first_order=False)
        self.n_way, self.noise = n_way, noise
        self.inner_kl, self.outer_kl, self.hyperprior = inner_kl, outer_kl, hyperprior
        self.shape, self.rate = shape, rate
        self.net = Network(backbone, outputs)
        self.log_std = nn.ParameterDict(
            {flatten_name(n): torch.full_like(value, math.log(start_std)) for n, value in self.net.named_parameters()}
        )
        self.pairs = {True: -(-samples // 2), False: -(-test_samples // 2)}
        count = sum(value.numel() for value in self.net.parameters())
        drawn = torch.randn(self.pairs[False], count, generator=torch.Generator().manual_seed(0))
        self.register_buffer("drawn", drawn, persistent=False)  # the same in all tests
        self.drawn: Tensor

    def adapt(self, params: Params, support: Examples, n_way: int) -> Posterior:
        net = within(params, "net")
        prior = {f"mean.{name}": value for name, value in net.items()}
        prior |= {f"log_std.{name}": params[f"log_std.{flatten_name(name)}"] for name in net}
        phi, memory = prior, self.inner.optimizer.start(prior)
        steps = self.inner.steps_in(self.training)
        noise = self.draw_noise(steps + 2)
        for step in range(steps):
            grads = gradient(partial(self._find_support_bound, support, prior, noise[step]), phi, first_order=False)
            phi, memory = self.inner.optimizer.step(phi, grads, memory, step, lambda _: self.inner.lr)
        return Posterior(prior, phi, support, noise[steps:])

    def predict(self, params: Params, state: Posterior, x: Tensor) -> Tensor:
        first, *others = self.draw_nets(state.phi, state.noise[0])
        drawn = [self._run(first, state.support.x, x)]
        with context.recording():  # the averages of `bn=running` are those of the first network
            drawn += [self._run(net, state.support.x, x) for net in others]
        outputs = torch.stack(drawn)  # [L, M, D]
        if self.n_way:
            return torch.log_softmax(outputs, -1).logsumexp(0) - math.log(len(outputs))
        variance = outputs.var(0, correction=0) + self.noise**2  # of the mixture
        return torch.cat([outputs.mean(0), variance.sqrt()], -1)

    def score(self, params: Params, state: Posterior, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        if not self.n_way:
            mean, std = output.chunk(2, -1)
            return objectives.gaussian_nll(make_gaussian(mean, std), y)
        scores = self.objective(output, y)
        if self.training:
            return scores
        return scores | {"log_likelihood": -scores["loss"], "ece": measure_calibration_error(output.exp(), y)}

    def extra_scores(self, params: Params, state: Posterior, query: Examples) -> dict[str, Tensor]:
        """Return the bound of the outer loop (equation 5), per example."""
        if not self.training:
            return {}
        support, rows = state.support, len(state.support.x) + len(query.x)
        nets = self.draw_nets(state.phi, state.noise[1])
        known = sum(self._find_nll(call(self.net, net, support.x), support.y) for net in nets) / len(nets)
        asked = sum(self._find_nll(self._run(net, support.x, query.x), query.y) for net in nets) / len(nets)
        fit = (len(support.x) * known + len(query.x) * asked) / rows
        distance = self.outer_kl * measure_distance(state.phi, state.prior) / rows
        return {"bound": fit + distance - self.hyperprior * self._weigh_theta(state.prior)}

    def draw_nets(self, phi: Params, noise: Tensor) -> list[Params]:
        """Make networks' parameters, whose deviations from the means are those of noise [L, n]."""
        means = {name.partition(".")[2]: value for name, value in phi.items() if name.startswith("mean.")}
        nets = []
        for one in noise:
            drawn = unflatten(one, means)
            nets.append({name: mean + phi[f"log_std.{name}"].exp() * drawn[name] for name, mean in means.items()})
        return nets

    def draw_noise(self, times: int) -> Tensor:
        """Draw standard normal numbers [times, L, n] in opposite pairs, anew in training, always the same in tests."""
        if self.training:
            drawn = draw_normal(times, self.pairs[True], self.drawn.shape[1], like=self.drawn)
        else:
            drawn = self.drawn.expand(times, -1, -1)
        return torch.cat([drawn, -drawn], 1)

    def predictions(self, batch: Batch) -> Prediction | None:
        found = super().predictions(batch)
        return None if found is None else Prediction(*found.mean.chunk(2, -1))

    def describe(self) -> dict[str, Any]:
        return self.inner.describe()

    def _find_support_bound(self, support: Examples, prior: Params, noise: Tensor, phi: Params) -> Tensor:
        nets = self.draw_nets(phi, noise)
        fit = sum(self._find_nll(call(self.net, net, support.x), support.y) for net in nets) / len(nets)
        return fit + self.inner_kl * measure_distance(phi, prior) / len(support.x)  # equation 4

    def _find_nll(self, output: Tensor, y: Tensor) -> Tensor:
        if self.n_way:
            return self.objective(output, y)["loss"]
        return -make_gaussian(output, torch.full_like(output, self.noise)).log_prob(y).mean()

    def _weigh_theta(self, prior: Params) -> Tensor:
        """Return the logarithm of theta's density, but for a constant."""
        total = torch.zeros((), dtype=self.drawn.dtype, device=self.drawn.device)
        for name, value in prior.items():
            if name.startswith("mean."):
                total = total - value.square().sum() / 2
            else:
                precision = torch.exp(-2 * value)
                total = total + ((self.shape - 1) * -2 * value - self.rate * precision).sum()
        return total

    def _run(self, net: Params, support_x: Tensor, x: Tensor) -> Tensor:
        return with_support(self.net, partial(call, self.net, net), support_x, x)


def measure_distance(phi: Params, prior: Params) -> Tensor:
    """Return the divergence KL(phi || prior) in nats of Gaussians with independent weights."""
    total = []
    for name, mean in phi.items():
        kind, _, own = name.partition(".")
        if kind == "mean":
            log_std, before, log_before = phi[f"log_std.{own}"], prior[name], prior[f"log_std.{own}"]
            spread = (torch.exp(2 * log_std) + (mean - before).square()) / (2 * torch.exp(2 * log_before))
            total.append((log_before - log_std + spread - 0.5).sum())
    return torch.stack(total).sum()
