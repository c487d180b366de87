"""Policy gradients and their derivatives, where the answer is known: by hand, by enumeration, by plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from test_contract import parts_of
from torch import Tensor

from metarun.algos.control.actions import Discrete, Gaussian
from metarun.algos.control.advantages import find_advantages, standardise
from metarun.algos.control.cavia_rl import CAVIARL
from metarun.algos.control.maml_rl import MAMLRL
from metarun.algos.control.pictures import draw_paths, draw_regret, find_square
from metarun.algos.control.promp import ProMP
from metarun.algos.control.rl2 import RL2, Trials
from metarun.algos.control.rollouts import Rollouts, fit_returns, judge, roll_out
from metarun.algos.control.surrogates import Surrogate, find_surrogate
from metarun.algos.control.trust_region import climb, solve
from metarun.core.control import Control, Moved

pytestmark = pytest.mark.usefixtures("doubles")


def test_advantages_by_hand() -> None:
    """Errors of one step: 1 + 0.5 - 0.5 = 1, 2 + 1 - 1 = 2, 3 - 2 = 1; traces 0.25: 1, 2.25, 1.5625 from the end."""
    rewards, values = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])
    assert find_advantages(rewards, values, 0.5, 0.5).tolist() == [1.5625, 2.25, 1.0]


def test_standardising_counts_living_steps_alone() -> None:
    found = standardise(torch.tensor([[1.0, 3.0, 99.0]]), (0, 1), torch.tensor([[1.0, 1.0, 0.0]]))
    assert found[0].tolist() == pytest.approx([-1, 1, 0])


def test_returns_that_observation_and_time_tell_are_no_surprise() -> None:
    """Each step pays 1, so that 4, 3, 2 and 1 follow, whatever the episode; one episode pays 4 instead."""
    seen = torch.ones(1, 3, 4, 1)
    rollouts = Rollouts(seen, torch.zeros(1, 3, 4), torch.ones(1, 3, 4), torch.ones(1, 3, 4))
    assert torch.allclose(fit_returns(rollouts, 1.0), torch.tensor([4.0, 3, 2, 1]).expand(1, 3, 4), atol=0.02)
    surprise = rollouts._replace(rewards=torch.tensor([1.0, 1.0, 4.0])[None, :, None].expand(1, 3, 4))
    assert (judge(surprise, 1.0, 1.0)[0, 2] > 0).all()
    assert (judge(surprise, 1.0, 1.0)[0, :2] < 0).all()


@pytest.mark.parametrize("kind", [Discrete(4), Gaussian(2)])
def test_actions_are_distributed_as_their_probabilities_say(kind: Any) -> None:
    output = torch.randn(kind.outputs, generator=torch.Generator().manual_seed(0)).expand(40000, -1)
    drawn = kind.draw(output, torch.rand(40000, kind.numbers, generator=torch.Generator().manual_seed(1)))
    log_probs = kind.log_prob(output, drawn)
    spread = log_probs.std() / 200
    assert -log_probs.mean().item() == pytest.approx(kind.entropy(output)[0].item(), abs=4 * spread.item())
    other = output + 0.3
    known = (log_probs - kind.log_prob(other, drawn)).mean()
    assert kind.divergence(output, other)[0].item() == pytest.approx(known.item(), abs=0.02)
    assert kind.divergence(output, output).abs().max() < 1e-12
    assert kind.log_prob(output[:1], kind.best(output[:1])) >= log_probs.max() - 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_random_number_makes_an_action_that_is_not_finite(dtype: torch.dtype) -> None:
    """The least and the greatest that there are, as environments draw them."""
    u = torch.tensor([[0.0], [1 - 2.0**-24]], dtype=dtype)
    drawn = Gaussian(1).draw(torch.zeros(2, 2, dtype=dtype), u)
    assert torch.isfinite(drawn).all()
    assert drawn[0] < -5 < 5 < drawn[1]
    assert Discrete(3).draw(torch.zeros(2, 3, dtype=dtype), u).tolist() == [0, 2]


def test_probabilities_are_those_of_torchs_distributions() -> None:
    logits, mean, log_std = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    arm, number = torch.tensor([0, 3, 1, 2, 0]), torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    output = torch.cat([mean, log_std], -1)
    torch.testing.assert_close(
        Discrete(4).log_prob(logits, arm), torch.distributions.Categorical(logits=logits).log_prob(arm)
    )
    torch.testing.assert_close(
        Gaussian(4).log_prob(output, number), torch.distributions.Normal(mean, log_std.exp()).log_prob(number).sum(-1)
    )


def enumerate_episodes(
    form: Surrogate, steps: int, pays: Callable[[tuple[int, ...]], list[float]]
) -> Callable[[Tensor], Tensor]:
    """Of a policy that is one logit of the first of two arms: the surrogate's exact expectation, by all episodes."""
    episodes = list(product((0, 1), repeat=steps))
    arms = torch.tensor(episodes)[None]  # [1, R, T]
    following = torch.tensor([pays(episode) for episode in episodes]).flip(-1).cumsum(-1).flip(-1)

    def expected(logit: Tensor) -> Tensor:
        log_probs = torch.stack([logit, logit * 0]).log_softmax(0)[arms]
        weight = log_probs.detach().sum(-1, keepdim=True).exp()  # of each episode
        scale = len(episodes) * steps * weight  # undoes the mean
        return find_surrogate(form, log_probs, log_probs.detach(), scale * following, torch.ones_like(log_probs)).sum()

    return expected


