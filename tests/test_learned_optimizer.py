"""The learned optimizer: best rates worked out by hand, unrolls against plain autograd, evolution without bias."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from metarun.algos.optimizer.coordinates import CoordinateRule, preprocess
from metarun.algos.optimizer.learned_optimizer import LearnedOptimizer
from metarun.backbones.mlp import MLP
from metarun.core.objectives import regression
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples
from metarun.data.logistic import Logistic
from metarun.data.quadratics import Quadratics, sum_squares

pytestmark = pytest.mark.usefixtures("doubles")

PLAN = EpisodePlan(EpisodeShape(0, 6, 4), EpisodeShape(0, 6, 4), 0, 0)
CPU = torch.device("cpu")


def learner(inputs: int, widths: tuple[int, ...] = (), **changed: Any) -> LearnedOptimizer:
    torch.manual_seed(0)
    own = {
        "objective": regression if widths else sum_squares, "inner_steps": 4, "test_inner_steps": 5, "unroll": 2,
        "units": 3, "layers": 2, "rate": 0.1, "preprocess": 5.0, "start_scale": 1.0, "estimator": "backprop",
        "perturbation": 0.01, "report_steps": [0, 3], "engine": "vectorized", "task_chunk": 0,
    }  # fmt: skip
    return LearnedOptimizer(MLP((inputs,), "none", widths), "none", 1, **own | changed).train()


def parabolas(curvatures: list[float]) -> Batch:
    """h x^2 / 2, as rows sqrt(h / 2) with target 0."""
    rows = torch.tensor(curvatures).div(2).sqrt()[:, None, None]
    side = Examples(rows, torch.zeros_like(rows))
    return Batch(side, side, 0)


def start_at_one(made: LearnedOptimizer) -> LearnedOptimizer:
    """All weights begin at 1 in training too."""
    made._begin = lambda like: begin_at_one(made, like)  # type: ignore[method-assign]
    return made


def begin_at_one(made: LearnedOptimizer, like: Tensor) -> Any:
    from metarun.algos.optimizer.learned_optimizer import Carry

    weights = like.new_ones(sum(value.numel() for value in made.template[0].parameters()))
    return Carry(weights, made.rule.start(weights))


def test_the_best_learned_rate_of_one_step_is_that_of_the_moments() -> None:
    """One step on h x^2 / 2 leaves h (1 - eta h)^2 / 2, least on average at E[h^2] / E[h^3]: 0.290598."""
    made = start_at_one(learner(1, layers=0, inner_steps=1, unroll=1, rate=0.1))
    optim = torch.optim.LBFGS(made.parameters(), line_search_fn="strong_wolfe", tolerance_grad=1e-14, max_iter=50)
    batch = parabolas([0.5, 1, 2, 4])

    def closure() -> Tensor:
        optim.zero_grad()
        return made.meta_gradient(batch)["loss"]

    optim.step(closure)
    h = np.array([0.5, 1, 2, 4])
    assert made.rule.rate.item() == pytest.approx((h**2).mean() / (h**3).mean(), abs=1e-8)
    assert made.rule.rate.item() == pytest.approx(0.290598, abs=1e-6)


def test_no_gradient_flows_through_gradients() -> None:
    """x' = x - eta h x, in which the last x is a constant: its derivative by eta is that of x before, minus h x."""
    made, h, rate = start_at_one(learner(1, layers=0, rate=0.1)), np.array([0.5, 1, 2]), 0.1
    found = made.meta_gradient(parabolas(list(h)))["loss"]
    x, slope, losses, slopes = np.ones(3), np.zeros(3), [], []
    for _ in range(4):
        x, slope = x - rate * h * x, slope - h * x
        losses.append(h * x**2 / 2)
        slopes.append(h * x * slope)
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-12)
    assert made.rule.rate.grad.item() == pytest.approx(np.mean(slopes), abs=1e-12)


def plain_losses(made: LearnedOptimizer, batch: Batch, task: int, cuts: tuple[int, ...], start: Tensor) -> list[Tensor]:
    """The losses along one task's trajectory with torch's own cells; memory and weights are cut at `cuts`."""
    cells = []
    for cell in made.rule.cells:
        inputs, units = cell.gates.in_features - made.rule.units, made.rule.units
        theirs = nn.LSTMCell(inputs, units)
        del theirs.weight_ih, theirs.weight_hh, theirs.bias_ih, theirs.bias_hh
        theirs.weight_ih, theirs.weight_hh = cell.gates.weight[:, :inputs], cell.gates.weight[:, inputs:]
        theirs.bias_ih, theirs.bias_hh = cell.gates.bias, torch.zeros(4 * units)
        cells.append(theirs)
    x, y, weights = batch.support.x[task], batch.support.y[task], start
    n = len(start)
    memory = [(torch.zeros(n, made.rule.units), torch.zeros(n, made.rule.units)) for _ in cells]
    losses = []
    for step in range(made.inner_steps):
        if step in cuts:
            weights = weights.detach()
            memory = [(hidden.detach(), cell.detach()) for hidden, cell in memory]
        at = weights.detach().requires_grad_()
        (grads,) = torch.autograd.grad((x @ at[:, None] - y).square().sum(), at)
        seen = preprocess(grads, 5.0)
        for place, cell in enumerate(cells):
            memory[place] = cell(seen, memory[place])
            seen = memory[place][0]
        weights = weights + 0.1 * made.rule.head(seen)[:, 0]
        losses.append((batch.query.x[task] @ weights[:, None] - batch.query.y[task]).square().sum())
    return losses


