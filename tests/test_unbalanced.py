"""Queries in unbalanced shares, `data.query=dirichlet`: on every source of classes, counted honestly, and told."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from hydra.utils import get_object
from omegaconf import DictConfig
from test_contract import choices, parts_of
from torch import Tensor

from metarun.core import objectives
from metarun.core.errors import ConfigError
from metarun.core.tasks import EpisodeShape
from metarun.core.words import name_queries
from metarun.data.images import ImageTasks
from metarun.settings.check import check

Settings = Callable[..., DictConfig]

TINY = ["data.n_query=2", "data.query=dirichlet", "data.alpha=0.7"]


def test_every_source_of_classes_of_images_or_texts_has_the_settings() -> None:
    known = {name: values for name, values in choices("data").items() if "query" in values}
    assert {"glyphs", "omniglot", "cifar_fs", "folder", "union", "text"} <= set(known)
    for name, values in choices("data").items():
        if issubclass(get_object(values["_target_"]), ImageTasks):
            assert (known[name]["query"], known[name]["alpha"]) == ("balanced", 2.0)


def test_validation_and_test_tasks_are_unbalanced_and_training_tasks_are_not(settings: Settings) -> None:
    source = parts_of(settings("algo=protonet", *TINY)).source
    for split in ("train", "val", "test"):
        y = next(source.episodes(split, 0, 20)).query.y
        counts = torch.stack([(y == label).sum(1) for label in range(5)], 1)
        assert (counts.sum(1) == y.shape[1]).all()
        assert (counts == y.shape[1] // 5).all() == (split == "train")


def test_accuracy_is_the_share_of_a_tasks_queries_that_are_answered_right(settings: Settings) -> None:
    """A learner that always answers class 2 has the share of class 2, task by task: no mean over classes."""
    parts = parts_of(settings("algo=protonet", *TINY))

    def always(params: object, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full(query.shape[:1], 2), 5).float()

    parts.learner.compare = always
    batch = next(parts.source.episodes("test", 0, 12))
    shares = (batch.query.y == 2).float().mean(1)
    assert shares.unique().numel() > 3
    assert torch.allclose(parts.learner.eval().evaluate(batch)["accuracy"], shares)
    found = objectives.classification(torch.eye(5)[[2, 2, 2, 1]], torch.tensor([2, 2, 0, 1]))
    assert found["accuracy"] == 0.75


def test_a_class_that_cannot_hold_all_queries_is_told_with_what_fits() -> None:
    with pytest.raises(ValueError, match=r"n_query=4, which data.query=dirichlet may take from one class, need 22 .*"):
        noise_tasks(test=EpisodeShape(5, 2, 4, alpha=1.0))
    with pytest.raises(ValueError, match=r"Set data.n_query=3 or less"):
        noise_tasks(test=EpisodeShape(5, 2, 4, alpha=1.0))
    noise_tasks(test=EpisodeShape(5, 2, 3, alpha=1.0))
    with pytest.raises(ValueError, match=r"Set data.query=balanced"):
        noise_tasks(test=EpisodeShape(5, 18, 1, alpha=1.0))


def test_tables_say_how_queries_are_shared() -> None:
    assert name_queries(15, 5, "dirichlet(2)") == "75 queries by dirichlet(2)"
    assert name_queries(15, 5, None) == "15 queries a class"
    assert name_queries(15, 0, None) == "15 queries"


def test_a_head_that_assumes_balanced_queries_is_warned_of_unbalanced_ones(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    config = settings("algo=protonet", *TINY)
    check(config)
    assert "assumes" not in caplog.text
    monkeypatch.setattr(get_object(config.algo["_target_"]), "answers", "together, balanced assumed")
    check(config)
    assert "data.query=dirichlet: ProtoNet assumes as many queries of each class" in caplog.text


@pytest.mark.parametrize("value", [0, -1.0])
def test_alpha_is_above_zero(settings: Settings, value: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.alpha"):
        check(settings("algo=protonet", f"data.alpha={value}"))


def test_tasks_of_the_two_kinds_have_their_own_fingerprints() -> None:
    shapes = [EpisodeShape(5, 1, 3), EpisodeShape(5, 1, 3, alpha=2.0), EpisodeShape(5, 1, 3, alpha=1.0)]
    assert len({noise_tasks(test=shape).fingerprint("test", 5) for shape in shapes}) == 3
    assert np.unique([noise_tasks(test=shape).fingerprint("train", 5) for shape in shapes]).size == 1
