from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from scipy import stats

from metarun.core.episodes import draw_bits, draw_distinct, draw_episodes, draw_examples, share_out
from metarun.core.tasks import EpisodeShape

SIZES = np.array([20, 7, 30, 20, 9, 20, 12])
SHAPE = EpisodeShape(3, 2, 4)


def test_an_episode_depends_on_seed_stream_and_its_number_alone() -> None:
    alone = draw_episodes(3, "train", np.array([41]), SIZES, SHAPE)
    among = draw_episodes(3, "train", np.arange(40, 50), SIZES, SHAPE)
    assert all((one[0] == other[1]).all() for one, other in zip(alone, among, strict=True))


def test_seeds_streams_and_numbers_give_other_episodes() -> None:
    base = draw_episodes(0, "train", np.arange(50), SIZES, SHAPE)
    for other in (
        draw_episodes(1, "train", np.arange(50), SIZES, SHAPE),
        draw_episodes(0, "val", np.arange(50), SIZES, SHAPE),
    ):
        assert not (base.support == other.support).all()
    assert len({tuple(row) for row in base.support}) > 45


def test_support_and_query_images_are_distinct_and_belong_to_their_class() -> None:
    drawn = draw_episodes(0, "train", np.arange(500), SIZES, SHAPE)
    for i in range(500):
        assert len(set(drawn.classes[i])) == 3
        rows = [
            *zip(drawn.support_y[i], drawn.support[i], strict=True),
            *zip(drawn.query_y[i], drawn.query[i], strict=True),
        ]
        assert len(set(rows)) == 3 * (2 + 4)
        assert all(image < SIZES[drawn.classes[i][label]] for label, image in rows)
        assert np.bincount(drawn.query_y[i]).tolist() == [4, 4, 4]


UNBALANCED = EpisodeShape(3, 2, 1, alpha=1.0)


def test_unbalanced_queries_keep_their_number_the_classes_and_the_support_set() -> None:
    balanced, drawn = (
        draw_episodes(0, "test", np.arange(400), SIZES, shape) for shape in (EpisodeShape(3, 2, 1), UNBALANCED)
    )
    for name in ("classes", "rotation", "support", "support_y"):
        assert (getattr(balanced, name) == getattr(drawn, name)).all()
    assert drawn.query.shape == balanced.query.shape == (400, 3)
    counts = np.stack([(drawn.query_y == label).sum(1) for label in range(3)], 1)
    assert {0, 1, 2, 3} == set(counts.flatten())
    for i in range(400):
        rows = [*zip(drawn.support_y[i], drawn.support[i], strict=True)]
        rows += zip(drawn.query_y[i], drawn.query[i], strict=True)
        assert len(set(rows)) == 3 * 2 + 3
        for label in np.flatnonzero(counts[i] == 1):  # its first query image is that of the balanced task
            one, other = (d.query[i][d.query_y[i] == label][0] for d in (balanced, drawn))
            assert one == other


@pytest.mark.parametrize("alpha", [0.01, 0.5, 2.0, 50.0])
def test_shares_of_queries_have_the_moments_of_a_dirichlet_distribution(alpha: float) -> None:
    """Of N = 4 classes a share has the mean 1/4 and the variance (N - 1) / (N^2 (N alpha + 1)), and the law of
    Beta(alpha, 3 alpha). 20,000 tasks: five standard errors of a variance are below 6 %."""
    counts = share_out(draw_bits(3, "test", np.arange(20_000), 8), alpha, 10**9)
    assert (counts.sum(1) == 10**9).all()
    assert (counts >= 0).all()
    shares, variance = counts / 1e9, 3 / (16 * (4 * alpha + 1))
    assert shares.mean(0) == pytest.approx(np.full(4, 0.25), abs=5 * (variance / 20_000) ** 0.5)
    assert shares.var(0) == pytest.approx(np.full(4, variance), rel=0.06)
    if alpha > 0.1:  # below, a billion queries are too few to tell shares from 0
        assert stats.kstest(shares[:, 0], stats.beta(alpha, 3 * alpha).cdf).pvalue > 1e-4