def derivatives(function: Callable[[Tensor], Tensor], at: float) -> tuple[float, float]:
    x = torch.tensor(at, requires_grad=True)
    (slope,) = torch.autograd.grad(function(x), x, create_graph=True)
    return slope.item(), torch.autograd.grad(slope, x)[0].item()


@pytest.mark.parametrize(("form", "second"), [("ratio", -0.090858), ("dice", -0.090858), ("log_prob", -0.143735)])
def test_second_derivatives_of_one_pull(form: Surrogate, second: float) -> None:
    """The first arm pays 1: J = p = sigmoid(1), J' = p (1 - p) = 0.196612, J'' = p (1 - p) (1 - 2 p) = -0.090858."""
    found = derivatives(enumerate_episodes(form, 1, lambda episode: [float(episode[0] == 0)]), 1.0)
    assert found == (pytest.approx(0.196612, abs=1e-6), pytest.approx(second, abs=1e-6))


def test_only_dice_knows_what_an_action_does_to_later_steps() -> None:
    """Two pulls; the first arm pays 1 the first time, and again if it was pulled both times: J = p + p^2."""
    exact = derivatives(lambda logit: logit.sigmoid() + logit.sigmoid().square(), 0.7)
    found = {
        form: derivatives(enumerate_episodes(form, 2, lambda e: [float(e[0] == 0), float(e == (0, 0))]), 0.7)
        for form in ("ratio", "dice", "log_prob")
    }
    assert all(slope == pytest.approx(exact[0]) for slope, _ in found.values())
    assert found["dice"][1] == pytest.approx(exact[1])
    p = torch.tensor(0.7).sigmoid().item()
    assert found["ratio"][1] == pytest.approx(exact[1] - 2 * p**2 * (1 - p) ** 2)  # 2 H12 = 2 E[g1 g2 r2]
    assert abs(found["log_prob"][1] - exact[1]) > 0.1


@pytest.mark.parametrize(("form", "right"), [("ratio", True), ("dice", True), ("log_prob", False)])
def test_the_meta_gradient_of_an_inner_step_on_a_bandit(form: Surrogate, right: bool) -> None:
    """Of J(w + 0.8 J'(w)), against the difference quotient of the exact expression."""

    def adapted_value(w: float) -> float:
        p = torch.tensor(w).sigmoid()
        return (w + 0.8 * p * (1 - p)).sigmoid().item()

    w = torch.tensor(1.0, requires_grad=True)
    expected = enumerate_episodes(form, 1, lambda episode: [float(episode[0] == 0)])
    (slope,) = torch.autograd.grad(expected(w), w, create_graph=True)
    (found,) = torch.autograd.grad(expected(w + 0.8 * slope), w)
    exact = (adapted_value(1 + 1e-5) - adapted_value(1 - 1e-5)) / 2e-5
    assert (abs(found.item() - exact) < 1e-8) == right


