"""Multi-task learning in float64: what its losses, its gradients and its new heads are, by hand."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from torch import Tensor, nn

from metarun.algos.base.pretraining import FitSettings
from metarun.algos.transfer.multitask import MultiTask, project_conflicts
from metarun.backbones.mlp import MLP
from metarun.core.batches import merge_sides
from metarun.core.objectives import classification, regression
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples
from metarun.data.sinusoid import Sinusoid

pytestmark = pytest.mark.usefixtures("doubles")

TASKS = 4


def learner(backbone: nn.Module | None = None, tasks: int = TASKS, steps: int = 3, **changed: object) -> MultiTask:
    torch.manual_seed(2)
    own = {"objective": regression, "outputs": 1, "weighting": "equal", "conflicts": "average", "adapts": "head"}
    fit = FitSettings(inner_lr=0.1, test_inner_steps=steps, inner_weight_decay=0.0, engine="auto", task_chunk=0)
    return MultiTask(backbone or MLP((1,), "none", [6, 5]), tasks=tasks, **(own | changed), **fit)  # type: ignore[arg-type]


def sines(shots: int | tuple[int, int] = 3) -> Sinusoid:
    least, most = shots if isinstance(shots, tuple) else (shots, None)
    plan = EpisodePlan(EpisodeShape(0, least, 2, most), EpisodeShape(0, 5, 4), 0, 0)
    return Sinusoid(plan, torch.device("cpu"), [0.1, 5.0], [0.0, 3.0], [-2.0, 2.0])


def drawn(of: MultiTask, n: int, step: int = 0) -> Batch:
    return next(of.train_stream(sines(), step, n))


def plain_gradients(of: MultiTask, batch: Batch) -> list[tuple[int, Tensor, Tensor, Tensor]]:
    """Of each task: its number, its loss, and its loss's gradients by the network's weights and by all heads."""
    found = []
    for number, x, y in zip(batch.side["task"].tolist(), *batch.query, strict=True):
        hidden = x
        for linear in (of.backbone.layers[0], of.backbone.layers[3]):
            hidden = torch.relu(hidden @ linear.weight.T + linear.bias)
        error = hidden @ of.heads.weight[number : number + 1].T + of.heads.bias[number] - y
        loss = error.square().mean()
        parts = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(m.parameters()), retain_graph=True)])
            for m in (of.backbone, of.heads)
        ]
        found.append((number, loss.detach(), *parts))
    return found


def gradient_of(module: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


def test_its_gradients_are_the_tasks_mean_for_the_network_and_each_tasks_own_for_its_head() -> None:
    """And with a single task it is plain training on all of that task's points."""
    for tasks, n in ((TASKS, 3), (1, 1)):
        of = learner(tasks=tasks)
        batch = drawn(of, n, step=1)
        metrics = of.meta_gradient(batch)
        plain = plain_gradients(of, batch)
        assert batch.query.x.shape[:2] == (n, 5)
        assert torch.allclose(metrics["loss"], torch.stack([loss for _, loss, *_ in plain]).mean(), rtol=1e-12)
        for module, place in ((of.backbone, 2), (of.heads, 3)):
            expected = torch.stack([each[place] for each in plain]).mean(0)
            assert (gradient_of(module) - expected).norm() < 1e-12 * expected.norm()
        untouched = set(range(tasks)) - {number for number, *_ in plain}
        assert (of.heads.weight.grad[sorted(untouched)] == 0).all()


def test_conflicting_gradients_lose_what_points_against_the_other() -> None:
    """(1, 0) and (-1, 1) by hand; those that agree, and equal ones, stay as they are."""
    assert project_conflicts(torch.tensor([[1.0, 0.0], [-1.0, 1.0]])).tolist() == [[0.5, 0.5], [0.0, 1.0]]
    assert project_conflicts(torch.tensor([[1.0, 0.2], [0.3, 1.0]])).tolist() == [[1.0, 0.2], [0.3, 1.0]]
    assert project_conflicts(torch.tensor([[1.0, -2.0]] * 3)).tolist() == [[1.0, -2.0]] * 3
    assert project_conflicts(torch.tensor([[1.0, -2.0], [0.0, 0.0]])).tolist() == [[1.0, -2.0], [0.0, 0.0]]


def test_many_gradients_are_projected_one_after_another_as_in_the_papers_algorithm() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(6, 4)
    torch.manual_seed(5)
    order = torch.rand(6, 6).argsort(1)
    expected, met = gradients.clone(), 0
    for i in range(6):
        for j in order[i].tolist():
            against = expected[i] @ gradients[j]
            if j != i and against < 0:
                expected[i] -= against / (gradients[j] @ gradients[j]) * gradients[j]
                met += 1
    torch.manual_seed(5)
    found = project_conflicts(gradients)
    assert met > 8
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    torch.manual_seed(6)
    assert not torch.allclose(project_conflicts(gradients), expected)  # the order counts