@pytest.mark.parametrize("chunk", [0, 1])
def test_one_segment_is_plain_autograd(chunk: int) -> None:
    made = start_at_one(learner(3, task_chunk=chunk))
    batch = Quadratics(PLAN, CPU, 3, 1.0).batch("train", np.arange(4))
    torch.manual_seed(1)
    for parameter in made.rule.parameters():
        nn.init.normal_(parameter, std=0.5)
    losses = [torch.stack(plain_losses(made, batch, task, (), torch.ones(3))).mean() for task in range(4)]
    expected = torch.autograd.grad(torch.stack(losses).mean(), list(made.parameters()))
    made.meta_gradient(batch)
    for parameter, value in zip(made.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, value, rtol=1e-9, atol=1e-12)


def test_segments_are_plain_autograd_with_states_that_are_cut() -> None:
    """Two segments of two updates: the second goes on from weights and memories that are constants."""
    made = start_at_one(learner(3))
    batch = Quadratics(PLAN, CPU, 3, 1.0).batch("train", np.arange(4))
    torch.manual_seed(1)
    for parameter in made.rule.parameters():
        nn.init.normal_(parameter, std=0.5)
    state, found = None, []
    for _ in range(2):
        state, metrics = made.outer_step(state, batch, {})
        found.append((metrics["loss"], [parameter.grad.clone() for parameter in made.parameters()]))
        made.zero_grad()
    assert state is None  # the next meta-batch begins anew
    for segment, (loss, grads) in enumerate(found):
        losses = [plain_losses(made, batch, task, (2,), torch.ones(3)) for task in range(4)]
        mean = torch.stack([torch.stack(own[2 * segment : 2 * segment + 2]).mean() for own in losses]).mean()
        assert loss.item() == pytest.approx(mean.item(), rel=1e-10)
        for value, grad in zip(torch.autograd.grad(mean, list(made.parameters())), grads, strict=True):
            assert torch.allclose(grad, value, rtol=1e-9, atol=1e-12)


def test_a_meta_batch_comes_as_often_as_it_has_segments_wherever_the_stream_starts() -> None:
    made, source = learner(3, inner_steps=5), Quadratics(PLAN, CPU, 3, 1.0)  # segments of 2, 2 and 1
    stream = made.train_stream(source, 0, 2)
    drawn = [next(stream).support.y for _ in range(7)]
    same = [torch.equal(a, b) for a, b in itertools.pairwise(drawn)]
    assert same == [True, True, False, True, True, False]
    later = made.train_stream(source, 4, 2)
    assert all(torch.equal(next(later).support.y, value) for value in drawn[4:])


def test_evolution_is_unbiased_where_truncation_is_not() -> None:
    """The gradient by the rate of the summed losses of two segments, by 40,000 pairs, within five standard errors; that
    of truncated segments is far outside."""
    n, rate = 40000, 0.3
    batch = parabolas([1.0] * n)
    eta = torch.tensor(rate, requires_grad=True)
    exact = sum((1 - eta) ** (2 * step) / 2 for step in range(1, 5)) / 2  # means of 2 updates each
    (expected,) = torch.autograd.grad(exact, eta)

    def summed(estimator: str) -> float:
        made = start_at_one(learner(1, layers=0, rate=rate, estimator=estimator))
        state, total = None, 0.0
        for _ in range(2):
            state, _ = made.outer_step(state, batch, {})
            total += made.rule.rate.grad.item()
            made.zero_grad()
        return total

    assert summed("pes") == pytest.approx(expected.item(), abs=0.02)
    assert abs(summed("backprop") - expected.item()) > 0.1


