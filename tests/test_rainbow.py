"""data=rainbow: each look once in 56 tasks, and what a look does to a character."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise_tasks

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.rainbow import COLOURS, LOOKS, Rainbow, _take_apart

SHAPE = EpisodeShape(3, 2, 4)


def rainbow(seed: int = 0, size: int = 6) -> tuple[Rainbow, Any]:
    images = noise_tasks(SHAPE, SHAPE, size=size)
    return Rainbow(EpisodePlan(SHAPE, SHAPE, seed, 5), torch.device("cpu"), lambda name, plan: images, "noise"), images


def test_there_are_56_looks_and_each_comes_once_in_56_tasks() -> None:
    source, _ = rainbow()
    assert LOOKS == 56
    assert len({_take_apart(look) for look in range(LOOKS)}) == 56
    for split in ("train", "val", "test"):
        for first in (0, 56):
            named = {source.labels(split, task)[0] for task in range(first, first + 56)}
            assert len(named) == 56


def test_a_task_shows_the_same_characters_under_the_same_labels_in_its_look() -> None:
    """Without colour and turn an image is one of its character's, or means of its fours of pixels, in the middle."""
    source, images = rainbow()
    data, split = images.take_apart()
    batch = next(source.episodes("train", 0, 56))
    assert batch.support.x.shape == (56, 6, 3, 6, 6)
    assert batch.n_way == 3
    names = [name.partition(",")[0] for name in source.labels("train", 0)]
    assert set(names) <= set(split["train"])
    sizes = []
    for task in range(56):
        words = source.labels("train", task)
        assert [name.partition(",")[0] for name in words] == names
        colour = next(c for name, c in COLOURS if f" {name}," in words[0])
        half, turn = "half" in words[0], int(words[0].rpartition(" ")[2]) // 90
        sizes.append(half)
        for x, y in zip(batch.query.x[task], batch.query.y[task], strict=True):
            assert torch.allclose(x, x.amax(0) / max(colour) * torch.tensor(colour)[:, None, None], atol=1e-6)
            plain = torch.rot90(x.amax(0) / max(colour), -turn, (0, 1))
            c = data.names.index(names[y])
            own = data.pixels[data.starts[c] : data.starts[c + 1], 0] / 255
            if half:
                assert plain[0].abs().sum() == 0  # 3x3 in the middle of 6x6
                plain, own = plain[1:4, 1:4], own.reshape(-1, 3, 2, 3, 2).mean((2, 4))
            assert (plain - own).abs().amax((1, 2)).min() < 1e-6
    assert sum(sizes) == 28


def test_single_images_have_all_looks_and_their_characters_labels() -> None:
    source, images = rainbow()
    data, _ = images.take_apart()
    drawn = next(source.examples("train", 0, 3 * 20 * 56))
    assert torch.bincount(drawn.y).tolist() == [20 * 56] * 3
    assert len(drawn.x.flatten(1).unique(dim=0)) == 3 * 20 * 56
    red = drawn.x[:, 1:].abs().amax((1, 2, 3)) == 0
    assert int(red.sum()) == 3 * 20 * 8
    c = data.names.index(source.labels("train", 0)[int(drawn.y[red][0])].partition(",")[0])
    own = data.pixels[data.starts[c] : data.starts[c + 1], 0] / 255
    sums = own.mean((1, 2))  # which a turn leaves as it is; half the size has a quarter of it
    assert min((sums * share - drawn.x[red][0, 0].mean()).abs().min() for share in (1.0, 0.25)) < 1e-6


def test_characters_depend_on_the_seed_those_of_tests_do_not_and_tasks_are_functions_of_their_number() -> None:
    one, again, other = rainbow()[0], rainbow()[0], rainbow(seed=1)[0]
    assert one.fingerprint("train", 3) == again.fingerprint("train", 3) != other.fingerprint("train", 3)
    assert one.fingerprint("test", 3) == other.fingerprint("test", 3) != one.fingerprint("val", 3)
    assert not set(one.characters["test"]) & set(one.characters["train"])
    later = next(one.episodes("train", 7, 2))
    assert torch.equal(later.support.x[0], one.batch("train", np.arange(7, 8)).support.x[0])


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(ValueError, match=r"is not a source of square images; data\.images=omniglot is one"):
        Rainbow(EpisodePlan(SHAPE, SHAPE, 0, 0), torch.device("cpu"), lambda name, plan: object(), "sinusoid")
