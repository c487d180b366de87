"""Neural processes and the exact posterior: what makes each itself, on problems whose answer is worked out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from metarun.algos.base.gaussian import make_gaussian
from metarun.algos.processes.anp import ANP
from metarun.algos.processes.cnp import CNP, make_mlp
from metarun.algos.processes.gp_oracle import GPOracle
from metarun.algos.processes.neural_process import NP
from metarun.core import objectives
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples
from metarun.data.gp import GaussianProcess
from metarun.ops.gaussian_process import Prior, posterior

pytestmark = pytest.mark.usefixtures("doubles")


def learners() -> list[CNP | NP]:
    torch.manual_seed(0)
    small = {"input_shape": (2,), "outputs": 3, "width": 8, "layers": 1, "min_std": 0.1}
    latent = {"latent": 4, "test_samples": 5}
    both = type("NPBothPaths", (NP,), {})(**small, **latent, deterministic=True)
    return [CNP(**small), NP(**small, **latent), ANP(**small, **latent, heads=2), both]


def points(n_tasks: int = 2, support: int = 5, query: int = 7) -> Batch:
    torch.manual_seed(1)
    sides = [Examples(torch.randn(n_tasks, n, 2), torch.randn(n_tasks, n, 3)) for n in (support, query)]
    return Batch(*sides, 0)


@pytest.mark.parametrize("learner", learners(), ids=lambda learner: type(learner).__name__)
def test_the_order_of_points_does_not_matter(learner: CNP | NP) -> None:
    batch = points()
    one, other = torch.tensor([3, 0, 4, 2, 1]), torch.randperm(7)
    support, query = batch.support, batch.query
    shuffled = Batch(Examples(support.x[:, one], support.y[:, one]), Examples(query.x[:, other], query.y[:, other]), 0)
    learner.double()
    before, after = learner.evaluate(batch), learner.evaluate(shuffled)
    assert all(torch.allclose(before[name], after[name], atol=1e-12) for name in before)
    assert torch.allclose(learner.predictions(batch).mean[:, other], learner.predictions(shuffled).mean, atol=1e-12)


@pytest.mark.parametrize("learner", learners(), ids=lambda learner: type(learner).__name__)
def test_the_support_set_matters(learner: CNP | NP) -> None:
    batch = points()
    other = batch._replace(support=Examples(batch.support.x, batch.support.y + 1))
    learner.double()
    difference = learner.predictions(batch).mean - learner.predictions(other).mean
    assert (difference.abs() > 1e-6).all()


@pytest.mark.parametrize("learner", learners(), ids=lambda learner: type(learner).__name__)
def test_a_support_set_given_twice_says_what_it_says_once(learner: CNP | NP) -> None:
    """Encodings are averaged, and attention is shared out among copies; a sum would grow with the number of points."""
    batch = points()
    twice = batch._replace(support=Examples(*(torch.cat([side, side], 1) for side in batch.support)))
    learner.double()
    for one, other in zip(learner.predictions(batch), learner.predictions(twice), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("learner", learners(), ids=lambda learner: type(learner).__name__)
def test_what_is_predicted_and_the_scores_of_single_points_do_not_see_the_other_answers(learner: CNP | NP) -> None:
    """With 9 added to the answers of all points but the first, `mse` and `@pointwise` change by what the unchanged
    predictions of these points say."""
    batch, (y, n) = points(), (points().query.y, 7)
    other = batch._replace(query=Examples(batch.query.x, torch.cat([y[:, :1], y[:, 1:] + 9], 1)))
    first = Batch(batch.support, Examples(batch.query.x[:, :1], y[:, :1]), 0)
    rest = Batch(batch.support, Examples(*(side[:, 1:] for side in other.query)), 0)
    learner.double()
    for one, same in zip(learner.predictions(batch), learner.predictions(other), strict=True):
        assert torch.equal(one, same)
    whole, alone, others = (learner.evaluate(one) for one in (other, first, rest))
    for name in ("mse", "log_likelihood@pointwise"):
        assert torch.allclose(whole[name], (alone[name] + (n - 1) * others[name]) / n, rtol=1e-12)


def test_the_density_is_summed_over_dimensions_and_averaged_over_points() -> None:
    """Two points of two dimensions, errors 0, 1 and 0, 0 at standard deviations 1 and 2.

    Log-densities: -log 2 pi - 1/2 and -log 2 pi - 2 log 2; squared errors 0, 1, 0, 0.
    """
    predicted = make_gaussian(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    scores = objectives.gaussian_nll(predicted, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    expected = -math.log(2 * math.pi) - (0.5 + 2 * math.log(2)) / 2
    assert scores["log_likelihood"].item() == pytest.approx(expected, abs=1e-12)
    assert scores["loss"].item() == pytest.approx(-expected, abs=1e-12)
    assert scores["mse"].item() == 0.25


def test_the_bound_is_the_likelihood_less_the_divergence_of_two_gaussians() -> None:
    """KL(N(a, s) || N(b, t)) = log t / s + (s^2 + (a - b)^2) / 2 t^2 - 1/2 in each dimension."""
    learner, batch = learners()[1].double(), points()
    torch.manual_seed(3)
    loss, metrics = learner.meta_loss(batch)
    with torch.no_grad():
        prior, post = learner.infer(batch.support), learner.infer(batch.support, batch.query)
        a, s, b, t = post.mean, post.stddev, prior.mean, prior.stddev
        kl = ((t / s).log() + (s**2 + (a - b) ** 2) / (2 * t**2) - 0.5).sum(-1)
        torch.manual_seed(3)
        z = a + s * torch.randn(1, 2, 4)
        inputs = torch.cat([batch.query.x, z[0][:, None].expand(-1, 7, -1)], -1)
        mean, raw = learner.decoder.network(inputs).chunk(2, -1)
        std = 0.1 + 0.9 * torch.log1p(raw.exp())
        density = -0.5 * ((batch.query.y - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
    assert metrics["kl"].item() == pytest.approx(kl.mean().item(), rel=1e-12)
    assert loss.item() == pytest.approx((-(density.sum((1, 2)) - kl) / 7).mean().item(), rel=1e-10)


def test_more_draws_tighten_the_bound_and_many_agree_with_the_integral() -> None:
    """With one latent dimension the likelihood is an integral over z that a fine grid computes."""
    torch.manual_seed(0)
    settings = {"input_shape": (2,), "outputs": 3, "width": 8, "layers": 1, "latent": 1, "min_std": 0.1}
    learner, batch = NP(**settings, test_samples=20_000).double(), points()
    found = learner.evaluate(batch)["log_likelihood"]
    with torch.no_grad():
        prior = learner.infer(batch.support)
        steps = torch.linspace(-8, 8, 4001)[:, None, None]
        z = prior.mean + prior.stddev * steps
        log_density = learner.decode(batch.support, batch.query.x, z).log_prob(batch.query.y).sum(-1)
        weights = prior.log_prob(z) + prior.stddev[:, 0].log() + math.log(16 / 4000)
        integral = (log_density + weights).logsumexp(0) / 7
    assert torch.allclose(found, integral, atol=2e-3)


def test_attention_is_a_mean_of_values_weighted_by_the_softmax_of_scaled_products() -> None:
    learner, batch = learners()[2].double(), points()
    weight, bias = learner.attention.in_proj_weight, learner.attention.in_proj_bias
    torch.nn.init.normal_(bias)

    def heads(x: Tensor, part: int) -> Tensor:
        rows = slice(8 * part, 8 * part + 8)
        return (x @ weight[rows].T + bias[rows]).reshape(2, -1, 2, 4).transpose(1, 2)  # [B, heads, points, 4]

    values = learner.encoder(torch.cat(batch.support, -1))
    q, k, v = heads(learner.key(batch.query.x), 0), heads(learner.key(batch.support.x), 1), heads(values, 2)
    mixed = torch.softmax(q @ k.mT / math.sqrt(4), -1) @ v
    expected = learner.attention.out_proj(mixed.transpose(1, 2).reshape(2, 7, 8))
    assert torch.allclose(learner.features(batch.support, batch.query.x)[0], expected, atol=1e-12)
    assert torch.allclose(torch.nn.functional.scaled_dot_product_attention(q, k, v), mixed, atol=1e-12)


def test_weights_start_at_the_width_of_glorot_and_biases_at_zero() -> None:
    """Uniform in +-sqrt(6 / (n + m)): 6 / 512 = 0.108 squared at width 256, where torch's own reach 1 / 16."""
    first, _, second, _, _ = make_mlp(2, 256, 2, 2)
    assert 0.107 < second.weight.abs().max() <= (6 / 512) ** 0.5
    assert not first.bias.any()