SETTINGS: dict[str, Any] = {
    "widths": [5], "first_std": 5.0, "inner_lr": 0.3, "later_share": 0.5, "inner_steps": 1, "test_inner_steps": 2,
    "surrogate": "ratio", "first_order": False, "discount": 0.9, "trace": 0.8,
}  # fmt: skip
CONTROL = Control(2, 2, False, 7, 6, 0.1)


@pytest.fixture
def batch(settings: Callable[..., DictConfig]) -> Any:
    parts = parts_of(settings("algo=rl2", "data=navigation", "data.length=7", "data.episodes=6"))
    return next(parts.source.environments("train", 0, 3))


def learner(**changes: Any) -> MAMLRL:
    torch.manual_seed(0)
    return MAMLRL(CONTROL, "plain", 0.01, **SETTINGS | changes)


def gradient_of(model: MAMLRL, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def close(one: list[Tensor], other: list[Tensor], rtol: float = 1e-9) -> bool:
    return all(torch.allclose(a, b, rtol=rtol, atol=1e-12) for a, b in zip(one, other, strict=True))


def test_without_inner_steps_it_is_the_policy_gradient_over_all_tasks(batch: Any) -> None:
    model = learner(inner_steps=0)
    judged = model.act(batch, model.start(3), 0)
    log_probs = model.log_probs(model.start(3), judged.rollouts)[1]
    plain = -(log_probs * judged.advantages * judged.rollouts.alive).sum((1, 2)) / judged.rollouts.alive.sum((1, 2))
    assert close(gradient_of(model, model.meta_loss(batch)[0]), gradient_of(model, plain.mean()))


@pytest.mark.parametrize("steps", [1, 2])
def test_first_order_is_the_mean_gradient_at_the_adapted_policies(batch: Any, steps: int) -> None:
    model = learner(first_order=True, inner_steps=steps)
    collected = model.collect(batch)
    last = collected[-1]
    adapted = {name: value.detach().requires_grad_() for name, value in model.adapt(collected).items()}
    log_probs = model.log_probs(adapted, last.rollouts)[1]
    loss = -find_surrogate("ratio", log_probs, last.log_probs, last.advantages, last.rollouts.alive).mean()
    at = [slope.sum(0) for slope in torch.autograd.grad(loss, list(adapted.values()))]
    assert close(gradient_of(model, model.meta_loss(batch)[0]), at)
    whole = learner(inner_steps=steps)
    assert not close(gradient_of(whole, whole.meta_loss(batch)[0]), at, rtol=1e-3)


def test_the_meta_gradient_is_that_of_the_inner_step_as_it_is_written(batch: Any) -> None:
    """Against a difference quotient along a direction, the episodes being fixed."""
    model = learner()
    collected = model.collect(batch)
    found = gradient_of(model, model._gain_and_divergence(collected)[0])
    generator, at = torch.Generator().manual_seed(0), [value.detach().clone() for value in model.parameters()]
    along = [torch.randn(value.shape, generator=generator) for value in at]
    values = []
    for sign in (1, -1):
        for value, start, step in zip(model.parameters(), at, along, strict=True):
            value.data = start + sign * 1e-5 * step
        values.append(model._gain_and_divergence(collected)[0].item())
    slope = sum((a * b).sum().item() for a, b in zip(found, along, strict=True))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_cavia_adapts_the_context_alone(batch: Any) -> None:
    """All tasks share the weights; a task's outputs after a step are those of its own context."""
    torch.manual_seed(0)
    model = CAVIARL(CONTROL, 3, "plain", 0.01, **SETTINGS)
    collected = model.collect(batch)
    adapted, last = model.adapt(collected), collected[-1]
    assert {name: tuple(value.shape) for name, value in adapted.items()} == {"context": (3, 1, 3)}
    assert (adapted["context"].abs() > 1e-6).all()
    seen = last.rollouts.observations[:, :, 0]
    weights = dict(model.policy.named_parameters())
    first = (
        torch.cat([seen[1], adapted["context"][1].expand(len(seen[1]), 3)], -1) @ weights["weight0"] + weights["bias0"]
    )
    by_hand = first.tanh() @ weights["weight1"] + weights["bias1"]
    assert torch.allclose(model.output(adapted, seen)[1, :, :2], by_hand)
    assert not torch.allclose(model.output(adapted, seen), model.output(model.start(3), seen))


def promp(**changes: Any) -> ProMP:
    torch.manual_seed(0)
    own = {"epochs": 1, "clip": 1e6, "penalty": 0.0, "target": None}
    return ProMP(CONTROL, **{name: changes.pop(name, value) for name, value in own.items()}, **SETTINGS | changes)


def test_promp_at_the_policy_that_acted_is_maml_with_the_same_estimator(batch: Any) -> None:
    """Neither clip nor penalty counts there: the ratio is 1 and the divergence has no slope."""
    maml = learner()
    expected = gradient_of(maml, maml.meta_loss(batch)[0])
    for changes in ({}, {"clip": 0.3, "penalty": 5.0}):
        model = promp(**changes)
        assert close(gradient_of(model, model.meta_loss(batch)[0]), expected)


def test_promps_penalty_and_clip_count_away_from_the_policy_that_acted(batch: Any) -> None:
    model = promp()
    collected = model.collect(batch)
    with torch.no_grad():
        model.policy.bias1.add_(0.5)
    losses = {}
    for clip, penalty in ((1e6, 0.0), (0.1, 0.0), (1e6, 2.0)):
        model.clip = clip
        losses[clip, penalty], divergence = model.loss(collected, torch.tensor(penalty))
    # all deviations are 5 times the largest action, 0.5: KL = 2 actions x 0.5^2 / (2 x 0.5^2)
    assert divergence.item() == pytest.approx(1.0)
    assert (losses[1e6, 2.0] - losses[1e6, 0.0]).item() == pytest.approx(2.0)
    assert losses[0.1, 0.0] > losses[1e6, 0.0]


def test_the_weight_of_promps_penalty_follows_the_divergence(batch: Any) -> None:
    """No step, no divergence: halved. A long one: doubled. Without a target it stays."""
    for rate, target, expected in ((0.0, 0.01, 0.5), (3.0, 1e-4, 2.0), (3.0, None, 1.0)):
        model = promp(epochs=2, penalty=1.0, target=target)
        optims = {"outer": torch.optim.SGD(model.parameters(), rate)}
        state, metrics = model.outer_step(model.initial_state(), batch, optims)
        assert (state.item(), metrics["penalty"].item()) == (expected, 1.0)


def test_a_trust_region_step_is_the_longest_along_the_natural_gradient() -> None:
    """Gain g x, divergence x F x / 2: the step is F^-1 g sqrt(2 r / (g F^-1 g))."""
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    f, g, radius = root @ root.T + torch.eye(4), torch.tensor([1.0, -2.0, 0.5, 3.0]), 0.02
    x = torch.nn.Parameter(torch.zeros(4))
    found = climb([x], lambda: (g @ x, x @ f @ x / 2), radius * (1 + 1e-9))
    natural = torch.linalg.solve(f, g)
    assert torch.allclose(x, natural * (2 * radius / (g @ natural)).sqrt(), rtol=1e-4)
    assert found.item() == pytest.approx(radius, rel=1e-4)


def test_a_step_that_gains_nothing_is_not_made() -> None:
    x = torch.nn.Parameter(torch.zeros(2))
    assert climb([x], lambda: ((x.sum() - 1e6 * x.abs().sum().square()), x @ x / 2), 1.0) == 0
    assert x.tolist() == [0, 0]


def test_conjugate_gradients_solve() -> None:
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    f, right = root @ root.T + torch.eye(6), torch.arange(6.0)
    assert torch.allclose(solve(lambda v: f @ v, right), torch.linalg.solve(f, right), rtol=1e-4)


def test_a_trust_region_step_of_a_policy_stays_within_its_radius_and_gains(batch: Any) -> None:
    model = learner()
    model.outer, model.radius = "trpo", 0.005
    collected = model.collect(batch)
    metrics = model.meta_step(batch, {})
    gain, divergence = model._gain_and_divergence(collected)
    assert 0 < metrics["divergence"] <= 0.005
    assert divergence.item() == pytest.approx(metrics["divergence"].item())
    assert gain > 1e-4


def test_each_evaluation_step_acts_in_episodes_of_its_own(batch: Any) -> None:
    scores = learner().evaluate(batch)
    assert list(scores) == ["loss", "return", "return@0", "return@1", "return@greedy"]
    first = learner(test_inner_steps=0).evaluate(batch)
    assert torch.equal(first["return"], scores["return@0"])


def rl2(**changes: Any) -> RL2:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden": 6, "embedding": 0, "products": False, "memory_steps": 0, "update": "ppo", "epochs": 1,
        "minibatches": 1, "clip": 0.2, "discount": 0.9, "trace": 0.7, "value_weight": 0.5, "reward_weight": 0.0,
        "entropy": (0.01, 0.0), "entropy_steps": 10,
    }  # fmt: skip
    return RL2(Control(2, 3, True, 2, 2), **settings | changes)


