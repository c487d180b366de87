"""Several sources as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from omegaconf import DictConfig
from torch import Tensor

from metarun.core.episodes import EpisodeIndices
from metarun.core.errors import ConfigError
from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.core.words import join_sources
from metarun.data.augment import Look
from metarun.data.files.splits import SPLITS
from metarun.data.images import ImageClasses, ImageTasks
from metarun.data.resize import Resized
from metarun.data.union import Union, check_apart
from metarun.run.by_source import estimate_by_source
from metarun.settings.build import build_source
from metarun.settings.resolve import resolve

PLAN = EpisodePlan(EpisodeShape(5, 1, 2), EpisodeShape(5, 1, 3), 0, 0)
OTHERS = (36, 48, 60)  # numbers that no class has unless it is asked to


class One(ImageTasks):
    world = "shared"


class Two(ImageTasks):
    world = "shared"


def grey() -> ImageTasks:
    return noise_tasks()


def coloured(
    kind: type[ImageTasks] = ImageTasks, firsts: tuple[int, int, int] = (0, 12, 24), size: int = 16
) -> ImageTasks:
    """36 classes: the 12 that train, the 12 that validate and the 12 that test are numbered from `firsts`."""
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(rng.integers(0, 256, (36 * 20, 3, size, size), np.uint8))
    names = [f"c{first + i:02d}" for first in firsts for i in range(12)]
    data = ImageClasses(pixels, np.arange(37) * 20, names)
    split = {s: data.names[12 * i : 12 * i + 12] for i, s in enumerate(SPLITS)}
    return kind(data, split, PLAN, "none", torch.device("cpu"), Look((0.5,), (0.5,)))


def union(size: int = 28, channels: int = 3, **sources: Callable[[], ImageTasks]) -> Union:
    return Union(PLAN, lambda name: sources[name](), list(sources), size, channels)


class Numbered:
    """A source of CIFAR-100 whose files number their classes."""

    def __init__(self, world: str) -> None:
        self.classes = {split: {f"{world}/{split}"} for split in ("train", "val", "test")}


class Told(ImageTasks):
    """Says of each class of a task how bright its first image is."""

    def describe_tasks(self, split: str, drawn: EpisodeIndices) -> Mapping[str, Tensor]:
        return {"brightness": torch.stack([self.first[split][row] for row in torch.from_numpy(drawn.classes)])}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.first = {s: torch.arange(12.0) + 100 * len(s) + args[0].pixels.shape[1] for s in SPLITS}


def test_what_is_known_of_tasks_comes_with_them_where_each_source_knows_it() -> None:
    members = {"one": lambda: coloured(Told), "two": lambda: coloured(Told, OTHERS)}
    batch = union(**members).batch("test", np.arange(4))
    own = {name: member().batch("test", np.arange(2)).side["brightness"] for name, member in members.items()}
    expected = torch.stack([own["one"][0], own["two"][0], own["one"][1], own["two"][1]])
    assert torch.equal(batch.side["brightness"], expected)
    assert not union(one=members["one"], two=lambda: coloured(Two, OTHERS)).batch("test", np.arange(4)).side


def test_what_is_known_of_tasks_must_have_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vectors of two files of descriptions."""
    told = iter((2, 3))

    def member(colours: Any = None) -> Any:
        made, size = coloured(Told, *([colours] if colours else [])), next(told)
        known = made.describe_tasks
        made.describe_tasks = lambda *drawn: {n: v[..., None].expand(*v.shape, size) for n, v in known(*drawn).items()}
        return made

    both = union(one=member, two=lambda: member(OTHERS))
    with pytest.raises(ValueError, match=r"\['one', 'two'\] tell brightness of several sizes, .*2.* and .*3"):
        both.batch("test", np.arange(4))
    assert both.batch("test", np.arange(0, 4, 2)).side["brightness"].shape[-1] == 2


def test_sources_that_may_share_classes_without_names_are_refused() -> None:
    members = {"cifar_fs": Numbered("cifar100"), "fc100": Numbered("cifar100, numbered by fc100")}
    with pytest.raises(
        ValueError, match=r"it is not known whether cifar_fs and fc100 share classes: files of cifar100"
    ):
        check_apart(members, "leave one out")


def test_the_scores_of_a_test_are_told_source_by_source_too() -> None:
    """Tasks 0, 2, 4 are of the first source, and fitting their images to a network changes nothing of that."""
    both = union(grey=grey, coloured=coloured)
    scores = {"accuracy": np.array([0.9, 0.1, 0.8, 0.3, 0.7]), "loss": np.arange(5.0)}
    for source in (both, Resized(both, (1, 14, 14), None)):
        found = estimate_by_source(source, scores)["by_source"]
        assert {name: one["accuracy"]["mean"] for name, one in found.items()} == {
            "grey": pytest.approx(0.8), "coloured": pytest.approx(0.2)
        }  # fmt: skip
        assert [one["loss"]["n_tasks"] for one in found.values()] == [3, 2]
    assert found["grey"]["loss"]["ci95"] == pytest.approx(2 / 3**0.5 * 4.3027, rel=1e-4)  # Student's t of 2 degrees
    assert join_sources("accuracy", found).startswith("grey 80.00 % ± ")
    assert estimate_by_source(grey(), scores) == estimate_by_source(both, {"loss": np.arange(3.0)}) == {}