def test_beside_the_latent_vector_the_decoder_may_see_the_mean_of_encodings() -> None:
    """With the columns of z at zero, what is predicted is CNP's, whatever was drawn."""
    learner, batch = learners()[3].double(), points()
    with torch.no_grad():
        learner.decoder.network[0].weight[:, -4:] = 0
        found = learner.decode(batch.support, batch.query.x, torch.randn(3, 2, 4)).mean
        encoded = learner.encoder(torch.cat(batch.support, -1)).mean(1, keepdim=True).expand(-1, 7, -1)
        cut = learner.decoder.network[0].weight[:, :-4], learner.decoder.network[0].bias
        hidden = torch.relu(torch.nn.functional.linear(torch.cat([batch.query.x, encoded], -1), *cut))
        expected = learner.decoder.network[2](hidden)[..., :3]
    assert torch.allclose(found, expected.expand(3, -1, -1, -1), atol=1e-12)


def test_a_band_holds_what_each_draw_of_z_leaves_open_and_how_far_the_draws_lie_apart() -> None:
    """The variance of a mixture is the mean of its squares, less its mean's square."""
    learner, batch = learners()[1].double(), points()
    found = learner.predictions(batch)
    with torch.no_grad():
        prior = learner.infer(batch.support)
        drawn = learner.decode(batch.support, batch.query.x, prior.mean + prior.stddev * learner.noise)
    assert drawn.mean.std(0).min() > 1e-3
    squares = (drawn.variance + drawn.mean.square()).mean(0)
    assert torch.allclose(found.mean, drawn.mean.mean(0), atol=1e-12)
    assert torch.allclose(found.std.square(), squares - drawn.mean.mean(0).square(), rtol=1e-9)