def trials(n: int) -> Trials:
    """Trials of two episodes of two steps; in the first trial the first episode ends after one step."""
    generator = torch.Generator().manual_seed(1)
    alive = torch.ones(n, 4).index_put((torch.tensor([0]), torch.tensor([1])), torch.tensor(0.0))
    actions = torch.randint(3, (n, 4), generator=generator)
    rewards = torch.randn(n, 4, generator=generator) * alive
    return Trials(torch.randn(n, 4, 7, generator=generator), actions, rewards, alive)


def test_the_unit_of_rewards_does_not_count_in_rl2() -> None:
    """Actor and critic share a network: a critic that tells sums of large rewards would leave the actor no gradient."""
    model, found = rl2(), []
    for unit in (1.0, 1000.0):
        some = trials(5)
        some = some._replace(rewards=unit * some.rewards)
        loss = model.loss(some, model.judge(some))[0]
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    assert all(torch.allclose(one, other, rtol=1e-6, atol=1e-12) for one, other in zip(*found, strict=True))


def test_trials_that_went_alike_are_no_surprise_to_rl2_even_where_an_episode_ended_early() -> None:
    one = trials(1)
    both = Trials(*(torch.cat([part, part]) for part in one))
    assert both.rewards[:, 2:].abs().min() > 0.1
    assert rl2().judge(both).advantages.abs().max() < 1e-6


