"""run=continual: what its scores are, learners of one task after another against plain autograd, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import metarun, results_of, stop_and_resume
from conftest import noise_tasks
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear, one_hot

from metarun.algos.base.learner import Learner
from metarun.algos.continual.anml import ANML
from metarun.algos.continual.finetune_in_turn import FineTuneInTurn
from metarun.algos.continual.head import Head, learn_in_order
from metarun.algos.continual.oml import OML, Trajectory
from metarun.algos.continual.progressive import Progressive
from metarun.core.episodes import draw_episodes, draw_stream
from metarun.core.errors import ConfigError
from metarun.core.objectives import classification
from metarun.core.tasks import Batch, EpisodeShape, Examples, SourceInfo
from metarun.ops.norm import BatchNorm
from metarun.run.continual import ContinualRun
from metarun.run.interrupt import StopRequest
from metarun.run.parts import Parts
from metarun.run.team import Group
from metarun.settings.build import build_parts, build_run
from metarun.settings.resolve import resolve

TASKS, WAYS = 4, 2


class Numbered:
    """Tasks whose inputs are the numbers of their classes in the stream."""

    info = SourceInfo((1,), WAYS, WAYS, classification, "0" * 64, {}, train_classes=8)

    def streams(self, split: str, first: int, n_tasks: int, n_way: int) -> Iterator[Batch]:
        y = torch.arange(n_way).repeat(n_tasks, 1)
        x = (y + n_way * torch.arange(n_tasks)[:, None]).double()[..., None]
        while True:
            yield Batch(Examples(x, y), Examples(x, y), n_way, {"classes": x[..., 0].long()})

    episodes = examples = streams

    def fingerprint(self, split: str, n_tasks: int) -> str:
        return f"{n_tasks:064d}"


class Scripted(Learner):
    """Knows the classes of the last `span` tasks; of others, and of its first task if it is `slow`, it answers as the
    first class of the newest task, or the first class of their own task."""

    def __init__(self, span: int, slow: bool = False) -> None:
        super().__init__()
        self.span, self.slow = span, slow

    def meta_loss(self, batch: Any) -> Any:
        raise NotImplementedError

    def evaluate(self, batch: Any) -> Any:
        raise NotImplementedError

    def start_stream(self, n_classes: int) -> Any:
        return n_classes, ()

    def learn_task(self, state: Any, examples: Examples, classes: range) -> Any:
        assert set(examples.y.tolist()) == set(classes)
        return state[0], (*state[1], classes)

    def answer_task(self, state: Any, x: Tensor) -> Tensor:
        n_classes, learned = state
        known = {c for task in learned[-self.span :] for c in task} if len(learned) > self.slow else set()
        logits = torch.zeros(len(x), n_classes)
        for row, number in zip(logits, x[:, 0].long() % n_classes, strict=True):  # alone, a task's classes come first
            row[number - number % WAYS] = 1.0  # the first class of its own task
            row[learned[-1].start] = 2.0
            if int(number) in known:
                row[number] = 3.0
            row[learned[-1].stop :] = 9.0  # of what is to come, which nobody asks about
        return logits


def continual(learner: Any, folder: Path, source: Any = None, **changes: Any) -> ContinualRun:
    parts = Parts(learner, source or Numbered(), {}, [], torch.device("cpu"), folder)
    settings = {"tasks": TASKS, "ways": WAYS, "score_every": 1, "task_known": False, "alone": False} | changes
    fixed = {"steps": 0, "meta_batch_size": 1, "streams": 2, "val_streams": 2, "val_every": None}
    return ContinualRun(parts, checkpoint_every=1, log_every=1, **fixed, **settings)


def live(run: ContinualRun) -> dict[str, Any]:
    stream = next(run.parts.source.streams("test", 0, run.tasks, run.ways))
    return {name: score[0].tolist() for name, score in run._live_through(stream, StopRequest()).items()}


@pytest.mark.parametrize(
    ("span", "known", "accuracy", "forgetting"),
    [(1, False, 1 / 4, 1.0), (2, False, 2 / 4, 2 / 3), (4, False, 1.0, 0.0), (1, True, 2.5 / 4, 1 / 2)],
)
def test_accuracy_and_forgetting_of_one_who_knows_the_last_tasks(
    tmp_path: Path, span: int, known: bool, accuracy: float, forgetting: float
) -> None:
    """Of 4 tasks of 2 classes the last `span` are known. An older one is taken for the newest task's first class; where
    its task is given, for its own first class, which is right for half of it. Of the 3 tasks before the last, each has
    fallen from 1 to 0 (or to a half) unless it is among the last."""
    found = live(continual(Scripted(span), tmp_path, task_known=known))
    assert found["accuracy"] == pytest.approx(accuracy)
    assert found["forgetting"] == pytest.approx(forgetting)
    assert found["accuracy@learned"] == 1
    old = 0.5 if known else 0.0
    expected = [
        [1.0 if 0 <= time - task < span else old if time >= task else 0.0 for time in range(4)] for task in range(4)
    ]
    assert found["matrix"] == expected


def test_forward_transfer_is_what_earlier_tasks_add_to_a_task_just_learned(tmp_path: Path) -> None:
    """One who takes its first task of all for one class has half of it right; after that it knows each new task."""
    found = live(continual(Scripted(1, slow=True), tmp_path, alone=True))
    assert (found["accuracy@alone"], found["forward_transfer"]) == (0.5, 0.5)
    quick = live(continual(Scripted(1), tmp_path, alone=True))
    assert (quick["accuracy@alone"], quick["forward_transfer"]) == (1.0, 0.0)
    assert "forward_transfer" not in live(continual(Scripted(1), tmp_path))


def test_forward_transfer_is_of_answers_among_the_tasks_own_classes(tmp_path: Path) -> None:
    """One who knows all, but prefers the stream's first class: each later task is lost among all classes, and known
    among its own. Alone, a task's first class is the stream's, so half of it is right."""

    class Partial(Scripted):
        def answer_task(self, state: Any, x: Tensor) -> Tensor:
            logits = super().answer_task(state, x)
            logits[:, 0] = 4.0
            return logits

    found = live(continual(Partial(4), tmp_path, alone=True))
    assert found["accuracy@learned"] == 0.5 / 4
    assert (found["accuracy@alone"], found["forward_transfer"]) == (0.5, 0.5)


def test_each_process_lives_through_its_own_streams(tmp_path: Path) -> None:
    class Second(Group):
        def share(self, n: int) -> tuple[int, int]:
            return 1, n

    class Watched(Numbered):
        def streams(self, split: str, first: int, n_tasks: int, n_way: int) -> Iterator[Batch]:
            began.append((split, first))
            return super().streams(split, first, n_tasks, n_way)

    began: list[Any] = []
    run = continual(Scripted(1), tmp_path, Watched())
    run.parts.group = Second()
    assert len(run._evaluate("val", 3, StopRequest())["accuracy"]) == 2
    assert began == [("val", 1)]


def test_runs_on_other_streams_or_questions_are_told_apart_by_their_hash(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"tasks": 3}, {"ways": 3}, {"task_known": True}]
    hashes = [continual(Scripted(1), tmp_path, **change).describe()["episode_sha256"] for change in changes]
    assert len(set(hashes)) == 4


def test_the_matrix_has_a_column_for_every_few_tasks_and_one_for_the_last(tmp_path: Path) -> None:
    run = continual(Scripted(1), tmp_path, tasks=5, score_every=2)
    assert run.times == [2, 4, 5]
    assert np.array(live(run)["matrix"])[[1, 3, 4], [0, 1, 2]].tolist() == [1, 1, 1]
    assert np.array(live(run)["matrix"]).sum() == 3


def test_a_learner_that_stands_still_has_the_same_accuracies_all_the_time(tmp_path: Path) -> None:
    class Still(Scripted):
        def answer_task(self, state: Any, x: Tensor) -> Tensor:
            return torch.cos(x * torch.arange(1, TASKS * WAYS + 1))

    found = live(continual(Still(1), tmp_path, task_known=True))
    for task, row in enumerate(found["matrix"]):
        assert len(set(row[task:])) == 1
    assert found["forgetting"] == 0
    assert 0 < found["accuracy"] < 1


@pytest.mark.parametrize("groups", [None, np.split(np.arange(20), [6, 12, 14, 17])])
def test_the_tasks_of_a_stream_share_no_class_and_each_keeps_to_a_group(groups: Any) -> None:
    sizes, shape, seen = np.full(20, 999), EpisodeShape(3, 2, 4), set()
    drawn_before = {tuple(row) for row in draw_episodes(7, "test", np.arange(120), sizes, shape).support}
    for index in range(40):
        drawn = draw_stream(7, "test", index, sizes, 3, shape, groups)
        again = draw_stream(7, "test", index, sizes, 3, shape, groups)
        assert all((one == other).all() for one, other in zip(drawn, again, strict=True))
        assert len(set(drawn.classes.ravel())) == 9
        seen |= set(drawn.classes.ravel().tolist())
        for task in range(3):
            assert tuple(drawn.support[task]) not in drawn_before  # images of other tasks than those of episodes
            drawn_before.add(tuple(drawn.support[task]))
            images = [drawn.support[task][drawn.support_y[task] == 1], drawn.query[task][drawn.query_y[task] == 1]]
            assert len(set(np.concatenate(images))) == 6  # support and query of a class are other images
        if groups is not None:
            homes = [{g for g, members in enumerate(groups) if c in members} for task in drawn.classes for c in task]
            assert [homes[0], homes[3], homes[6]] == [h for h in (homes[1], homes[4], homes[7])]
            assert len({next(iter(home)) for home in homes}) == 3
    assert seen == set(range(20)) - (
        set(range(12, 14)) if groups else set()
    )  # two classes are too few, three are enough


def test_a_stream_that_needs_more_classes_than_there_are_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"a stream of 7 tasks with 3 classes each .* split 'val' has classes for 6\. Set"
    ):
        draw_stream(0, "val", 0, np.full(20, 9), 7, EpisodeShape(3, 2, 4))
    with pytest.raises(ConfigError, match=r"split 'val' has classes for 1\. Set fewer tasks"):
        draw_stream(0, "val", 0, np.full(20, 9), 2, EpisodeShape(3, 2, 4), [np.arange(4), np.arange(4, 6)])


@pytest.mark.usefixtures("doubles")
def test_a_heads_steps_are_plain_gradient_steps_with_example_after_example() -> None:
    """To the last digit, and so are their derivatives by features and first weights."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, features = (torch.randn(*s, generator=generator, requires_grad=True) for s in ((4, 3), (4,), (6, 3)))
    y, lr = torch.tensor([1, 1, 3, 0, 3, 2]), 0.3
    w, b = weight, bias
    for feature, label in zip(features, y, strict=True):
        loss = cross_entropy(linear(feature[None], w, b), label[None])
        steps = torch.autograd.grad(loss, (w, b), create_graph=True)
        w, b = w - lr * steps[0], b - lr * steps[1]
    head = learn_in_order(Head(weight, bias), features, y, lr)
    assert torch.allclose(head.weight, w, atol=1e-14)
    assert torch.allclose(head.bias, b, atol=1e-14)
    sizes = torch.randn(4, 3, generator=generator)
    for one, other in zip(
        *(torch.autograd.grad((v * sizes).sin().sum(), (weight, bias, features)) for v in (head.weight, w)), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-14)


