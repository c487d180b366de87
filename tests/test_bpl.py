"""Strokes, the ink around them, and characters made of them, in float64, where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metarun.algos.generative.bpl import BPL, place_beads, render
from metarun.algos.generative.ink import AREA, Beads, Ink, InkModel
from metarun.algos.generative.stroke_prior import STEPS, StrokePrior
from metarun.algos.generative.strokes import find_strokes, resample, thin, trace
from metarun.core.tasks import Batch, Examples

pytestmark = pytest.mark.usefixtures("doubles")


def drawn(*rows: str) -> np.ndarray:
    return np.array([[letter != "." for letter in row] for row in rows])


def test_a_crossing_is_two_straight_strokes_and_a_corner_one() -> None:
    cross = drawn("...#...", "...#...", "...#...", "#######", "...#...", "...#...", "...#...")
    assert sorted(len(stroke) for stroke in trace(cross)) == [6, 7]
    corner = drawn("#......", "#......", "#......", "#......", "#######")
    assert [len(stroke) for stroke in trace(corner)] == [11]
    ring = drawn("..###..", ".#...#.", "#.....#", "#.....#", ".#...#.", "..###..")
    assert [len(stroke) for stroke in trace(ring)] == [14]


def test_thinned_ink_is_one_pixel_wide_and_as_long_as_before() -> None:
    """Of a thick bar, and of a thick slanted one, along which two pixels in a row are common."""
    bar = np.zeros((12, 20), bool)
    bar[4:8, 2:18] = True
    slanted = np.zeros((16, 16), bool)
    for row in range(2, 14):
        slanted[row, row : row + 2] = True
    for ink, least in ((bar, 12), (slanted, 10)):
        line = thin(ink)
        assert (line & ~ink).sum() == 0
        assert least <= line.sum() <= 16
        assert line.sum(0).max() <= 2
        assert len(trace(line)) == 1


def test_strokes_are_in_the_plane_and_an_empty_image_has_a_point() -> None:
    image = np.zeros((10, 20))
    image[4, 3:17] = 1.0
    (stroke,) = find_strokes(image, 3)
    assert stroke[0] == pytest.approx([-0.65, -0.1])
    assert stroke[-1] == pytest.approx([0.65, -0.1])
    assert resample(stroke, 3)[1] == pytest.approx([0, -0.1])
    (dot,) = find_strokes(np.zeros((10, 20)), 3)
    assert dot.tolist() == [[0, 0]]
    image[[1, 2, 3], 1] = image[7:9, 2:4] = 1
    assert len(find_strokes(image, 3)) == 2  # too short to be one
    assert len(find_strokes(image, 1)) == 1


def test_beads_lie_on_strokes_by_their_lengths() -> None:
    places, owner = place_beads([np.array([[0.0, 0], [3, 0]]), np.array([[0.0, 1], [0, 2]])], 8)
    assert owner.tolist() == [0] * 6 + [1] * 2
    assert places[:6, 0].tolist() == pytest.approx([0, 0.6, 1.2, 1.8, 2.4, 3])


def ink_model(strokes: int = 1, rounds: int = 12, **values: float) -> InkModel:
    model = InkModel(strokes, rounds)
    with torch.no_grad():
        for name, value in values.items():
            getattr(model, name).fill_(value if name == "stray" else math.log(value))
    return model


def ink_of(*images: Tensor) -> Ink:
    return Ink(torch.stack(images), torch.ones(len(images), len(images[0])))


def test_the_bound_is_exact_with_one_bead() -> None:
    """Pixels at b + D b + shift + stroke's shift + pen: along each axis N(b, pen^2 I + (bend^2 |b|^2 + ...) 11')."""
    torch.manual_seed(0)
    model = ink_model(log_pen=0.3, log_bend=0.5, log_shift=0.7, log_stroke=0.2, stray=-60.0)
    bead, pixels = torch.tensor([0.4, -0.3]), torch.randn(5, 2)
    found = model.bound(ink_of(pixels), Beads(bead.expand(1, 1, 2), torch.ones(1, 1, 1)))
    shared = 0.5**2 * bead.square().sum() + 0.7**2 + 0.2**2
    covariance = 0.3**2 * torch.eye(5) + shared
    exact = sum(
        torch.distributions.MultivariateNormal(bead[axis].expand(5), covariance).log_prob(pixels[:, axis])
        for axis in (0, 1)
    )
    assert abs(found.item() - exact.item()) < 1e-10


def test_the_bound_stays_below_the_integral_over_shifts_and_near_it() -> None:
    """Two beads and stray ink, only the whole character moves: the integral is a sum over a fine grid of shifts."""
    torch.manual_seed(1)
    model = ink_model(log_pen=0.15, log_bend=1e-5, log_shift=0.3, log_stroke=1e-5, stray=-1.5)
    beads = torch.tensor([[-0.3, 0.0], [0.4, 0.2]])
    axis = torch.linspace(-1.8, 1.8, 241)
    shift = torch.cartesian_prod(axis, axis)
    cell = (axis[1] - axis[0]) ** 2
    prior = -shift.square().sum(1) / (2 * 0.3**2) - math.log(2 * math.pi * 0.3**2)
    stray = torch.sigmoid(torch.tensor(-1.5))
    for _ in range(4):
        pixels = beads[torch.randint(2, (6,))] + 0.15 * torch.randn(6, 2) + 0.3 * torch.randn(2)
        apart = (pixels - beads[:, None] - shift[:, None, None]).square().sum(-1)  # [shifts, beads, pixels]
        near = torch.exp(-apart / (2 * 0.15**2)).mean(1) / (2 * math.pi * 0.15**2)
        exact = (prior + ((1 - stray) * near + stray / AREA).log().sum(1)).logsumexp(0) + cell.log()
        gap = exact - model.bound(ink_of(pixels), Beads(beads[None], torch.ones(1, 2, 1)))[0, 0]
        assert -1e-6 < gap < 0.6


def test_filled_up_rows_and_other_images_change_nothing() -> None:
    torch.manual_seed(2)
    model, beads = ink_model(2), Beads(torch.rand(3, 4, 2), torch.eye(2).repeat(3, 2, 1))
    pixels = torch.rand(2, 5, 2)
    there = torch.ones(2, 5)
    there[1, 3:] = 0
    other = pixels.clone()
    other[1, 3:] = 9.0
    found, changed = (model.bound(Ink(each, there), beads) for each in (pixels, other))
    assert torch.allclose(found, changed, rtol=1e-9)
    assert torch.allclose(
        found[1:, 2:], model.bound(Ink(pixels[1:, :3], there[1:, :3]), Beads(beads[0][2:], beads[1][2:]))
    )


def test_likelihood_finds_the_law_that_drew_the_ink() -> None:
    """Pen 0.06, shifts of 0.3 and bends of 0.15: each to a fifth, from 150 drawings of a character of one stroke."""
    torch.manual_seed(3)
    places = torch.stack([torch.linspace(-0.5, 0.5, 6), torch.linspace(-0.2, 0.6, 6) ** 2], 1)
    images = []
    for _ in range(150):
        moved = places + places @ (0.15 * torch.randn(2, 2)) + 0.3 * torch.randn(2)
        images.append(moved[torch.randint(6, (20,))] + 0.06 * torch.randn(20, 2))
    model = ink_model(rounds=8, log_stroke=1e-3, stray=-12.0)
    learned = [model.log_pen, model.log_shift, model.log_bend]
    optim = torch.optim.Adam(learned, 0.08)
    for _ in range(50):
        optim.zero_grad()
        (-model.bound(ink_of(*images), Beads(places[None], torch.ones(1, 6, 1))).mean()).backward()
        optim.step()
    assert [value.exp().item() for value in learned] == pytest.approx([0.06, 0.3, 0.15], rel=0.2)


def test_the_density_of_strokes_is_that_of_their_law_and_samples_follow_it() -> None:
    """A stroke's points are jointly Gaussian, by their covariance written out; two strokes count twice."""
    prior = StrokePrior(3)
    with torch.no_grad():
        prior.count.copy_(torch.tensor([0.0, 1.0, -30.0]))
        prior.log_start.fill_(math.log(0.4))
        prior.log_first.fill_(math.log(0.2))
        prior.log_bend.fill_(math.log(0.05))
        prior.keep.fill_(0.8)
    rng = torch.Generator().manual_seed(0)
    n = STEPS + 1
    make = torch.zeros(n, n)  # from the start, the first step and the bends to the steps
    for step in range(STEPS):
        for cause in range(step + 1):
            make[step + 1 :, cause + 1] += 0.8 ** (step - cause)
    make[:, 0] = 1
    std = torch.tensor([0.4, 0.2, *[0.05] * (STEPS - 1)])
    covariance = make @ torch.diag(std**2) @ make.T
    joint = torch.distributions.MultivariateNormal(torch.zeros(n), covariance)
    characters = [prior.sample(rng) for _ in range(300)]
    counts = [len(strokes) for strokes in characters]
    assert 0.6 < counts.count(2) / 300 < 0.85
    ends = np.concatenate([np.stack(strokes)[:, -1] for strokes in characters])
    assert ends.std() == pytest.approx(covariance[-1, -1].sqrt().item(), rel=0.1)
    even = [np.stack([np.linspace(a, b, n) for a, b in ((0.1, 0.8), (-0.3, 0.2))], 1)]  # as it is resampled
    logs = torch.tensor([0.0, 1.0, -30.0]).log_softmax(0)
    for strokes in (even, even * 2):
        whole = sum(joint.log_prob(torch.from_numpy(s[:, axis].copy())).item() for s in strokes for axis in (0, 1))
        expected = (whole + logs[len(strokes) - 1].item()) / (2 * n * len(strokes))
        assert prior.log_density([strokes]).item() == pytest.approx(expected, rel=1e-9)