def test_rl2_holds_a_trial_against_the_others_and_not_against_itself() -> None:
    """Two trials of one step each pay 3 and 1; a critic that says nothing expects of each what the other was paid."""
    model = rl2(discount=1.0)
    model.critic.weight.data.zero_(), model.critic.bias.data.zero_()
    some = Trials(
        torch.zeros(2, 1, 7), torch.zeros(2, 1, dtype=torch.int64), torch.tensor([[3.0], [1.0]]), torch.ones(2, 1)
    )
    judged = model.judge(some)
    assert judged.advantages.flatten().tolist() == pytest.approx([2, -2])
    assert judged.targets.flatten().tolist() == pytest.approx([1, -1])  # in deviations, here of 2


def test_an_embedding_sees_where_the_last_action_was_taken_from(settings: Callable[..., DictConfig]) -> None:
    """At each step: what is shown, the last action, its pay, whether the episode ended, and what was shown before."""
    sizes = ("data.states=4", "data.actions=3", "data.length=2", "data.episodes=2")
    plain, model = (
        parts_of(settings("algo=rl2", "data=tabular_mdp", *sizes, f"algo.embedding={n}")).learner for n in (0, 5)
    )
    source = parts_of(settings("algo=rl2", "data=tabular_mdp", *sizes)).source
    batch = next(source.environments("train", 0, 6))
    seen = model.act(batch).inputs
    assert (plain.act(batch).inputs.shape, seen.shape) == ((6, 4, 4 + 3 + 2), (6, 4, 4 + 3 + 2 + 4))
    shown, before = seen[..., :4], seen[..., -4:]
    assert torch.equal(before[:, 1:], shown[:, :-1])
    assert (before[:, 0] == 0).all()
    model.meta_loss(batch)[0].backward()
    assert all(value.grad.abs().sum() > 0 for value in model.embed.parameters())


