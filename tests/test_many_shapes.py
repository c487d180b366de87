"""Tasks of many shapes, `data.n_way=[5,50]` and `data.k_shot=by_size`: drawn as Meta-Dataset's, learned and told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise_tasks, quick_if
from hydra.utils import get_object
from omegaconf import DictConfig
from test_contract import ALGOS, choices, meta_step, parts_of
from test_union import union

from metarun.core.batches import MixedBatch, list_batches
from metarun.core.episode_shapes import draw_shaped_episode, share_shots
from metarun.core.episodes import EpisodeIndices
from metarun.core.errors import ConfigError
from metarun.core.tasks import Batch, EpisodeShape
from metarun.core.words import abbreviate_task, name_size, name_task
from metarun.data.embedded import Embedded
from metarun.run.drawn import count_drawn
from metarun.settings.check import check, has_head

Settings = Callable[..., DictConfig]

SHAPE = EpisodeShape(3, 1, 4, most_ways=6, by_size=True)
SIZES = np.array([8, 12, 20, 9, 30, 15, 40])
MANY = ["data.n_way=[2,4]", "data.k_shot=by_size", "data.n_query=3", "data.train.n_way=[2,4]", "data.train.n_query=2"]
FREE = [
    algo
    for algo in ALGOS
    if get_object(choices("algo")[algo]["_target_"]).many_shapes and not has_head(choices("algo")[algo]["_target_"])
]


def draw(index: int, shape: EpisodeShape = SHAPE, groups: list[np.ndarray] | None = None) -> tuple[EpisodeIndices, int]:
    return draw_shaped_episode(0, "test", index, SIZES, shape, groups)


def test_shots_are_those_of_a_worked_example() -> None:
    """Classes of 10 and 40 images, 5 queries each: a half of 5 and 35 is 3 + 18 = 21 support images. With equal chances
    the classes get 1/5 and 4/5 of the 19 beyond one each, rounded down, and this one: 4 and 16."""
    zero = np.zeros((1, 2), np.uint64)
    assert share_shots(np.array([10, 40]), 5, 0.5, zero).tolist() == [4, 16]
    assert share_shots(np.array([20, 20]), 10, 1.0, zero).tolist() == [10, 10]
    assert share_shots(np.array([8, 8]), 4, 1e-9, zero).tolist() == [1, 1]
    assert share_shots(np.array([600] * 10), 10, 1.0, np.zeros((1, 10), np.uint64)).tolist() == [50] * 10  # of 500
    most = np.array([[0, 2**64 - 1]], np.uint64)  # the second class is four times as likely as the first
    assert share_shots(np.array([20, 20]), 10, 1.0, most).tolist() == [4, 10]


def test_a_task_has_distinct_images_of_distinct_classes_and_queries_of_each() -> None:
    ways, shots = set(), set()
    for index in range(200):
        drawn, n_way = draw(index)
        ways.add(n_way)
        assert len(set(drawn.classes[0])) == n_way == drawn.classes.shape[1]
        counts = np.bincount(drawn.query_y[0], minlength=n_way)
        sizes = SIZES[drawn.classes[0]]
        assert (counts == min(4, sizes.min() // 2)).all()
        shots |= set(np.bincount(drawn.support_y[0], minlength=n_way))
        for label in range(n_way):
            seen = [*drawn.support[0][drawn.support_y[0] == label], *drawn.query[0][drawn.query_y[0] == label]]
            assert len(set(seen)) == len(seen)
            assert max(seen) < sizes[label]
    assert ways == {3, 4, 5, 6}
    assert min(shots) == 1
    assert max(shots) > 8


def test_larger_classes_get_more_shots_and_all_images_and_ways_are_as_likely() -> None:
    shots: dict[int, list[int]] = {size: [] for size in SIZES}
    images = np.zeros(8)
    ways = np.zeros(7)
    for index in range(1500):
        drawn, n_way = draw(index)
        ways[n_way] += 1
        for label, size in enumerate(SIZES[drawn.classes[0]]):
            shots[size].append(int((drawn.support_y[0] == label).sum()))
            if size == 8:
                images += np.bincount(drawn.support[0][drawn.support_y[0] == label], minlength=8)
    means = [np.mean(shots[size]) for size in sorted(shots)]
    assert means == sorted(means)
    assert np.abs(ways[3:] / 1500 - 1 / 4).max() < 0.05  # 4.5 standard deviations
    assert images.std() / images.mean() < 0.1


def test_ways_alone_and_shots_alone_may_vary() -> None:
    counts = {tuple(np.bincount(draw(i, EpisodeShape(2, 3, 2, most_ways=4))[0].support_y[0])) for i in range(40)}
    assert counts == {(3,) * 2, (3,) * 3, (3,) * 4}
    assert {draw(i, EpisodeShape(4, 1, 2, by_size=True))[1] for i in range(20)} == {4}


def test_ways_are_as_many_as_the_alphabet_has_at_most() -> None:
    groups = [np.array([0, 1, 2, 3]), np.array([4, 5, 6])]
    for index in range(50):
        drawn, n_way = draw(index, groups=groups)
        group = next(one for one in groups if drawn.classes[0, 0] in one)
        assert set(drawn.classes[0]) <= set(group)
        assert n_way <= len(group)


def same(one: Batch, other: Batch) -> bool:
    sides = zip((*one.support, *one.query), (*other.support, *other.query), strict=True)
    return one.n_way == other.n_way and all(torch.equal(a, b) for a, b in sides)


def test_a_task_depends_on_its_number_alone_whatever_comes_with_it() -> None:
    source = noise_tasks(SHAPE, SHAPE)
    for split in ("train", "test"):
        together = next(source.episodes(split, 3, 4))
        alone = list(islice(source.episodes(split, 3, 1), 4))
        assert isinstance(together, MixedBatch)
        assert all(map(same, together.alone, alone))
        assert [same(together.tasks(i, i + 1), alone[i]) for i in range(4)] == [True] * 4
        assert together.tasks(1, 3).n_tasks == 2
        assert len({one.n_way for one in alone}) > 1
    assert source.fingerprint("test", 3) != source.fingerprint("test", 4)
    inputs = sum(one.support.y.numel() + one.query.y.numel() for one in together.alone)
    assert count_drawn(together) == (inputs, 4)


def test_a_union_and_embeddings_have_the_same_tasks() -> None:
    grey = noise_tasks(SHAPE, SHAPE)
    both = union(size=28, channels=1, a=lambda: grey, b=lambda: noise_tasks(SHAPE, SHAPE, size=28))
    both.plan = grey.plan
    found = both.batch("test", np.arange(4))
    assert isinstance(found, MixedBatch)
    assert same(found.alone[2], grey.batch("test", np.array([1])))
    assert same(found.alone[3], grey.batch("test", np.array([1])))
    assert isinstance(both.batch("test", np.array([3])), Batch)
    embedded = next(Embedded(grey, "test", lambda x: x.flatten(1)).episodes("test", 0, 3))
    plain = next(grey.episodes("test", 0, 3))
    for one, other in zip(list_batches(embedded), list_batches(plain), strict=True):
        assert torch.equal(one.support.x, other.support.x.flatten(2))
        assert torch.equal(one.query.y, other.query.y)


@pytest.mark.parametrize("algo", quick_if(["protonet"], FREE))
def test_every_method_without_a_fixed_head_learns_from_them_task_by_task(settings: Settings, algo: str) -> None:
    """An outer step changes theta; the scores of a batch are those of its tasks alone."""
    parts = parts_of(settings(f"algo={algo}", *MANY))
    before = [value.clone() for value in parts.learner.parameters()]
    metrics = meta_step(parts, 0)
    assert torch.isfinite(metrics["loss"])
    assert any(not torch.equal(one, two) for one, two in zip(before, parts.learner.parameters(), strict=True))
    batch = next(parts.learner.eval().eval_stream(parts.source, "test", 0, 3))
    torch.manual_seed(0)
    together = parts.learner.evaluate(batch)
    torch.manual_seed(0)
    alone = [parts.learner.evaluate(batch.tasks(i, i + 1)) for i in range(3)]
    for name, score in together.items():
        assert torch.isfinite(score).all()
        assert torch.equal(score, torch.cat([one[name] for one in alone]))


def test_what_is_for_one_shape_is_refused_in_words(settings: Settings) -> None:
    def refused(*words: str) -> str:
        with pytest.raises(ConfigError) as error:
            check(settings(*words))
        return str(error.value)

    assert "data.n_way=[3, 5] must be one number: the chosen algo has a head" in refused(
        "algo=maml", "data.n_way=[3,5]"
    )
    assert "must be a whole number of at least 2 or a range" in refused("algo=protonet", "data.n_way=[5,3]")
    assert "k_shot=many must be" in refused("algo=protonet", "data.k_shot=many")
    assert "MultiTask is for tasks of one shape" in refused("algo=multitask", "data.k_shot=by_size")
    assert "Text is for tasks of one shape" in refused("algo=protonet", "data=text", "data.k_shot=by_size")
    said = "data.query=dirichlet is for tasks of one shape"
    assert said in refused("algo=protonet", "data.k_shot=by_size", "data.query=dirichlet")
    assert "data.labels=fixed is for" in refused("algo=protonet", "data.train.n_way=[3,5]", "data.labels=fixed")
    assert "ContinualRun is for" in refused("algo=oml", "run=continual", "data.train.k_shot=by_size")
    check(settings("algo=maml", "data.k_shot=by_size", "data.n_query=2", "data.train.n_query=2"))
    check(settings("algo=protonet", *MANY))


def test_their_shapes_are_named() -> None:
    assert (name_size([5, 50]), name_size(5), name_size(None)) == ("5-50", 5, None)
    assert name_task([5, 50], "by_size") == "5-50-way shots by class size"
    assert abbreviate_task("5-50", "by_size") == "5-50wby_size"
    assert (name_task(5, 1), abbreviate_task(5, 1), name_task(0, [3, 50])) == ("5-way 1-shot", "5w1s", "3-50-shot")


@pytest.mark.slow
def test_a_run_on_them_is_tested_used_and_drawn(use: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    small = ["data.alphabets=10", "data.characters=12", "backbone.hidden=8", "run.val_tasks=4", "run.test_tasks=6"]
    run = str(tmp_path / "run")
    code, out, err = use(
        "algo=protonet", "bn=running", *MANY, *small, "run.steps=2", "logger=none", f"hydra.run.dir={run}"
    )
    assert code == 0, out + err
    code, out, err = use(
        "eval", run, "algo=protonet,bd_cspn", "data.k_shot=1,by_size", "run.test_tasks=6", "--pictures"
    )
    assert code == 0, out + err
    assert "2-4-way shots by class size" in out
    assert "2-4-way 1-shot" in out
    assert (tmp_path / "run" / "evals").is_dir()
    code, out, err = use("compare", run)
    assert code == 0, out + err
