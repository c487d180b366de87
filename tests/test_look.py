"""Augmentation against torchvision's own functions, image by image, and as a function of seed and episode."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as v2
from conftest import noise_tasks
from torchvision.transforms.v2 import AutoAugment, RandAugment

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data import autoaugment, randaugment
from metarun.data.augment import JITTER, Augment, Look, apply_standard, cut_out
from metarun.data.files.splits import SPLITS
from metarun.data.images import ImageClasses, ImageTasks


def test_each_image_is_cropped_mirrored_and_recoloured_as_torchvision_does_with_the_same_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    x, uniform = torch.rand(12, 3, 16, 16, generator=generator), torch.rand(12, 6, generator=generator)
    for image, numbers, ours in zip(x, uniform, apply_standard(x, uniform), strict=True):
        top, left = (numbers[:2] * 5).long().tolist()  # padded by 16/8 = 2 on each side: offsets 0..4
        theirs = v2.crop(v2.pad(image, [2]), top, left, 16, 16)
        theirs = v2.horizontal_flip(theirs) if numbers[2] < 0.5 else theirs
        brightness, contrast, saturation = (1 - JITTER + 2 * JITTER * numbers[3:]).tolist()
        theirs = v2.adjust_brightness(theirs, brightness)
        theirs = v2.adjust_saturation(v2.adjust_contrast(theirs, contrast), saturation)
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_gray_images_take_the_mean_over_colours_of_mean_and_std() -> None:
    look = Look((0.5, 0.4, 0.3), (0.1, 0.2, 0.6), "standard")
    assert look.fit_channels(3) == look
    gray = look.fit_channels(1)
    assert gray.mean == pytest.approx((0.4,))
    assert gray.std == pytest.approx((0.3,))
    assert gray.augment == "standard"
    assert Look((0.5,), (0.1,)).fit_channels(3) == Look((0.5,), (0.1,))
    with pytest.raises(ValueError, match=r"data.mean has 2 numbers for images of 3 channels"):
        Look((0.5, 0.5), (1, 1)).fit_channels(3)


def test_every_operation_of_randaugment_is_torchvisions() -> None:
    """At torchvision's default magnitude, 9 of 30, forwards and backwards, on a batch and image by image."""
    theirs = RandAugment()
    x = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert list(randaugment.OPERATIONS) == list(theirs._AUGMENTATION_SPACE)
    for name, (magnitudes, signed) in theirs._AUGMENTATION_SPACE.items():
        found = magnitudes(31, 32, 32)
        for sign in (1, -1) if signed else (1,):
            size = 0.0 if found is None else sign * float(found[9])
            expected = [theirs._apply_image_or_video_transform(i, name, size, theirs.interpolation, {}) for i in x]
            ours = randaugment.OPERATIONS[name](x, sign * randaugment.MAGNITUDE)
            assert (ours.int() - torch.stack(expected).int()).abs().max() <= 1, name  # a factor's last digit