def two_layers() -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
    net.out_features = 5  # type: ignore[assignment]
    return net


OF_OML: dict[str, Any] = {"trajectory": 2, "inner_lr": 0.4, "test_inner_lr": None, "task_chunk": 1}


def trajectory() -> Trajectory:
    """Classes 5 and 2 of 7, three images to learn and two to score each, and four images of any class."""
    g = torch.Generator().manual_seed(1)
    classes = torch.tensor([[5], [2]])
    support, query = (torch.randn(2, n, 4, generator=g) for n in (3, 2))
    zero = [torch.zeros(2, n, dtype=torch.long) for n in (3, 2)]
    tasks = Batch(Examples(support, zero[0]), Examples(query, zero[1]), 1, {"classes": classes})
    return Trajectory(tasks, Examples(torch.randn(4, 4, generator=g), torch.tensor([0, 5, 6, 2])))


@pytest.mark.usefixtures("doubles")
def test_omls_meta_gradient_is_that_of_a_plain_loop_over_the_examples() -> None:
    """Rows 5 and 2 are emptied; images of 5 come first, then those of 2; the loss is on others of both and the rest."""
    learner, drawn = OML(two_layers(), 7, **OF_OML), trajectory()
    learner.meta_gradient(drawn)
    found = [value.grad for value in learner.parameters()]
    net, head = learner.backbone, learner.classifier
    kept = torch.tensor([1.0, 1, 0, 1, 1, 0, 1])
    w, b = head.weight * kept[:, None], head.bias * kept
    for x, label in zip(drawn.tasks.support.x.flatten(0, 1), [5, 5, 5, 2, 2, 2], strict=True):
        loss = -(w @ net(x[None])[0] + b).log_softmax(0)[label]
        steps = torch.autograd.grad(loss, (w, b), create_graph=True)
        w, b = w - 0.4 * steps[0], b - 0.4 * steps[1]
    x = torch.cat([drawn.tasks.query.x.flatten(0, 1), drawn.remembered.x])
    logits = net(x) @ w.T + b
    loss = -(logits.log_softmax(1) * one_hot(torch.tensor([5, 5, 2, 2, 0, 5, 6, 2]), 7)).sum(1).mean()
    expected = torch.autograd.grad(loss, list(learner.parameters()))
    assert all(torch.allclose(one, other, atol=1e-13) for one, other in zip(found, expected, strict=True))
    assert torch.allclose(learner.meta_loss(drawn)[0], loss)