def lines_task() -> Batch:
    """A bar, a slash and a cross, and the same a little moved."""
    bar, slash = (np.array([[-0.6, 0.0], [0.6, 0.0]]), np.array([[-0.5, 0.5], [0.5, -0.5]]))
    characters = [[bar], [slash], [slash, slash * [-1, 1]]]
    support = [render(strokes, 28) for strokes in characters]
    query = [render([stroke * 0.9 + 0.1 for stroke in strokes], 28) for strokes in characters]
    y = torch.arange(3)[None]
    return Batch(*(Examples(torch.stack(images)[None, :, None], y) for images in (support, query)), 3)


@pytest.mark.parametrize("two_way", [True, False])
def test_moved_drawings_are_of_their_characters_and_pictures_are_drawn(two_way: bool) -> None:
    learner = BPL((1, 28, 28), ([0.0], [1.0]), 3, 20, 8, two_way, "auto").eval()
    scores = learner.evaluate(lines_task())
    assert scores["accuracy"].item() == (1 if two_way else pytest.approx(1, abs=0.34))
    assert scores["log_likelihood"].item() > -math.log(AREA)
    pictures = learner.draw(lines_task())
    assert pictures["drawings"].size == (8 * 60 + 12, 3 * 60 + 4)
    assert set(pictures) == {"drawings", "characters"}


