"""Images as functions: the pixels of tasks are the images' own, and a picture puts them back where they were."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from PIL import Image

from metarun.core.tasks import EpisodePlan, EpisodeShape, Prediction
from metarun.data.completion import Completion
from metarun.report.figures.completions import GAP, IMAGE_SIDE, TITLE_HEIGHT, draw_completions


def completion(k_shot: int = 10, n_query: int | None = None, most: int | None = None) -> Completion:
    """Of random images, every pixel of which is asked for or known unless `n_query` says otherwise."""
    images = noise_tasks()
    rest = int(np.prod(images.info.input_shape[1:])) - (most or k_shot)
    shape = EpisodeShape(0, k_shot, rest if n_query is None else n_query, most)
    plan = EpisodePlan(shape, shape, 0, 0)
    return Completion(plan, torch.device("cpu"), lambda name, plan: images, "noise")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_known_and_asked_pixels_are_those_of_the_splits_images(split: str) -> None:
    source = completion()
    batch = source.batch(split, np.arange(3, 6))
    height, width = source.info.facts["pixels"]
    images = source.source.gather_plain_images(split, np.arange(3, 6))
    assert 0 <= images.min() < images.max() <= 1
    for task in range(3):
        again = torch.full_like(images[task], torch.nan)
        for side in batch[:2]:
            row = ((side.x[task, :, 0] + 1) / 2 * height).long()
            column = ((side.x[task, :, 1] + 1) / 2 * width).long()
            assert torch.isnan(again[:, row, column]).all()  # no pixel is asked for twice
            again[:, row, column] = side.y[task].T
        assert torch.equal(again, images[task])


def test_tasks_are_a_function_of_their_number() -> None:
    source = completion(k_shot=3, n_query=20, most=9)
    stream = source.episodes("train", 0, 2)
    batches = [next(stream) for _ in range(4)]
    assert torch.equal(next(source.episodes("train", 6, 2)).query.y, batches[3].query.y)
    shots = {next(source.episodes("train", first, 1)).support.x.shape[1] for first in range(60)}
    assert shots == set(range(3, 10))
    assert source.fingerprint("test", 5) == completion(k_shot=3, n_query=20, most=9).fingerprint("test", 5)
    assert source.fingerprint("test", 5) != source.fingerprint("val", 5)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_each_task_of_a_meta_batch_shows_pixels_of_its_own(split: str) -> None:
    """Ten out of 784: two tasks that share one of them are common, two that share all do not occur by chance."""
    known = completion().batch(split, np.arange(5)).support.x
    assert len({frozenset(map(tuple, places)) for places in known.tolist()}) == 5


def test_more_points_than_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has \d+ pixels; set data.train.n_query=\d+"):
        completion(k_shot=10, n_query=100000)


def test_the_picture_shows_given_mean_deviation_and_truth() -> None:
    source = completion(k_shot=20)
    batch = source.batch("test", np.arange(2))
    height, width = source.info.facts["pixels"]
    png = draw_completions(batch, Prediction(torch.ones_like(batch.query.y), torch.ones_like(batch.query.y)))
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    scale = IMAGE_SIDE // max(height, width)

    def shown(row: int, column: int) -> np.ndarray:
        top, left = TITLE_HEIGHT + row * (height * scale + GAP), GAP + column * (width * scale + GAP)
        return sheet[top : top + height * scale : scale, left : left + width * scale : scale] / 255

    image = source.source.gather_plain_images("test", np.arange(2))[1].permute(1, 2, 0).numpy()
    assert np.allclose(shown(1, 3), image, atol=1 / 255)
    known = (shown(1, 0) != np.array([140, 178, 230]) / 255).any(-1)
    assert known.sum() == 20
    assert np.allclose(shown(1, 0)[known], np.broadcast_to(image, (height, width, 3))[known], atol=1 / 255)
    assert np.allclose(shown(1, 1)[~known], 1)
    assert np.allclose(shown(1, 1)[known], np.broadcast_to(image, (height, width, 3))[known], atol=1 / 255)