@pytest.mark.usefixtures("doubles")
def test_anml_with_an_open_gate_is_oml_and_with_a_closed_one_knows_nothing() -> None:
    drawn = trajectory()
    oml, anml = OML(two_layers(), 7, **OF_OML), ANML(two_layers(), 7, "head", **OF_OML)
    anml.load_state_dict(oml.state_dict(), strict=False)
    losses = {}
    for opened in (80.0, -80.0):
        nn.init.zeros_(anml.gate[1].weight)
        nn.init.constant_(anml.gate[1].bias, opened)
        losses[opened] = anml.meta_loss(drawn)[0]
    assert torch.allclose(losses[80.0], oml.meta_loss(drawn)[0], atol=1e-14)
    support = Examples(torch.randn(4, 4), torch.tensor([0, 0, 1, 1]))
    anml.eval()
    state = anml.learn_task(anml.start_stream(2), support, range(2))
    one, other = anml.answer_task(state, torch.randn(2, 4))
    assert torch.allclose(one, other, atol=1e-12)  # the bias alone learns


@pytest.mark.usefixtures("doubles")
def test_anmls_meta_gradient_is_that_of_a_plain_loop_whose_steps_move_the_network_below_the_head_too() -> None:
    """All weights but the gate's step with each image; the loss is that of the moved weights, on others."""
    learner, drawn = ANML(two_layers(), 7, "all", **OF_OML), trajectory()
    learner.meta_gradient(drawn)
    found = [value.grad for value in learner.parameters()]
    _, first, _, second, _ = learner.backbone
    head, (body, last) = learner.classifier, learner.gate
    kept = torch.tensor([1.0, 1, 0, 1, 1, 0, 1])
    phi = [first.weight, first.bias, second.weight, second.bias, head.weight * kept[:, None], head.bias * kept]

    def logits(x: Tensor, phi: list[Tensor]) -> Tensor:
        h = linear(linear(x, *phi[:2]).tanh(), *phi[2:4]).tanh() * last(body(x)).sigmoid()
        return linear(h, *phi[4:])

    for x, label in zip(drawn.tasks.support.x.flatten(0, 1), [5, 5, 5, 2, 2, 2], strict=True):
        steps = torch.autograd.grad(-logits(x[None], phi)[0].log_softmax(0)[label], phi, create_graph=True)
        phi = [value - 0.4 * step for value, step in zip(phi, steps, strict=True)]
    x = torch.cat([drawn.tasks.query.x.flatten(0, 1), drawn.remembered.x])
    loss = -(logits(x, phi).log_softmax(1) * one_hot(torch.tensor([5, 5, 2, 2, 0, 5, 6, 2]), 7)).sum(1).mean()
    expected = torch.autograd.grad(loss, list(learner.parameters()))
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(found, expected, strict=True))
    assert not torch.allclose(loss, ANML(two_layers(), 7, "head", **OF_OML).meta_loss(drawn)[0])