def test_scores_are_losses_along_the_trajectory() -> None:
    """Of a rule that is gradient descent with rate 0.1, by numpy."""
    made = learner(3, layers=0).eval()
    batch = Quadratics(PLAN, CPU, 3, 1.0).batch("test", np.arange(2))
    scores = made.evaluate(batch)
    for task in range(2):
        w, y = batch.support.x[task].numpy(), batch.support.y[task].numpy()[:, 0]
        theta = made._begin(batch.support.x[task]).weights.numpy()
        losses = [((w @ theta - y) ** 2).sum()]
        for _ in range(5):
            theta = theta - 0.1 * 2 * w.T @ (w @ theta - y)
            losses.append(((w @ theta - y) ** 2).sum())
        assert scores["loss"][task].item() == pytest.approx(np.mean(losses[1:]))
        assert scores["loss@0"][task].item() == pytest.approx(losses[0])
        assert scores["loss@3"][task].item() == pytest.approx(losses[3])


@pytest.mark.parametrize("estimator", ["backprop", "pes"])
def test_it_learns_to_descend(estimator: str) -> None:
    """Paired over 100 test problems: the loss along 10 updates, p < 1e-4, and below that of standing still."""
    made = learner(3, inner_steps=10, test_inner_steps=10, unroll=5, units=8, estimator=estimator)
    source, optim = Quadratics(PLAN, CPU, 3, 1.0), torch.optim.Adam(made.parameters(), 0.02)
    batch = source.batch("test", np.arange(100))
    before = made.eval().evaluate(batch)
    state, stream = None, made.train().train_stream(source, 0, 64)
    for _ in range(80):
        state, metrics = made.outer_step(state, next(stream), {"outer": optim})
        assert torch.isfinite(metrics["loss"])
    after = made.eval().evaluate(batch)["loss"]
    assert stats.ttest_rel(after, before["loss"], alternative="less").pvalue < 1e-4
    assert stats.ttest_rel(after, before["loss@0"], alternative="less").pvalue < 1e-4


def test_networks_start_anew_in_training_and_alike_in_tests() -> None:
    made, x = learner(2, (200,)), torch.zeros(1)
    one, two = made._begin(x).weights, made._begin(x).weights
    assert not torch.equal(one, two)
    assert torch.equal(made.eval()._begin(x).weights, made._begin(x).weights)
    first, summands, head = one[:400], one[400:600], one[600:800]
    assert first.std().item() == pytest.approx(2**-0.5, rel=0.15)
    assert (summands == 0).all()
    assert head.std().item() == pytest.approx(200**-0.5, rel=0.15)


def test_the_rule_is_that_of_any_network_and_has_no_weights_of_it() -> None:
    wide, narrow = learner(2, (7, 5)), learner(2, (4,))
    narrow.load_state_dict(wide.state_dict())
    assert {name.partition(".")[0] for name in wide.state_dict()} == {"rule"}
    with pytest.raises(ValueError, match=r"bn=running has no meaning here"):
        LearnedOptimizer(MLP((2,), "running", (3,)), "running", 1, regression, 1, 1, 1, 1, 1, 0.1, 5.0, 1.0,
                         "backprop", 0.1, [], "auto", 0)  # fmt: skip


def test_gradients_that_are_handed_on_reach_the_memory_as_they_are() -> None:
    rule = CoordinateRule(2, 1, 0.1, 0.0)
    assert rule.cells[0].gates.in_features == 3
    update, memory = rule(torch.tensor([1.0, -2.0]), rule.start(torch.zeros(2)))
    assert update.shape == (2,)
    assert [tuple(part.shape) for part in memory] == [(2, 2), (2, 2)]


def test_answers_of_regressions_are_as_likely_as_their_model_says() -> None:
    plan = EpisodePlan(EpisodeShape(0, 3, 4), EpisodeShape(0, 500, 1500), 0, 0)
    source = Logistic(plan, CPU, 2, 3.0)
    batch = source.batch("test", np.arange(3))
    x = torch.cat([batch.support.x, batch.query.x], 1)
    y = torch.cat([batch.support.y, batch.query.y], 1)
    assert x.std().item() == pytest.approx(3, rel=0.05)
    for task in range(3):
        weights = torch.zeros(2, 1, requires_grad=True)
        optim = torch.optim.LBFGS([weights], line_search_fn="strong_wolfe")

        def loss(task: int = task, weights: Tensor = weights, optim: Any = optim) -> Tensor:
            optim.zero_grad()
            value = source.info.objective(x[task] @ weights, y[task])["loss"]
            value.backward()
            return value

        optim.step(loss)
        found = torch.sigmoid(x[task] @ weights)
        assert found.mean().item() == pytest.approx(y[task].mean().item(), abs=0.03)
        assert weights.norm() > 0.1
    assert source.fingerprint("test", 2) != source.fingerprint("val", 2)


def test_weights_begin_to_move_slowly_and_in_no_direction() -> None:
    """The last layer's weights have a tenth of the deviation 1 / sqrt(units), its summand is nought."""
    torch.manual_seed(0)
    head = CoordinateRule(2500, 1, 0.1, 0.0).head
    assert head is not None
    assert float(head.weight.std()) == pytest.approx(0.1 / 50, rel=0.05)
    assert float(head.bias) == 0