def test_width_is_shared_among_the_heads() -> None:
    with pytest.raises(ValueError, match=r"algo.width=8 must be a multiple of algo.heads=3"):
        ANP((1,), 1, width=8, layers=1, latent=2, min_std=0.1, test_samples=2, heads=3)


def test_the_posterior_of_two_points_is_the_textbooks() -> None:
    """K = [[2, 1], [1, 3]] and y = 4 at the first: mean 1/2 * 4 = 2 and variance 3 - 1/2 at the second.

    Evidence: the log-density of 4 under variance 2, -log(4 pi) / 2 - 4.
    """
    known = posterior(torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([4.0]))
    assert known.mean.item() == pytest.approx(2)
    assert known.covariance.item() == pytest.approx(2.5)
    assert known.log_evidence.item() == pytest.approx(-0.5 * math.log(4 * math.pi) - 4)
    assert known.log_density(torch.tensor([3.0])).item() == pytest.approx(stats.norm(2, 2.5**0.5).logpdf(3.0))


def test_a_covariance_that_is_none_has_no_density() -> None:
    """Correlations above 1, of the observations in one task and not in the other; of the others in both."""
    of_two = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    joint = torch.eye(4).repeat(2, 1, 1)
    joint[0, :2, :2], joint[:, 2:, 2:] = of_two, of_two
    known = posterior(joint, torch.zeros(2, 2))
    assert known.log_evidence.isnan().tolist() == [True, False]
    assert known.log_density(torch.zeros(2, 2)).isnan().all()


PRIOR = {"length_scale": [0.4, 0.4], "scale": [1.0, 1.0], "period": [1.0, 1.0], "noise": 0.1, "x": [-2.0, 2.0]}


def drawn(n_tasks: int, **changes: object) -> tuple[Prior, Batch]:
    plan = EpisodePlan(EpisodeShape(0, 5, 5), EpisodeShape(0, 6, 8), 0, 0)
    source = GaussianProcess(plan, torch.device("cpu"), "rbf", **(PRIOR | changes))
    return source.prior, source.batch("test", np.arange(n_tasks))