def test_products_keep_what_each_action_of_each_state_paid_and_look_it_up() -> None:
    """Of two states and three actions, unit 0 writes what action 1 paid in state 0, unit 1 the same in state 1, each at
    a gate of a half; the actor tells the unit of the state that is shown."""
    model = rl2(products=True)
    for value in model.parameters():
        value.data.zero_()
    shown, action, before = torch.eye(2)[[0, 0, 1, 0]], torch.eye(3)[[1, 1, 2, 1]], torch.eye(2)[[0, 0, 0, 1]]
    paid = torch.tensor([[0.0], [0.5], [0.75], [-0.25]])
    inputs = torch.cat([shown, action, paid, torch.zeros(4, 1), before], -1)[None]
    write, moves = model.memory.get_parameter("weight_ih_l0"), 9 + 6  # what the inputs and the moves take
    write.data[12, moves + 1], write.data[13, moves + 4] = 1.0, 1.0
    model.actor.weight.data[0, 0], model.actor.weight.data[0, 4] = 1.0, 1.0
    found, _ = model.remember(inputs)
    first = torch.tensor(0.5).tanh().item() / 2  # and half of it after each step
    assert model.actor(found)[0, :, 0].tolist() == pytest.approx([0, first, 0, first / 4])
    told = model.remember(inputs[:, [0, 1, 2, 3, 2]])[0][0, -1]
    assert model.actor(told)[0].item() == pytest.approx(torch.tensor(-0.25).tanh().item() / 4)


def test_rl2_learns_from_what_it_saw_as_it_acted() -> None:
    """Inputs one at a time, and the whole trial at once."""
    model, some = rl2(memory_steps=4), trials(3)
    hidden, found = None, list[torch.Tensor]()
    for step in range(4):
        one, hidden = model.remember(some.inputs[:, step : step + 1], hidden)
        found.append(one)
    whole, last = model.remember(some.inputs)
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-6)
    assert hidden is not None
    assert torch.allclose(hidden, last, atol=1e-6)


def test_what_an_action_will_pay_is_told_before_it_is_paid() -> None:
    """Who tells nothing is wrong by the mean square of the rewards, in units of their variance."""
    plain, model, some = rl2(), rl2(reward_weight=0.25), trials(5)
    assert model.pay is not None
    model.pay.weight.data.zero_(), model.pay.bias.data.zero_()
    judged = plain.judge(some)
    more = model.loss(some, judged)[0] - plain.loss(some, judged)[0]
    wrong = some.rewards.square().sum() / some.alive.sum() / some.rewards.var()
    assert more.item() == pytest.approx(0.25 * wrong.item(), rel=1e-5)
    model.pay.bias.data[:] = torch.tensor([0.5, 1.0, 2.0])
    told = model.pay.bias[some.actions]
    wrong = ((told - some.rewards).square() * some.alive).sum() / some.alive.sum() / some.rewards.var()
    more = model.loss(some, judged)[0] - plain.loss(some, judged)[0]
    assert more.item() == pytest.approx(0.25 * wrong.item(), rel=1e-5)


def test_units_of_rl2_forget_at_the_rates_that_are_asked_for() -> None:
    """Without inputs, of a memory of 1 to 11 steps, six units keep 1/2, 3/4, 5/6, ... of their state in a step."""
    model = rl2(memory_steps=11)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        model.memory.get_parameter(name).data.zero_()
    for name in ("bias_ih_l0", "bias_hh_l0"):
        model.memory.get_parameter(name).data[12:].zero_()  # of what a unit would write
    state = torch.full((1, 1, 6), 0.5)
    kept = model.memory(torch.zeros(1, 1, 7), state)[1] / state
    assert kept.flatten().tolist() == pytest.approx([k / (k + 1) for k in (1, 3, 5, 7, 9, 11)])


@pytest.mark.parametrize(("minibatches", "cut"), [(2, [3, 2]), (4, [2, 1, 1, 1]), (9, [1] * 5)])
def test_ppo_steps_with_every_minibatch_in_every_epoch(minibatches: int, cut: list[int]) -> None:
    """torch's `chunk` would cut five trials into three parts where four are asked for: 2, 2, 1."""
    model, some, sizes = rl2(epochs=3, minibatches=minibatches), trials(5), list[int]()
    model.act = lambda batch: some  # type: ignore[method-assign, assignment]
    loss = model.loss
    model.loss = lambda one, judged: sizes.append(len(one.rewards)) or loss(one, judged)  # type: ignore[func-returns-value, method-assign]
    model.meta_step(None, {"outer": torch.optim.SGD(model.parameters(), lr=0.1)})  # type: ignore[arg-type]
    assert sizes == cut * 3