def test_a_network_whose_images_need_a_batch_is_not_moved_by_one_at_a_time() -> None:
    net = nn.Sequential(BatchNorm(4, "running"))
    net.out_features = 4  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"algo.moves=all steps with one image at a time, .* set bn=none"):
        ANML(net, 7, "all", **OF_OML)


def of_fit(**more: Any) -> dict[str, Any]:
    return {"inner_lr": 0.1, "passes": 3, "batch_size": 2, "inner_optimizer": "momentum", "task_chunk": 1} | more


def two_tasks(ways: int = 3) -> list[Examples]:
    g = torch.Generator().manual_seed(5)
    return [Examples(torch.randn(7, 4, generator=g), torch.randint(ways, (7,), generator=g)) for _ in range(2)]


def learn_both(learner: Any, ways: int = 3) -> list[Any]:
    """What is known before the first, between, and after the second of two tasks."""
    states = [learner.eval().start_stream(2 * ways)]
    for number, (x, y) in enumerate(two_tasks(ways)):
        classes = range(number * ways, (number + 1) * ways)
        states.append(learner.learn_task(states[-1], Examples(x, y + classes.start), classes))
    return states


@pytest.mark.usefixtures("doubles")
def test_a_first_column_is_the_plain_network_and_stays_as_it_is_bit_for_bit() -> None:
    column, plain = (
        Progressive(two_layers(), 7, lateral=True, **of_fit()),
        FineTuneInTurn(two_layers(), 7, "all", "task", **of_fit()),
    )
    states, others, x = learn_both(column), learn_both(plain), torch.randn(5, 4)
    first, after = (column.answer_task(state, x)[:, :3] for state in states[1:])
    assert torch.allclose(first, plain.answer_task(others[1], x)[:, :3], atol=1e-13)
    assert torch.equal(first, after)
    assert not torch.allclose(*(plain.answer_task(state, x)[:, :3] for state in others[1:]), atol=1e-3)