def test_pcgrad_changes_the_networks_gradient_and_not_the_heads() -> None:
    """Of two tasks with the same points and opposite values far from what equal heads predict."""
    of, plain = learner(conflicts="pcgrad"), learner()
    for each in (of, plain):
        nn.init.ones_(each.heads.weight)
    batch = drawn(of, 2)
    x, y = batch.query.x[:1].expand(2, -1, -1), torch.tensor([20.0, -30.0])[:, None, None].expand(2, 5, 1)
    batch = batch._replace(query=Examples(x, y))
    of.meta_gradient(batch)
    plain.meta_gradient(batch)
    first, second = (each[2] for each in plain_gradients(of, batch))
    assert first @ second < 0
    sides = [a - (a @ b) / (b @ b) * b for a, b in ((first, second), (second, first))]
    assert torch.allclose(gradient_of(of.backbone), (sides[0] + sides[1]) / 2, rtol=1e-10, atol=1e-12)
    assert torch.allclose(gradient_of(plain.backbone), (first + second) / 2, rtol=1e-10, atol=1e-12)
    assert torch.allclose(gradient_of(of.heads), gradient_of(plain.heads), rtol=1e-12)


@pytest.mark.parametrize(("kind", "factor"), [("squared errors", 1.0), ("cross-entropies", 2.0)])
def test_the_learned_variance_is_least_lossy_at_the_loss_itself(kind: str, factor: float) -> None:
    """(exp(-s) L + s) / 2 is least at exp(s) = L, and exp(-s) L + s / 2 at exp(s) = 2 L."""
    if kind == "squared errors":
        of = learner(weighting="uncertainty")
        batch = drawn(of, TASKS)
    else:
        shape = EpisodeShape(3, 2, 2)
        net = MLP((1, 28, 28), "none", [6])
        of = learner(net, objective=classification, outputs=3, weighting="uncertainty")
        batch = next(of.train_stream(noise_tasks(shape, shape), 0, TASKS))
    with torch.no_grad():
        for number, x, y in zip(batch.side["task"], *batch.query, strict=True):
            rows = slice(number * of.outputs, (number + 1) * of.outputs)
            output = of.backbone(x) @ of.heads.weight[rows].T + of.heads.bias[rows]
            of.log_variances[number] = (factor * of.objective(output, y)["loss"]).log()
    of.meta_gradient(batch)
    assert of.log_variances.grad.abs().max() < 1e-12
    least, plain = of.meta_loss(batch)
    assert plain["loss"] != least
    with torch.no_grad():
        for moved in (0.1, -0.2):
            of.log_variances[1] += moved
            assert of.meta_loss(batch)[0] > least


def test_training_goes_through_the_first_tasks_again_and_again() -> None:
    """With 3 of 4 tasks in an outer step: 0 1 2, then 3 0 1; and the points of a task are always the same."""
    of, source = learner(), sines()
    steps = list(islice(of.train_stream(source, 0, 3), 4))
    numbers = [step.side["task"].tolist() for step in steps]
    assert numbers == [[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]]
    own = merge_sides(source.batch("train", np.arange(TASKS)))
    for step in steps:
        assert torch.equal(step.query.x, own.query.x[step.side["task"]])
        assert torch.equal(step.query.y, own.query.y[step.side["task"]])
    later = next(of.train_stream(source, 2, 3))
    assert torch.equal(later.query.x, steps[2].query.x)
    assert next(of.train_stream(source, 0, 6)).side["task"].tolist() == [0, 1, 2, 3, 0, 1]
    assert torch.isfinite(of.meta_loss(next(of.train_stream(sines((1, 3)), 1, 3)))[0])  # several numbers of shots


def test_a_new_head_starts_at_the_mean_of_all_and_ends_at_the_least_squares_line() -> None:
    x, y = torch.tensor([[-1.0], [0.0], [2.0]]), torch.tensor([[1.0], [0.5], [-2.0]])
    identity = nn.Identity()
    identity.out_features = 1  # type: ignore[assignment]
    queries = torch.tensor([[0.5], [3.0]])
    for steps in (0, 2000):
        of = learner(identity, steps=steps).eval()
        predicted = of.adapt_to(Examples(x, y), 0)(queries)
        slope, start = (
            np.polyfit(x[:, 0], y[:, 0], 1) if steps else (of.heads.weight.mean().item(), of.heads.bias.mean().item())
        )
        assert torch.allclose(predicted, queries * float(slope) + float(start), atol=1e-9)


def test_the_network_stays_unless_all_is_adapted() -> None:
    batch = sines().batch("test", np.arange(1))
    support = Examples(batch.support.x[0], batch.support.y[0])
    moved = {}
    for adapts in ("head", "all"):
        of = learner(adapts=adapts).eval()
        params = of.theta()
        phi = of.adapt(params, support, 0).phi
        moved[adapts] = {name for name, value in params.items() if name in phi and not torch.equal(phi[name], value)}
    assert moved["head"] == set()
    assert moved["all"] == {f"backbone.{name}" for name, _ in learner().backbone.named_parameters()}