def test_normalised_images_are_the_drawings_that_they_were_before() -> None:
    """Of one channel without a normalisation, and of two alike with one."""
    task = lines_task()
    support, query = task.support.x[0], task.query.x[0]

    def answer(shape: tuple[int, ...], look: object, change: object) -> Tensor:
        learner = BPL(shape, look, 3, 20, 8, False, "auto").eval()  # type: ignore[arg-type]
        return learner.predict({}, learner.adapt({}, Examples(change(support), torch.arange(3)), 3), change(query))  # type: ignore[operator]

    plain = answer((1, 28, 28), None, lambda x: x)
    mean, std = torch.tensor([0.3, 0.1])[:, None, None], torch.tensor([0.2, 0.5])[:, None, None]
    both = answer((2, 28, 28), ([0.3, 0.1], [0.2, 0.5]), lambda x: (torch.cat([x, x], 1) - mean) / std)
    assert torch.allclose(both, plain, atol=1e-9)


def test_with_more_shots_a_class_is_a_mixture_of_its_drawings() -> None:
    """The log of the mean of the likelihoods of its two images, scaled."""
    learner = BPL((1, 28, 28), ([0.0], [1.0]), 3, 20, 8, False, "auto").eval()
    task = lines_task()
    x, query = task.support.x[0], task.query.x[0]
    alone = learner.predict({}, learner.adapt({}, Examples(x, torch.arange(3)), 3), query)
    mixed = learner.predict({}, learner.adapt({}, Examples(x, torch.tensor([0, 1, 1])), 2), query)
    assert torch.allclose(mixed[:, 0], alone[:, 0])
    assert torch.allclose(mixed[:, 1], alone[:, 1:].logsumexp(1) - math.log(2))