@pytest.mark.usefixtures("doubles")
def test_columns_without_connections_are_independent_networks_and_connections_change_the_second() -> None:
    x, answers = torch.randn(5, 4), {}
    for lateral in (False, True):
        learner = Progressive(two_layers(), 7, lateral=lateral, **of_fit())
        answers[lateral] = learner.answer_task(learn_both(learner)[2], x)[:, 3:]
        alone = learner.learn_task(learner.start_stream(3), two_tasks()[1], range(3))
        answers["alone"] = learner.answer_task(alone, x)
    assert torch.equal(answers[False], answers["alone"])
    assert not torch.allclose(answers[True], answers["alone"], atol=1e-3)


@pytest.mark.usefixtures("doubles")
def test_what_a_column_takes_from_another_is_its_layers_input_mixed() -> None:
    """A hand-set connection at the second layer: W (h_2 + A h_1) + b, where h are what the first layers make."""
    learner = Progressive(two_layers(), 7, lateral=True, **of_fit())
    params, x = learner.theta(), torch.randn(5, 4)
    one, two = (learner._make_column(params, earlier, 3) for earlier in (0, 1))
    two = {name: torch.randn_like(value) if "." in name else value for name, value in two.items()}
    assert sorted(name for name in two if name.endswith(".0")) == ["3.0", "head.0"]

    def weights(column: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
        return column[f"backbone.{layer}.weight"], column[f"backbone.{layer}.bias"]

    h_one, h_two = (linear(x, *weights(column, 1)).tanh() for column in (one, two))
    f_one = linear(h_one, *weights(one, 3)).tanh()
    f_two = linear(h_two + h_one @ two["3.0"].T, *weights(two, 3)).tanh()
    expected = linear(f_two + f_one @ two["head.0"].T, two["head.weight"], two["head.bias"])
    three = {name: torch.randn_like(value) for name, value in learner._make_column(params, 2, 3).items()}
    h_three = linear(x, *weights(three, 1)).tanh()
    f_three = linear(h_three + h_one @ three["3.0"].T + h_two @ three["3.1"].T, *weights(three, 3)).tanh()
    mixed = f_three + f_one @ three["head.0"].T + f_two @ three["head.1"].T
    found = learner._run([one, two, three], x)
    assert torch.allclose(found[1], expected, atol=1e-13)
    assert torch.allclose(found[2], linear(mixed, three["head.weight"], three["head.bias"]), atol=1e-13)


@pytest.mark.usefixtures("doubles")
def test_a_head_that_is_fine_tuned_by_single_examples_learns_as_omls_and_the_network_may_move_too() -> None:
    """One pass of single examples, in the order that the fit shuffles them to."""
    once = of_fit(passes=1, batch_size=1, inner_optimizer="sgd")
    head = FineTuneInTurn(two_layers(), 7, "head", "all", **once)
    x, y = two_tasks()[0]
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    oml = OML(two_layers(), 7, **OF_OML | {"test_inner_lr": 0.1})
    states = [one.eval().start_stream(6) for one in (head, oml)]
    asked = torch.randn(5, 4)
    answers = [
        head.answer_task(head.learn_task(states[0], Examples(x, y), range(3)), asked),
        oml.answer_task(oml.learn_task(states[1], Examples(x[order], y[order]), range(3)), asked),
    ]
    assert torch.allclose(*answers, atol=1e-13)
    moved = FineTuneInTurn(two_layers(), 7, "all", "all", **once)
    state = moved.learn_task(moved.eval().start_stream(6), Examples(x, y), range(3))
    assert not torch.equal(state.own.phi["backbone.1.weight"], moved.backbone[1].weight)


@pytest.mark.parametrize("algo", ["progressive", "finetune_in_turn"])
def test_a_network_that_a_task_has_moved_normalises_by_the_averages_of_that_tasks_images(
    settings: Callable[..., Any], algo: str
) -> None:
    """And leaves those of the training, by which the next task's network starts, as they are."""
    parts = build_parts(resolve(settings(f"algo={algo}", "bn=running", "data.k_shot=3")), Path())
    learner, tasks = parts.learner.eval(), next(parts.source.episodes("val", 0, 2))
    state = learner.start_stream(10)
    for number, (x, y) in enumerate(zip(*tasks.support, strict=True)):
        support = Examples(x, y + 5 * number)
        state = learner.learn_task(state, support, range(5 * number, 5 * number + 5))
    net = state.own.every[1] if algo == "progressive" else state.own.phi | state.own.averages
    first = learner.backbone.blocks[0]
    maps = conv2d(support.x, net["backbone.blocks.0.weight"], stride=first.stride, padding=1)
    assert torch.allclose(net["backbone.blocks.1.running_mean"], maps.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(net["backbone.blocks.1.running_var"], maps.transpose(0, 1).flatten(1).var(1), rtol=1e-3)
    assert learner.backbone.blocks[1].running_mean.abs().max() == 0


def test_with_bn_support_the_images_of_all_tasks_are_kept_for_the_statistics(settings: Callable[..., Any]) -> None:
    """Two tasks of three and four images; with other ways of normalising nothing is kept."""
    for bn, kept in (("support", 7), ("running", 0)):
        learner: Any = build_parts(resolve(settings("algo=oml", f"bn={bn}")), Path()).learner.eval()
        state = learner.start_stream(5)
        for images in (3, 4):
            examples = Examples(torch.rand(images, 1, 28, 28), torch.arange(images) % 2)
            state = learner.learn_task(state, examples, range(2))
        assert len(state.support_x) == kept
        assert kept == 0 or torch.equal(state.support_x[3:], examples.x)


@pytest.mark.parametrize("bn", ["running", "support"])
@pytest.mark.parametrize("algo", ["oml", "anml", "progressive", "finetune_in_turn"])
def test_a_task_of_run_offline_is_a_stream_of_one_task(settings: Callable[..., Any], algo: str, bn: str) -> None:
    parts = build_parts(resolve(settings(f"algo={algo}", f"bn={bn}", "algo.task_chunk=0", "data.k_shot=2")), Path())
    learner, batch = parts.learner.eval(), next(parts.source.episodes("val", 0, 2))
    scores = learner.evaluate(batch)
    for task in range(2):
        state = learner.learn_task(
            learner.start_stream(5), Examples(batch.support.x[task], batch.support.y[task]), range(5)
        )
        found = classification(learner.answer_task(state, batch.query.x[task]), batch.query.y[task])
        assert float(found["loss"]) == pytest.approx(float(scores["loss"][task]), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algo=maml"], "MAML does not learn task after task, as run=continual asks: choose algo=oml"),
        (["algo=oml", "run.ways=1", "run.alone=true"], "run.ways=1: a task of one class has but one answer"),
        (["algo=oml", "run.ways=1", "run.task_known=true"], "run.ways=1: a task of one class has but one answer"),
    ],
)
def test_runs_that_make_no_sense_are_refused(
    settings: Callable[..., Any], tmp_path: Path, words: list[str], message: str
) -> None:
    chosen = resolve(settings("run=continual", *words))
    with pytest.raises(ConfigError, match=message):
        build_run(chosen, build_parts(chosen, tmp_path))


def test_a_source_without_streams_is_refused(tmp_path: Path) -> None:
    class Plain(Numbered):
        streams = None  # type: ignore[assignment]

    source = Plain()
    del Plain.streams
    with pytest.raises(ValueError, match="streams"):
        continual(Scripted(1), tmp_path, type("Bare", (), {"info": source.info, "fingerprint": source.fingerprint})())


def test_streams_of_images_have_the_labels_of_their_tasks_and_the_numbers_of_their_classes() -> None:
    """Class number c of a stream holds the images that `examples` says are of class c."""
    source = noise_tasks()
    stream = next(source.streams("train", 3, 4, 2))
    assert stream.support.x.shape == (4, 2, 1, 28, 28)
    assert stream.query.y.sort(1)[0].tolist() == [[0, 0, 1, 1]] * 4
    known = source.gather_examples("train", np.arange(12 * 20))
    for task in range(4):
        for image, label in zip(stream.support.x[task], stream.support.y[task], strict=True):
            same = (known.x == image).flatten(1).all(1).nonzero()[:, 0]
            assert known.y[same].tolist() == [stream.side["classes"][task, label]]


STREAMS = ["run=continual", "data.n_way=2", "data.train.n_way=2", "data.k_shot=2", "logger=none", "run.tasks=3"]
STREAMS += [
    "run.streams=2",
    "run.val_streams=2",
    "run.meta_batch_size=6",
    "run.log_every=1",
    "run.checkpoint_every=1000",
]
STREAMS += ["data.alphabets=10", "data.characters=12", "data.n_query=3", "backbone.hidden=8", "run.val_every=100"]
STREAMS += ["data.within_alphabet=true", "run.tasks=2"]


@pytest.mark.slow
def test_a_stopped_continual_run_goes_on_bit_for_bit_and_leaves_its_matrix_and_picture(
    tmp_path: Path, cache: Path
) -> None:
    words = [*STREAMS, "algo=oml", "run.alone=true", "device=cpu"]
    assert metarun(*words, "run.steps=80", "hydra.run.dir=whole", cwd=tmp_path, cache=cache)[0] == 0
    stop_and_resume(*words, steps=80, folder=tmp_path / "parted", cache=cache)
    found = []
    for name in ("whole", "parted"):
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        kept = [{k: v for k, v in line.items() if k not in ("seconds", "tasks_per_second")} for line in lines]
        matrix = {k: np.nan_to_num(v, nan=-1).tolist() for k, v in np.load(tmp_path / name / "continual.npz").items()}
        found.append((kept, matrix, results_of(tmp_path / name)["test"]))
        assert (tmp_path / name / "continual.png").is_file()
    assert found[0] == found[1]
    results = results_of(tmp_path / "whole")
    assert (results["status"], results["steps"], results["test"]["accuracy"]["n_tasks"]) == ("finished", 80, 2)
    assert results["directions"]["forgetting"] == "lower"
    assert results["directions"]["forward_transfer"] == "higher"
    matrix = np.load(tmp_path / "whole" / "continual.npz")
    assert matrix["accuracy"].shape == (2, 2, 2)
    assert np.isnan(matrix["accuracy"][:, 1, 0]).all()
    assert matrix["accuracy"][:, :, -1].mean() == pytest.approx(results["test"]["accuracy"]["mean"])


@pytest.mark.slow
def test_continual_runs_are_swept_and_compared_and_forget_nothing_in_columns(tmp_path: Path, cache: Path) -> None:
    words = ["-m", *STREAMS, "algo=progressive,finetune_in_turn", "run.steps=0", "run.task_known=true"]
    words += ["algo.inner_lr=0.1", "hydra.sweep.dir=s", "device=cpu"]
    code, out, error = metarun(*words, cwd=tmp_path, cache=cache)
    assert code == 0, error
    runs = [results_of(path.parent) for path in sorted((tmp_path / "s").glob("*/results.json"))]
    assert {(run["algo"], run["steps"]) for run in runs} == {("progressive", 0), ("finetune_in_turn", 0)}
    assert all(run["test"]["forgetting"]["mean"] == 0 for run in runs if run["algo"] == "progressive")
    code, out, error = metarun("compare", "s", cwd=tmp_path, cache=cache)
    assert code == 0, error
    assert "progressive" in out
    assert "finetune_in_turn" in out