def test_the_oracle_is_the_conditional_of_the_joint_density() -> None:
    """log p(query | support) = log p(both) - log p(support), each by scipy; and one point on its own likewise."""
    prior, batch = drawn(3)
    scores = GPOracle(prior, nodes=4).evaluate(batch)
    for task in range(3):
        x = torch.cat([batch.support.x[task], batch.query.x[task]])[:, 0].numpy()
        y = torch.cat([batch.support.y[task], batch.query.y[task]])[:, 0].numpy()
        k = np.exp(-((x[:, None] - x) ** 2) / (2 * 0.4**2)) + 0.01 * np.eye(14)

        def density(rows: list[int], k: np.ndarray = k, y: np.ndarray = y) -> float:
            return float(stats.multivariate_normal(cov=k[np.ix_(rows, rows)]).logpdf(y[rows]))

        s = list(range(6))
        together = (density(list(range(14))) - density(s)) / 8
        alone = np.mean([density([*s, i]) - density(s) for i in range(6, 14)])
        assert scores["log_likelihood"][task].item() == pytest.approx(together, abs=1e-9)
        assert scores["log_likelihood@pointwise"][task].item() == pytest.approx(alone, abs=1e-9)


def test_the_oracle_weighs_what_it_is_not_told_by_the_evidence_of_the_support_set() -> None:
    """Two length scales, the middles of the halves of 0.2 to 1: 0.4 and 0.8, equally likely before. Then log p(query |
    support) is the log of the mean of the two joint densities less that of the mean of the two of the support set."""
    prior, batch = drawn(3, length_scale=[0.2, 1.0])
    scores = GPOracle(prior, nodes=2).evaluate(batch)
    for task in range(3):
        x = torch.cat([batch.support.x[task], batch.query.x[task]])[:, 0].numpy()
        y = torch.cat([batch.support.y[task], batch.query.y[task]])[:, 0].numpy()

        def density(rows: list[int], x: np.ndarray = x, y: np.ndarray = y) -> float:
            x, y = x[rows], y[rows]
            kernels = [np.exp(-((x[:, None] - x) ** 2) / (2 * length**2)) for length in (0.4, 0.8)]
            normals = [stats.multivariate_normal(cov=k + 0.01 * np.eye(len(x))) for k in kernels]
            return math.log(np.mean([normal.pdf(y) for normal in normals]))

        s = list(range(6))
        together = (density(list(range(14))) - density(s)) / 8
        alone = np.mean([density([*s, i]) - density(s) for i in range(6, 14)])
        assert scores["log_likelihood"][task].item() == pytest.approx(together, abs=1e-9)
        assert scores["log_likelihood@pointwise"][task].item() == pytest.approx(alone, abs=1e-9)


def test_the_oracle_averages_over_what_it_is_not_told() -> None:
    """Length scales of 0.2 to 1: to weigh the whole range is better than to believe in its middle, the one node."""
    wide, batch = drawn(400, length_scale=[0.2, 1.0])
    middle, _ = drawn(1, length_scale=[0.6, 0.6])
    averaged, one, believed = (
        GPOracle(prior, nodes).evaluate(batch)["log_likelihood"] for prior, nodes in ((wide, 8), (wide, 1), (middle, 8))
    )
    assert torch.allclose(one, believed)
    assert stats.ttest_rel(averaged, believed, alternative="greater").pvalue < 1e-4
    finer = GPOracle(wide, 32).evaluate(batch)["log_likelihood"]
    assert abs((finer - averaged).mean()) < 0.02


def test_no_other_prior_scores_better_than_the_true_one() -> None:
    prior, batch = drawn(400)
    truth = GPOracle(prior, 1).evaluate(batch)
    for changes in ({"length_scale": [0.3, 0.3]}, {"scale": [1.5, 1.5]}, {"noise": 0.2}):
        other = GPOracle(drawn(1, **changes)[0], 1).evaluate(batch)
        for score in ("log_likelihood", "log_likelihood@pointwise"):
            assert stats.ttest_rel(truth[score], other[score], alternative="greater").pvalue < 1e-4