def test_tasks_alternate_between_the_sources_and_are_their_own() -> None:
    batch = union(grey=grey, coloured=coloured).batch("val", np.arange(3, 8))
    assert batch.support.x.shape == (5, 5, 3, 28, 28)
    for place, index in enumerate(range(3, 8)):
        own = (grey if index % 2 == 0 else coloured)().batch("val", np.array([index // 2]))
        assert torch.equal(batch.query.y[place], own.query.y[0])
        if index % 2 == 0:
            assert torch.equal(batch.query.x[place], own.query.x[0].expand(-1, 3, -1, -1))


def test_a_task_has_the_names_of_its_own_source() -> None:
    both = union(grey=grey, coloured=coloured, other=lambda: coloured(firsts=OTHERS))
    for index in range(5, 11):
        name, own = list(both.members.items())[index % 3]
        assert both.labels("val", index) == [f"{name}: {label}" for label in own.labels("val", index // 3)]


@pytest.mark.parametrize("trained", [(), (0,), (1,), (0, 1)])
def test_a_union_says_that_it_trains_on_val_where_any_of_its_sources_does(trained: tuple[int, ...]) -> None:
    def opened(number: int, make: Callable[[], ImageTasks]) -> Callable[[], ImageTasks]:
        def made() -> ImageTasks:
            source = make()
            source.info.facts["trainval"] = number in trained  # type: ignore[index]
            return source

        return made

    both = union(grey=opened(0, grey), coloured=opened(1, coloured))
    assert both.info.facts["trainval"] == bool(trained)
    assert {name: facts["trainval"] for name, facts in both.info.facts["sources"].items()} == {
        "grey": 0 in trained, "coloured": 1 in trained,
    }  # fmt: skip


def test_images_are_scaled_to_the_common_size_and_colours_become_gray_where_asked() -> None:
    both = union(size=8, channels=1, grey=grey, coloured=coloured)
    batch = both.batch("train", np.arange(2))
    assert both.info.input_shape == (1, 8, 8)
    assert batch.support.x.shape == (2, 5, 1, 8, 8)
    own = coloured().batch("train", np.array([0])).support.x[0]
    assert torch.allclose(batch.support.x[1].mean(), own.mean(), atol=0.02)


def test_a_source_alone_gives_its_own_tasks() -> None:
    alone = union(size=16, coloured=coloured).batch("test", np.arange(4))
    assert torch.equal(alone.query.x, coloured().batch("test", np.arange(4)).query.x)


def test_fingerprint_and_split_hash_depend_on_every_source() -> None:
    one, two = union(a=grey, b=coloured), union(a=grey, b=lambda: coloured(firsts=OTHERS))
    assert one.fingerprint("test", 10) == union(a=grey, b=coloured).fingerprint("test", 10)
    assert len({one.fingerprint("test", n) for n in range(2, 6)}) == 4
    assert one.info.split_sha256 != two.info.split_sha256
    assert one.info.facts["classes"] == {"train": 24, "val": 24, "test": 24}


@pytest.mark.parametrize("the_other_way_round", [False, True])
@pytest.mark.parametrize(("one", "two"), [*combinations(SPLITS, 2)])
def test_a_class_that_one_source_uses_earlier_than_another_is_refused(
    one: str, two: str, the_other_way_round: bool
) -> None:
    """Of two splits the one that comes first in train, val, test; all other classes of the source are its own."""
    firsts = dict(zip(SPLITS, OTHERS, strict=True)) | {one: 12 * SPLITS.index(two)}
    sources = {"a": lambda: coloured(One), "b": lambda: coloured(Two, tuple(firsts.values()))}
    if the_other_way_round:
        sources = dict(reversed(sources.items()))
    said = f"b uses 12 classes to {one} on that a has in {two}, shared/c{firsts[one]} among them"
    with pytest.raises(ValueError, match=said):
        union(**sources)


def test_sources_with_classes_of_their_own_or_alike_in_every_split_go_together() -> None:
    union(a=lambda: coloured(One), b=lambda: coloured(Two, OTHERS))
    union(a=lambda: coloured(One), b=lambda: coloured(Two))
    union(a=lambda: coloured(One), b=grey)  # classes of another world, whatever their names


def test_shipped_sources_are_opened_by_name_and_an_unknown_one_is_said(
    full: Callable[..., DictConfig], cache: Path
) -> None:
    config = full("data=union", "data.sources=[glyphs]", f"paths.cache={cache}")
    assert build_source(resolve(config), torch.device("cpu")).info.input_shape == (3, 32, 32)
    config.data.sources = ["glyph"]
    with pytest.raises(ConfigError, match=r"there is no data=glyph; did you mean glyphs\? metarun help data lists all"):
        build_source(resolve(config), torch.device("cpu"))


def test_a_union_of_nothing_or_of_the_same_twice_is_refused() -> None:
    for sources in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="must be names of sources, each once"):
            Union(PLAN, lambda name: grey(), sources, 28, 3)