def test_each_image_draws_its_two_operations_for_itself() -> None:
    """The numbers of image i choose Identity, then operation i: 14 operations, so numbers of i / 14 and a little."""
    x = torch.randint(0, 256, (14, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    uniform = torch.zeros(14, 4)
    uniform[:, 2] = (torch.arange(14) + 0.5) / 14
    uniform[1::2, 3] = 0.9  # forwards
    out = randaugment.randaugment(x, uniform)
    for i, operation in enumerate(randaugment.OPERATIONS.values()):
        sign = 1 if i % 2 else -1
        assert torch.equal(out[i], operation(x[i : i + 1], sign * randaugment.MAGNITUDE)[0])


def test_autoaugment_is_torchvisions_pair_for_pair() -> None:
    """Each pair with both operations applied, forwards and backwards, against torchvision's own function of each."""
    theirs = AutoAugment()
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, pair in enumerate(theirs._policies):
        numbers = [(number + 0.5) / 25, 0.0, 0.7, 0.0, 0.7]  # applied, forwards
        ours = autoaugment.autoaugment(x, torch.tensor([numbers, [*numbers[:2], 0.2, 0.0, 0.2]]))
        for i, sign in enumerate((1, -1)):
            image = x[i]
            for name, probability, level in pair:
                if not probability:
                    continue
                magnitudes, signed = theirs._AUGMENTATION_SPACE[name]
                found = magnitudes(10, 32, 32)
                size = 0.0 if found is None else float(found[level]) * (sign if signed else 1)
                image = theirs._apply_image_or_video_transform(image, name, size, theirs.interpolation, {})
            near = (ours[i].int() - image.int()).abs() <= 2  # a factor's last digit, which the second operation moves
            assert near.float().mean() > 0.99, pair


def test_autoaugment_applies_an_operation_with_its_probability() -> None:
    """Pair 6 is Equalize with .4, then Rotate with .8: numbers above leave the image as it is."""
    x = torch.randint(0, 200, (4, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = torch.tensor([[5.5 / 25, first, 0.7, second, 0.7] for first in (0.39, 0.41) for second in (0.79, 0.81)])
    turn, equalise = (autoaugment.OPERATIONS[name] for name in ("Rotate", "Equalize"))
    expected = turn(equalise(x[:1], 0), 8 / 9), equalise(x[1:2], 0), turn(x[2:3], 8 / 9), x[3:]
    assert torch.equal(autoaugment.autoaugment(x, drawn), torch.cat(expected))


def test_cutout_covers_a_square_of_half_the_side_around_any_pixel() -> None:
    """Of 8x8 images 4x4 pixels: around (4, 4), whole; around the first pixel, the quarter that lies inside."""
    x = torch.ones(3, 2, 8, 8)
    for covered, inside in zip(
        cut_out(x, torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.99, 0.3]])),
        ((slice(2, 6), slice(2, 6)), (slice(0, 2), slice(0, 2)), (slice(5, 8), slice(0, 4))),
        strict=True,
    ):
        expected = torch.ones(2, 8, 8)
        expected[:, inside[0], inside[1]] = 0
        assert torch.equal(covered, expected)


@pytest.mark.parametrize(("height", "side"), [(7, 2), (9, 4), (10, 4), (11, 4), (13, 6)])
def test_cutout_covers_an_even_number_of_rows_and_columns_where_a_half_is_none(height: int, side: int) -> None:
    covered = cut_out(torch.ones(1, 1, height, height + 3), torch.tensor([[0.5, 0.5]])) == 0
    assert covered.any(3).sum() == covered.any(2).sum() == side


def augmented(seed: int, augment: str, views: int = 1) -> ImageTasks:
    plain = noise_tasks()
    data = ImageClasses(plain.pixels, np.arange(37) * 20, [f"c{i}" for i in range(36)])
    split = {s: data.names[12 * i : 12 * i + 12] for i, s in enumerate(SPLITS)}
    plan = EpisodePlan(EpisodeShape(5, 1, 2), EpisodeShape(5, 1, 3), seed, 0)
    return ImageTasks(data, split, plan, "none", torch.device("cpu"), Look(augment=augment, views=views))


@pytest.mark.parametrize("augment", get_args(Augment)[1:])
def test_augmentation_depends_on_seed_and_episode_alone_and_spares_validation_and_test(augment: str) -> None:
    source = augmented(0, augment)
    batch, alone = source.batch("train", np.arange(5)), source.batch("train", np.array([3]))
    assert torch.equal(batch.query.x[3:4], alone.query.x)
    assert not torch.equal(batch.query.x, noise_tasks().batch("train", np.arange(5)).query.x)
    assert not torch.equal(batch.query.x, augmented(1, augment).batch("train", np.arange(5)).query.x)
    for split in ("val", "test"):
        assert torch.equal(source.batch(split, np.arange(2)).query.x, noise_tasks().batch(split, np.arange(2)).query.x)


@pytest.mark.parametrize("augment", get_args(Augment)[1:])
def test_every_image_of_a_task_is_augmented_by_draws_of_its_own(augment: str) -> None:
    """Where all images are one picture, no two of what three tasks are made of are alike, support and query images
    together: 3 x (5 + 10)."""
    source = augmented(0, augment)
    source.pixels = source.pixels[:1].expand_as(source.pixels)
    batch = source.batch("train", np.arange(3))
    images = torch.cat([batch.support.x, batch.query.x], 1).flatten(0, 1)
    assert len({image.numpy().tobytes() for image in images}) == len(images) == 45


def test_a_look_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"data.augment=heavy is not one of none, standard, randaugment, autoaugment, cutout"
    ):
        Look(augment="heavy")
    with pytest.raises(ValueError, match="must be as many, and std above 0"):
        Look(mean=(0.5,), std=(0.0,))


def test_randaugment_takes_operation_and_sign_from_numbers_of_their_own() -> None:
    x = torch.randint(0, 256, (2, 1, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    turn = randaugment.OPERATIONS["Rotate"]
    number = ([*randaugment.OPERATIONS].index("Rotate") + 0.5) / len(randaugment.OPERATIONS)
    drawn = torch.tensor([[number, 0.2, 0.01, 0.5], [number, 0.8, 0.01, 0.5]])  # the second operation is Identity
    assert torch.equal(
        randaugment.randaugment(x, drawn),
        torch.cat([turn(x[:1], -randaugment.MAGNITUDE), turn(x[1:], randaugment.MAGNITUDE)]),
    )


@pytest.mark.parametrize("augment", ["none", "cutout"])
def test_support_sets_of_tests_have_each_image_and_changed_copies_of_it(augment: str) -> None:
    plain, source, tasks = noise_tasks(), augmented(0, augment, 3), np.arange(4)
    train, test, before = source.batch("train", tasks), source.batch("test", tasks), plain.batch("test", tasks)
    assert train.support.x.shape == plain.batch("train", tasks).support.x.shape
    assert torch.equal(test.query.x, before.query.x)
    views = test.support.x.unflatten(1, (-1, 3))  # [B, S, 3, ...]
    assert torch.equal(views[:, :, 0], before.support.x)
    assert torch.equal(test.support.y.unflatten(1, (-1, 3)), before.support.y[:, :, None].expand(-1, -1, 3))
    assert len({view.numpy().tobytes() for view in views[:, :, 1:].flatten(0, 2)}) == 4 * 5 * 2
    share = (views[:, :, 1:] == 0).float().mean()
    assert share > 0.08 if augment == "cutout" else share < 0.3
    assert torch.equal(source.batch("test", np.array([2])).support.x, test.support.x[2:3])
    other = augmented(1, augment, 3).batch("test", tasks)  # another training seed has the same tests
    assert torch.equal(other.support.x, test.support.x)
    assert source.embedded("test", torch.Tensor.flatten, 1000) is None