def test_the_largest_remainders_get_the_queries_that_rounding_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares .46, .355, .185 of 10 queries are 4.6, 3.55, 1.85: 4, 3 and 1, and the two left go to .85 and .6."""
    monkeypatch.setattr("scipy.special.softmax", lambda x, axis: np.array([[0.46, 0.355, 0.185]]))
    assert share_out(draw_bits(0, "test", np.arange(1), 6), 1.0, 10).tolist() == [[5, 3, 2]]


def test_every_ordered_choice_is_equally_likely() -> None:
    """Ordered pairs out of 4: 12 of them, chi-square over 12,000 draws; a fair sampler fails once in 10,000."""
    pairs = draw_distinct(draw_bits(0, "test", np.arange(12_000), 2), np.full(12_000, 4))
    counts = np.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16)
    assert (counts[[0, 5, 10, 15]] == 0).all()
    assert stats.chisquare(np.delete(counts, [0, 5, 10, 15])).pvalue > 1e-4


def test_a_whole_population_is_a_permutation() -> None:
    rows = draw_distinct(draw_bits(0, "test", np.arange(100), 9), np.full(100, 9))
    assert (np.sort(rows, axis=1) == np.arange(9)).all()


def test_labels_are_given_to_classes_in_random_order() -> None:
    drawn = draw_episodes(0, "train", np.arange(3000), SIZES, EpisodeShape(3, 1, 1))
    assert stats.chisquare(np.bincount(drawn.classes[:, 0], minlength=7)).pvalue > 1e-4


def test_query_order_carries_no_label() -> None:
    drawn = draw_episodes(0, "train", np.arange(3000), SIZES, SHAPE)
    assert stats.chisquare(np.bincount(drawn.query_y[:, 0], minlength=3)).pvalue > 1e-4


def test_a_stream_can_start_anywhere_and_any_batch_size_gives_the_same_tasks() -> None:
    source = noise_tasks()
    whole = next(source.episodes("train", 4, 6))
    halves = [batch for batch, _ in zip(source.episodes("train", 4, 3), range(2), strict=False)]
    assert torch.equal(whole.query.x, torch.cat([half.query.x for half in halves]))


def test_evaluation_tasks_do_not_depend_on_the_training_seed() -> None:
    one, other = noise_tasks(seed=0), noise_tasks(seed=1)
    assert one.fingerprint("test", 50) == other.fingerprint("test", 50)
    assert one.fingerprint("train", 50) != other.fingerprint("train", 50)


def test_every_epoch_of_examples_is_a_permutation_of_its_own() -> None:
    epochs = draw_examples(0, "train", np.arange(5 * 30), 30).reshape(5, 30)
    assert (np.sort(epochs, axis=1) == np.arange(30)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_an_example_depends_on_seed_stream_and_its_place_alone() -> None:
    straight = draw_examples(3, "train", np.arange(100), 30)
    places = np.array([99, 0, 31, 30, 62])
    assert (draw_examples(3, "train", places, 30) == straight[places]).all()
    assert not (draw_examples(4, "train", np.arange(100), 30) == straight).all()
    assert not (draw_examples(3, "val", np.arange(100), 30) == straight).all()


def test_every_example_is_equally_likely_at_every_place() -> None:
    """The first of 6 over 6,000 epochs, chi-square; a fair shuffle fails once in 10,000."""
    first = draw_examples(0, "train", np.arange(6000) * 6, 6)
    assert stats.chisquare(np.bincount(first, minlength=6)).pvalue > 1e-4


def test_labelled_examples_can_start_anywhere_and_in_any_batch_size() -> None:
    source = noise_tasks()
    whole = next(source.examples("train", 230, 20))  # across the end of an epoch of 12 x 20
    parts = [batch for batch, _ in zip(source.examples("train", 230, 5), range(4), strict=False)]
    assert torch.equal(whole.x, torch.cat([part.x for part in parts]))
    assert torch.equal(whole.y, torch.cat([part.y for part in parts]))


@pytest.mark.parametrize(("rotation", "classes"), [("none", 12), ("class", 48), ("random", 12)])
def test_labelled_examples_are_each_image_once_under_its_class(rotation: str, classes: int) -> None:
    source = noise_tasks(rotation=rotation)
    assert source.info.train_classes == classes
    x, y = next(source.examples("train", 0, 20 * classes))
    assert np.bincount(y, minlength=classes).tolist() == [20] * classes
    turns = {
        torch.rot90(image, q, (-2, -1)).numpy().tobytes(): (i, q)
        for i, image in enumerate(source.pixels)
        for q in range(4)
    }
    found = [turns[image.numpy().tobytes()] for image in (255 * x).round().to(torch.uint8)]
    assert len(set(found)) == len(found)
    for label, (image, quarter) in zip(y.tolist(), found, strict=True):
        assert label % 12 == image // 20
        assert quarter in {"none": {0}, "class": {label // 12}, "random": {0, 1, 2, 3}}[rotation]
    assert len({quarter for _, quarter in found}) == (1 if rotation == "none" else 4)
