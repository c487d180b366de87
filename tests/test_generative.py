"""The Neural Statistician in float64, where the answer is known, and its sets of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from metarun.algos.generative import neural_statistician
from metarun.algos.generative.decoder import make_decoder
from metarun.algos.generative.neural_statistician import NeuralStatistician, to_gaussian
from metarun.backbones.mlp import MLP
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples
from metarun.data.sets import FAMILIES, Sets
from metarun.ops.functional import one_hot

pytestmark = pytest.mark.usefixtures("doubles")

S, T, POINTS = 0.7, 0.4, 5
V = S + T
"""c ~ N(0, 1); z given c ~ N(c, S); x given z ~ N(z, T)."""


def statistician(backbone: nn.Module | None = None, layers: int = 0, **changed: object) -> NeuralStatistician:
    backbone = backbone or nn.Identity()
    backbone.out_features = getattr(backbone, "out_features", 1)  # type: ignore[assignment]
    shape = changed.pop("shape", (1,))
    own = {"likelihood": "gaussian", "decoder_std": None, "skip": False, "sample_dropout": False, "normalisation": None}
    sizes = {"rise_steps": 0, "context": 1, "latent": 1, "width": 1, "layers": layers, "filters": 2}
    return NeuralStatistician(backbone, shape, engine="auto", task_chunk=0, **(sizes | own | changed))  # type: ignore[arg-type]


def exact_statistician(decoder_std: float | None = None) -> NeuralStatistician:
    """Every network at the exact Gaussian answer for sets of POINTS."""
    learner = statistician(decoder_std=decoder_std)

    def put(network: nn.Module, weight: list[list[float]], mean: float, variance: float) -> None:
        log_std = 0.5 * math.log(variance)
        linear = network[-1] if isinstance(network, nn.Sequential) else network
        rows = linear.out_features  # two, or a mean alone
        linear.weight.copy_(torch.tensor(weight[:rows]))
        linear.bias.copy_(torch.tensor([mean, 6 * math.atanh(log_std / 6)][:rows]))

    with torch.no_grad():
        learner.member[-1].weight.fill_(1)
        put(learner.context, [[POINTS / (POINTS + V), 0], [0, 0]], 0, V / (POINTS + V))
        put(learner.latent, [[S / V, T / V], [0, 0]], 0, S * T / V)
        put(learner.prior, [[1], [0]], 0, S)
        put(learner.decoder[0], [[1], [0]], 0, T)
    return learner


def drawn_sets(n: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    covariance = V * np.eye(POINTS) + 1
    return torch.from_numpy(rng.multivariate_normal(np.zeros(POINTS), covariance, n))


def evidence(x: Tensor) -> Tensor:
    covariance = V * torch.eye(POINTS) + 1
    return torch.distributions.MultivariateNormal(torch.zeros(POINTS), covariance).log_prob(x)


def bound_of(learner: NeuralStatistician, sets: Tensor) -> Tensor:
    """The bound of each set [n, POINTS], exactly: its integrand is quadratic in 1 + POINTS standard normal numbers, and
    the mean over plus and minus sqrt(1 + POINTS) along each of them is the expectation of every such function."""
    n, directions = len(sets), math.sqrt(1 + POINTS) * torch.eye(1 + POINTS)
    noise = torch.cat([directions, -directions]).repeat_interleave(n, 0)  # of each set in turn, once for each direction
    x = sets.repeat(2 + 2 * POINTS, 1).reshape(-1, 1)

    def draw(q: torch.distributions.Distribution, first: int) -> Tensor:
        return q.mean + q.stddev * (noise[:, :1] if first == 0 else noise[:, 1:].reshape(-1, 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "_draw", draw)
        classes = torch.eye(len(noise)).repeat_interleave(POINTS, 0)
        bound = learner.bound(x, x, classes, learner.infer_context(x, classes))
    of_points = (bound.log_likelihood - bound.kl_latent).reshape(-1, POINTS).sum(1)
    return (of_points - bound.kl_context).reshape(-1, n).mean(0)


@pytest.mark.parametrize("decoder_std", [None, math.sqrt(T)], ids=["learned", "given"])
def test_exact_posteriors_make_the_bound_the_evidence(decoder_std: float | None) -> None:
    """log N(x; 0, V I + 11'), of 40 sets: no gap is left."""
    sets = drawn_sets(40)
    assert (bound_of(exact_statistician(decoder_std), sets) - evidence(sets)).abs().max() < 1e-10


def test_a_given_deviation_is_not_learned() -> None:
    """The density of 0.3, 1 and -2 around means of 0.5, by scipy; the decoder has no number but the mean."""
    learner = statistician(decoder_std=0.25)
    assert learner.decoder(torch.zeros(3, 1)).shape == (3, 1, 1)
    x, mean = torch.tensor([[0.3], [1.0], [-2.0]]), torch.full((3, 1, 1), 0.5)
    expected = scipy.stats.norm(0.5, 0.25).logpdf(x[:, 0].numpy())
    assert learner.log_density(x, mean).numpy() == pytest.approx(expected, abs=1e-12)


def test_whatever_the_posteriors_are_the_bound_stays_below_the_evidence() -> None:
    """A KL that is added would put it above."""
    sets = drawn_sets(40)
    for network in ("context", "latent"):
        for name, place in (("weight", (0, 0)), ("weight", (1, 0)), ("bias", 0), ("bias", 1)):
            learner = exact_statistician()
            with torch.no_grad():
                getattr(getattr(learner, network)[-1], name)[place] += 0.5
            gap = evidence(sets) - bound_of(learner, sets)
            assert gap.min() > -1e-10, (network, name, place)
            assert gap.mean() > 1e-3, (network, name, place)


def test_linear_networks_learn_the_exact_evidence() -> None:
    """Those of inference, from random weights, for the exact model of the data: no gap is left, even of unseen sets."""
    learner, start = exact_statistician(), statistician()
    inference = [*learner.member.parameters(), *learner.context.parameters(), *learner.latent.parameters()]
    random = [*start.member.parameters(), *start.context.parameters(), *start.latent.parameters()]
    sets, unseen = drawn_sets(20), drawn_sets(30, seed=1)
    with torch.no_grad():
        for parameter, value in zip(inference, random, strict=True):
            parameter.copy_(value)
    optim = torch.optim.LBFGS(inference, max_iter=150, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optim.zero_grad()
        found = -bound_of(learner, sets).mean()
        found.backward()
        return found

    before = (evidence(unseen) - bound_of(learner, unseen)).mean()
    optim.step(loss)
    assert before > 0.5
    assert (evidence(unseen) - bound_of(learner, unseen)).abs().mean() < 1e-4


def test_the_density_of_a_test_is_that_of_the_exact_model() -> None:
    """Of queries x of 300 sets: E log N(x; c, V) over c given the support set, whose mean m and variance v are known,
    is log N(x; m, V) - v / 2V. One draw of z for all queries would be off by S / 2V times its square less 1."""
    sets = drawn_sets(300)
    n, queries = POINTS - 2, sets[:, POINTS - 2 :]
    m, v = sets[:, :n].sum(1, keepdim=True) / (n + V), V / (n + V)
    learner = exact_statistician().eval()
    with torch.no_grad():
        weight, bias = learner.context[-1].weight, learner.context[-1].bias
        weight[0, 0] = n / (n + V)
        bias[1] = 6 * math.atanh(0.5 * math.log(v) / 6)
    y = torch.arange(300)
    support = Examples(sets[:, :n].reshape(1, -1, 1), y.repeat_interleave(n)[None])
    query = Examples(queries.reshape(1, -1, 1), y.repeat_interleave(2)[None])
    found = learner.evaluate(Batch(support, query, 300))["log_likelihood"].item()
    expected = torch.distributions.Normal(m, math.sqrt(V)).log_prob(queries).mean() - v / (2 * V)
    assert found == pytest.approx(expected.item(), abs=0.12)


def image_tasks(sets: int = 3, shots: int = 2) -> Batch:
    torch.manual_seed(1)
    y = torch.arange(sets).repeat_interleave(shots)[None]
    return Batch(Examples(torch.rand(1, sets * shots, 1, 8, 8), y), Examples(torch.rand(1, 6, 1, 8, 8), y[:, :6]), sets)


@pytest.mark.parametrize(("bn", "leaks"), [("none", False), ("transductive", True)])
def test_without_batch_norm_a_set_tells_nothing_of_another(bn: str, leaks: bool) -> None:
    """The posteriors of two sets, where the images of a third are others."""
    torch.manual_seed(0)
    net = MLP((1, 8, 8), bn, [6])
    learner = statistician(net, shape=(1, 8, 8), likelihood="bernoulli", normalisation=([0.0], [1.0]), context=3)
    (x, y), _, n_way, _ = image_tasks()
    classes = one_hot(y[0], n_way, x.dtype)
    other = x[0].clone()
    other[4:] = 1 - other[4:]
    means = [learner.infer_context(net(each), classes).mean[:2] for each in (x[0], other)]
    assert torch.allclose(*means, atol=1e-9) != leaks


def test_a_query_belongs_to_the_set_with_the_nearest_posterior() -> None:
    """KL(class || query) by hand, in its own direction."""
    learner = exact_statistician().eval()
    support = Examples(torch.tensor([[[-2.0], [-1.0], [3.0]]]), torch.tensor([[0, 0, 1]]))
    batch = Batch(support, Examples(torch.tensor([[[-1.5], [2.0]]]), torch.tensor([[0, 0]])), 2)
    with torch.no_grad():
        learner.context[-1].weight[1] = torch.tensor([0.3, 0.0])  # variances differ
        state = learner.adapt({}, Examples(support.x[0], support.y[0]), 2)
        logits = learner.predict({}, state, batch.query.x[0])
        to = [learner.context(torch.tensor([[mean, 0.0]]))[0].tolist() for mean in (-1.5, 3.0, 2.0)]
    gaussians = [(mean, math.exp(6 * math.tanh(raw / 6))) for mean, raw in to]

    def kl(one: tuple[float, float], other: tuple[float, float]) -> float:
        ratio = (one[1] / other[1]) ** 2
        return 0.5 * (ratio + ((one[0] - other[0]) / other[1]) ** 2 - 1 - math.log(ratio))

    expected = [[-kl(gaussians[c], gaussians[q]) for c in (0, 1)] for q in (0, 2)]
    assert torch.allclose(logits, torch.tensor(expected), atol=1e-12)
    assert logits.argmax(1).tolist() == [0, 1]
    scores = learner.evaluate(batch)
    assert scores["accuracy"].item() == 0.5


def test_sample_dropout_keeps_any_number_of_a_set_and_at_least_one() -> None:
    """Of sets of 4 and 2, each number as often as the others: 1,000 draws."""
    learner = statistician(sample_dropout=True)
    classes = one_hot(torch.tensor([0, 1, 0, 0, 1, 0]), 2, torch.float64)
    torch.manual_seed(0)
    kept = torch.stack([learner._draw_kept(classes) for _ in range(1000)])  # [1000, R]
    for label, size in ((0, 4), (1, 2)):
        numbers = (kept * classes[:, label]).sum(1).long().bincount(minlength=size + 1)
        assert numbers[0] == 0
        assert ((numbers[1:] - 1000 / size).abs() < 60).all()
    chosen = kept.mean(0)
    assert (chosen[[0, 2, 3, 5]] - 0.625).abs().max() < 0.06


def test_training_reports_the_terms_of_its_loss_and_dropout_changes_them() -> None:
    """Pixels 0.25 at logits of 0: each costs log 2 nats, and of normalised pixels as much."""
    torch.manual_seed(0)
    found = {}
    for name, look in (("plain", ([0.0], [1.0])), ("normalised", ([0.5], [0.25]))):
        net = MLP((1, 8, 8), "none", [6])
        learner = statistician(net, shape=(1, 8, 8), likelihood="bernoulli", normalisation=look)
        for parameter in learner.parameters():
            nn.init.zeros_(parameter)
        x = torch.full((1, 4, 1, 8, 8), (0.25 - look[0][0]) / look[1][0])
        y = torch.tensor([[0, 0, 1, 1]])
        found[name] = learner.meta_loss(Batch(Examples(x, y), Examples(x, y), 2))[1]
        assert found[name]["loss"].item() == pytest.approx(64 * math.log(2))
        assert found[name]["kl_latent"].item() == found[name]["kl_context"].item() == 0


def test_the_divergence_of_c_counts_the_more_the_later_until_the_loss_is_the_bound() -> None:
    """By a quarter more at each of four outer steps, which are counted and saved; the draws are the same each time."""
    torch.manual_seed(0)
    learner = statistician(rise_steps=4, context=3)
    plain = statistician(context=3)
    plain.load_state_dict({name: value for name, value in learner.state_dict().items() if "outer_steps" not in name})
    sets = Examples(drawn_sets(2).reshape(1, -1, 1), torch.arange(2).repeat_interleave(POINTS)[None])

    def metrics_of(one: NeuralStatistician) -> dict[str, float]:
        torch.manual_seed(1)
        return {name: value.item() for name, value in one.meta_loss(Batch(sets, sets, 2))[1].items()}

    whole = metrics_of(plain)
    assert whole["kl_context"] > 0.01
    optims = {"outer": torch.optim.SGD(learner.parameters(), lr=0.0)}
    for share in (0, 0.25, 0.5, 0.75, 1, 1):
        found = metrics_of(learner)
        assert found["kl_context"] == whole["kl_context"]
        assert found["loss"] == pytest.approx(whole["loss"] - (1 - share) * whole["kl_context"], abs=1e-12)
        learner.meta_step(Batch(sets, sets, 2), optims)
    again = statistician(rise_steps=8, context=3)
    again.load_state_dict(learner.state_dict())
    assert metrics_of(again)["loss"] == pytest.approx(whole["loss"] - 0.25 * whole["kl_context"], abs=1e-12)


def test_the_picture_has_a_row_for_each_class_and_changes_nothing() -> None:
    net = MLP((1, 8, 8), "none", [6])
    learner = statistician(net, shape=(1, 8, 8), likelihood="bernoulli", normalisation=([0.0], [1.0])).eval()
    picture = learner.draw(image_tasks())["samples"]
    assert picture.size == (10 * 20 + 12, 3 * 20 + 4)
    assert learner.draw(image_tasks())["samples"].tobytes() == picture.tobytes()
    assert learner.draw(Batch(*drawn_task(), 1)) == {}
    with pytest.raises(ValueError, match=r"algo.likelihood=bernoulli is for images"):
        statistician(likelihood="bernoulli")


def test_samples_of_a_class_stand_beside_the_images_of_that_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that paints the first number of its context: the class's own, in each of its samples."""
    learner = statistician(MLP((1, 8, 8), "none", [6]), shape=(1, 8, 8), likelihood="gaussian").eval()
    monkeypatch.setattr(learner, "decode", lambda _, c: c[:, None, :1, None, None].expand(-1, 2, 1, 8, 8))
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(neural_statistician, "draw_rows", lambda rows, given: drawn.append(rows[:, given:]))
    tasks = image_tasks()
    learner.draw(tasks)
    expected = []
    for x, y in zip(*tasks.support, strict=True):
        classes = torch.eye(tasks.n_way)[y]
        expected += [learner.infer_context(learner.backbone(x), classes).mean[:, 0] * learner.std + learner.mean]
    (found,) = drawn
    shades = torch.cat([shade.flatten() for shade in expected])[: len(found)]
    assert torch.allclose(found, shades[:, None, None, None, None].expand_as(found), atol=1e-6)
    assert len(shades.unique()) == len(shades)


def drawn_task() -> Iterator[Examples]:
    return iter([Examples(torch.rand(1, 2, 1), torch.zeros(1, 2).long())] * 2)


def sets_source(**changed: object) -> Sets:
    shape = EpisodeShape(8, 300, 200)
    own = {"mean": [-1.0, 1.0], "variance": [0.5, 2.0]} | changed
    return Sets(EpisodePlan(shape, shape, 0, 0), torch.device("cpu"), **own)  # type: ignore[arg-type]


def test_the_numbers_of_a_set_are_of_its_family() -> None:
    """Mean 0, variance 1, and the fourth moments 9, 3, 1.8 and 6; the third is 2 for the exponential alone."""
    source = sets_source(mean=[0.0, 0.0], variance=[1.0, 1.0])
    batch = source.batch("test", np.arange(60))
    x = torch.cat([side.x.reshape(60, 8, -1) for side in batch[:2]], -1)
    fourth = {"exponential": 9.0, "gaussian": 3.0, "uniform": 1.8, "laplace": 6.0}
    for number, family in enumerate(FAMILIES):
        own = x[batch.side["family"] == number].flatten()
        assert len(own) > 40_000
        assert own.mean().abs() < 0.02
        assert own.var().item() == pytest.approx(1, abs=0.04)
        assert (own**3).mean().item() == pytest.approx(2.0 if family == "exponential" else 0, abs=0.2)
        assert (own**4).mean().item() == pytest.approx(fourth[family], rel=0.12)


def test_sets_have_means_and_variances_of_their_range_and_are_the_same_again() -> None:
    source = sets_source(mean=[2.0, 3.0], variance=[4.0, 9.0])
    batch = source.batch("train", np.arange(40))
    each = batch.support.x.reshape(320, 300)
    assert each.mean(1).min() > 1.3
    assert 2.9 < each.mean(1).max() < 3.7
    assert 3 < each.var(1).mean() < 10
    again = next(source.episodes("train", 1, 2))
    assert torch.equal(again.support.x, batch.support.x[1:3])
    assert not torch.equal(source.batch("val", np.arange(1)).support.x, batch.support.x[:1])
    assert source.fingerprint("val", 2) != source.fingerprint("test", 2)
    assert batch.support.y[0, ::300].tolist() == list(range(8))
    with pytest.raises(ValueError, match=r"data.variance=\[0.0, 1.0\] must be above 0"):
        sets_source(variance=[0.0, 1.0])


def test_gaussians_of_networks_are_bounded_and_nearly_straight_in_the_middle() -> None:
    found = to_gaussian(torch.tensor([[1.0, 2.0, 0.1, 100.0]]))
    assert found.stddev[0].tolist() == pytest.approx([math.exp(0.1), math.exp(6)], rel=1e-3)


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 8, 4), (2, 6, 9), (4,)])
@pytest.mark.parametrize("numbers", [1, 2])
def test_a_decoder_makes_numbers_for_each_number_of_an_input(shape: tuple[int, ...], numbers: int) -> None:
    """Images of any sides, of which every pixel depends on the vector."""
    network = make_decoder(6, shape, numbers, width=8, layers=2, filters=5)
    vectors = torch.randn(2, 6)
    decoded = network(vectors)
    assert decoded.shape == (2, numbers, *shape)
    assert (decoded[0] != decoded[1]).all()