def test_paths_are_drawn_on_a_square_with_all_places() -> None:
    """From (-1, 2) to (3, 3): four units wide, so also four high, and a twentieth of that more on each side."""
    x, y = find_square(torch.tensor([[-1.0, 2.5], [3.0, 2.0], [0.0, 3.0]]))
    assert x.domain == pytest.approx([-1.2, 3.2])
    assert y.domain == pytest.approx([0.3, 4.7])


def test_pictures_are_twice_as_large_as_they_are_shown_and_have_a_panel_for_each_task() -> None:
    """Panels of 260 points, two in a row: three tasks make two rows. Regret has one panel of 420 by 280."""
    paths, goal = [torch.rand(3, 2, 5, 2) for _ in range(2)], torch.rand(3, 2)
    wide, one = draw_paths(paths, goal), draw_paths([places[:1] for places in paths], goal[:1])
    assert wide.width > 2 * 2 * 260
    assert wide.height > 2 * 2 * 260
    assert one.height < wide.height < 2 * one.height + 200
    assert 2 * 260 < one.width < wide.width
    regret = draw_regret({"rl2": torch.rand(4, 6), "thompson": torch.rand(4, 6)}, torch.rand(4, 3))
    assert regret.width > 2 * 420
    assert 2 * 280 < regret.height < 4 * 280


class Ending:
    """Two tasks of two episodes of up to four steps that pay 1 each; task b ends its episodes after 2 + b steps."""

    n_tasks = 2

    def reset(self, n: int, episode: int) -> Tensor:
        self.step_number = 0
        return torch.zeros(2, n, 1)

    def draw(self, n: int, episode: int, numbers: int) -> Tensor:
        return torch.full((2, n, 4, numbers), 0.5)

    def step(self, actions: Tensor) -> Moved:
        self.step_number += 1
        done = (self.step_number >= torch.tensor([[2], [3]])).expand(2, actions.shape[1])
        left = self.step_number <= torch.tensor([[2], [3]])
        return Moved(torch.full((*actions.shape, 1), float(self.step_number)), left.expand_as(done).double(), done)


def test_the_step_that_ends_an_episode_counts_and_none_after_it() -> None:
    found = roll_out(Ending(), lambda seen: torch.zeros(*seen.shape[:2], 3), Discrete(3), 2, 0)
    assert found.alive.tolist() == [[[1, 1, 0, 0]] * 2, [[1, 1, 1, 0]] * 2]
    assert (found.rewards == found.alive).all()
    assert found.observations[0, 0, :, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("form", ["ratio", "log_prob", "dice"])
def test_nothing_that_comes_after_an_episode_has_ended_counts_anywhere(form: Surrogate) -> None:
    """In the baseline, the advantages and what an inner step ascends; the mean is over the steps that there are."""
    draw = torch.Generator().manual_seed(0)
    alive = torch.tensor([[[1.0, 1, 0, 0], [1, 1, 1, 0]], [[1, 1, 1, 1], [1, 0, 0, 0]]])
    seen, log_probs, before = torch.randn(3, 2, 2, 4, 1, generator=draw)
    one = Rollouts(seen, torch.zeros(2, 2, 4), torch.rand(2, 2, 4, generator=draw) * alive, alive)
    other = one._replace(observations=seen + 9 * (1 - alive[..., None]))

    def living(values: Tensor) -> list[float]:
        return values[alive > 0].tolist()

    assert living(fit_returns(one, 0.9)) == pytest.approx(living(fit_returns(other, 0.9)))
    assert living(judge(one, 0.9, 0.8)) == pytest.approx(living(judge(other, 0.9, 0.8)))
    advantages = judge(one, 0.9, 0.8)
    beside = find_surrogate(form, log_probs[..., 0], before[..., 0], advantages, alive)
    dead = 9 * (1 - alive)
    again = find_surrogate(form, log_probs[..., 0] + dead, before[..., 0], advantages + dead, alive)
    assert again.tolist() == pytest.approx(beside.tolist())
    short = [part[:1, :, :3] for part in (log_probs[..., 0], before[..., 0], advantages, alive)]
    assert find_surrogate(form, *short).item() == pytest.approx(
        beside[0].item()
    )  # whatever the length that episodes might have had
