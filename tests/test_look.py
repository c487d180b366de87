"""Augmentation against torchvision's own functions, image by image, and as a function of seed and episode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as v2
from conftest import noise_tasks

from metarun.data.images import SPLITS, ImageClasses, ImageTasks
from metarun.data.look import JITTER, WORDS, Look, standard
from metarun.types import EpisodePlan, EpisodeShape


def test_each_image_is_cropped_mirrored_and_recoloured_as_torchvision_does_with_the_same_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    x, uniform = torch.rand(12, 3, 16, 16, generator=generator), torch.rand(12, WORDS, generator=generator)
    for image, numbers, ours in zip(x, uniform, standard(x, uniform), strict=True):
        top, left = (numbers[:2] * 5).long().tolist()  # padded by 16/8 = 2 on each side: offsets 0..4
        theirs = v2.crop(v2.pad(image, [2]), top, left, 16, 16)
        theirs = v2.horizontal_flip(theirs) if numbers[2] < 0.5 else theirs
        brightness, contrast, saturation = (1 - JITTER + 2 * JITTER * numbers[3:]).tolist()
        theirs = v2.adjust_brightness(theirs, brightness)
        theirs = v2.adjust_saturation(v2.adjust_contrast(theirs, contrast), saturation)
        assert torch.allclose(ours, theirs, atol=1e-5)


def augmented(seed: int) -> ImageTasks:
    plain = noise_tasks()
    data = ImageClasses(plain.pixels, np.arange(37) * 20, [f"c{i}" for i in range(36)])
    split = {s: data.names[12 * i : 12 * i + 12] for i, s in enumerate(SPLITS)}
    plan = EpisodePlan(EpisodeShape(5, 1, 2), EpisodeShape(5, 1, 3), seed, 0)
    return ImageTasks(data, split, plan, "none", torch.device("cpu"), Look(augment="standard"))


def test_augmentation_depends_on_seed_and_episode_alone_and_spares_validation_and_test() -> None:
    source = augmented(0)
    batch, alone = source.batch("train", np.arange(5)), source.batch("train", np.array([3]))
    assert torch.equal(batch.query.x[3:4], alone.query.x)
    assert not torch.equal(batch.query.x, noise_tasks().batch("train", np.arange(5)).query.x)
    assert not torch.equal(batch.query.x, augmented(1).batch("train", np.arange(5)).query.x)
    for split in ("val", "test"):
        assert torch.equal(source.batch(split, np.arange(2)).query.x, noise_tasks().batch(split, np.arange(2)).query.x)


def test_a_look_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.augment=heavy is not one of none, standard"):
        Look(augment="heavy")
    with pytest.raises(ValueError, match="must be as many, and std above 0"):
        Look(mean=(0.5,), std=(0.0,))
