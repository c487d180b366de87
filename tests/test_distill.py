"""Distillation in float64: what a generation descends, how one follows another, and a task's logistic regression."""

from __future__ import annotations

import copy
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import noise_tasks
from scipy.optimize import minimize
from test_gradients import conv4
from test_metric import Identity, logits
from test_pretraining import examples

from metarun.algos.base.stages import StageBatch
from metarun.algos.transfer.distill import Distill

pytestmark = pytest.mark.usefixtures("doubles")

ALPHA, TEMPERATURE, C = 0.3, 4.0, 0.4


def learner(bn: str = "transductive", steps: int = 4) -> Distill:
    return Distill(conv4(bn), 12, steps, 2, ALPHA, TEMPERATURE, C, 1.0, 300, "auto", 1)


def network(one: Distill) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in one.named_parameters()}


@pytest.mark.parametrize("bn", ["transductive", "running"])
def test_a_student_starts_anew_and_follows_labels_and_teacher(bn: str) -> None:
    one = learner(bn).train()
    start = network(one)
    optims = {"outer": torch.optim.Adam(one.parameters(), 0.01)}
    plain = one.meta_step(StageBatch(examples(), 0, True), optims)
    assert set(plain) == {"loss", "accuracy"}
    teacher, (x, y) = copy.deepcopy(one), examples()
    one.meta_step(StageBatch(examples(), 1, True), optims)
    assert {state["step"].item() for state in optims["outer"].state.values()} == {1}  # the optimizer's memory is new

    student = learner(bn).train()  # by hand, from the same start
    student.load_state_dict(start, strict=False)
    said, taught = student(x), teacher(x).detach()
    softened = F.softmax(taught / TEMPERATURE, 1)
    distance = (softened * (softened.log() - F.log_softmax(said / TEMPERATURE, 1))).sum(1).mean() * TEMPERATURE**2
    optim = torch.optim.Adam(student.parameters(), 0.01)
    (ALPHA * F.cross_entropy(said, y) + (1 - ALPHA) * distance).backward()
    optim.step()
    for name, value in network(student).items():
        assert torch.allclose(value, network(one)[name], atol=1e-9)


def test_generations_share_the_steps_and_a_run_goes_on_in_its_own() -> None:
    def stages(step: int, steps: int, count: int) -> list[int]:
        stream = learner(steps=steps).train_stream(noise_tasks(), step, 8)
        return [next(stream).stage for _ in range(count)]

    assert stages(0, 5, 5) == [0, 0, 0, 1, 1]
    assert stages(3, 5, 2) == [1, 1]
    assert stages(0, 1, 1) == [0]


def test_generations_read_one_stream_of_images() -> None:
    source = noise_tasks()
    drawn = islice(learner(steps=4).train_stream(source, 0, 8), 4)
    for batch, images in zip(drawn, islice(source.examples("train", 0, 8), 4), strict=True):
        assert torch.equal(batch.drawn.x, images.x)


def test_a_student_learns_nothing_from_a_teacher_that_is_as_it_is() -> None:
    one = learner().train()
    one.generation.number += 1  # its teacher's weights are those that it starts from
    _, metrics = one.meta_loss(StageBatch(examples(), 1, True))
    assert metrics["distance"].abs() < 1e-12


def test_a_tasks_head_is_logistic_regression_on_embeddings_of_length_one() -> None:
    rng = np.random.default_rng(0)
    support, query, y = rng.normal(size=(6, 4)), rng.normal(size=(5, 4)), np.array([0, 1, 2, 2, 1, 0])
    x, z = (torch.tensor(rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in (support, query))

    def objective(head: np.ndarray) -> float:
        weight = torch.tensor(head.reshape(3, 5))
        loss = F.cross_entropy(F.linear(x, weight[:, :4], weight[:, 4]), torch.tensor(y))
        return float(loss + weight.square().sum() / (2 * C * len(y)))

    best = torch.tensor(minimize(objective, np.zeros(15), tol=1e-12).x.reshape(3, 5))
    one = Distill(Identity(4), 12, 4, 2, ALPHA, TEMPERATURE, C, 1.0, 300, "auto", 1)
    found = logits(one, support.tolist(), y.tolist(), query.tolist())
    assert torch.allclose(found, F.linear(z, best[:, :4], best[:, 4]), atol=1e-4)
