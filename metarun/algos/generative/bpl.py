from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.learner import Learner
from metarun.algos.base.scored import Scored
from metarun.algos.generative.ink import AREA, Beads, Ink, InkModel
from metarun.algos.generative.pictures import draw_rows
from metarun.algos.generative.stroke_prior import StrokePrior
from metarun.algos.generative.strokes import INK, Floats, find_strokes, measure_length, resample, to_plane
from metarun.core.ranges import PositiveInt
from metarun.core.tasks import Batch, Examples, Metrics
from metarun.ops.functional import Params, one_hot

SAMPLES, MOST_ROWS, DENSE, PEN = 6, 15, 60, 0.9
"""In pictures: new drawings of a character, rows at most, points along a stroke, and the pen's radius in pixels."""


class Parsed(NamedTuple):
    """Images of a task as strokes and as ink, and a one-hot [S, N] of the classes of the support set."""

    beads: Beads
    ink: Ink
    classes: Tensor


class BPL(EpisodicLearner):
    """Learns how drawings of a character differ, and what characters are made of; classes are compared by likelihood.

    A generative model of two levels. A type is some strokes from a learned prior, see StrokePrior. A drawing moves the
    character and each of its strokes, and leaves ink around them, see InkModel. The strokes of an image are found from
    the bottom up: its ink is thinned to lines, which a pen follows straight on. A query belongs to the class whose
    support image, taken for the type, makes its ink likeliest, and, `two_way`, whose ink its own strokes make likely.
    Training maximises the likelihood of queries' ink given a support image of their class, and of its strokes under the
    prior; labels tell nothing but which images are of one character. Cross-entropy moves the logits' scale alone.

    What Lake's inference does beyond this: it searches over many parses of an image by random walks and refines the
    best by MCMC against the rendered pixels, keeps five of them with weights, refits each to the query, and has strokes
    of sub-strokes from a library of primitives learned from pens' recorded paths, with relations between strokes
    (starting at, along or at the end of another) and their order and direction. Here are one parse, no primitives,
    strokes that move independently, and ink as independent points instead of rendered pixels, so densities are of
    points and too sure of themselves.

    Shapes: support.x [S, 1, H, W], ink above a normalised 0.5; predicts logits [M, N].
    Args:
        input_shape: of an image; colours are averaged.
        normalisation: of the source.
        strokes: of a character, at most; the longest are kept.
        beads: points along all strokes of a character.
        rounds: of the inference of a drawing's movement, see InkModel.
        two_way: add the support image's likelihood given the query's strokes.
        engine: `auto` or `vectorized`; tasks are computed one by one.
    Reference: Lake, Salakhutdinov, Tenenbaum. Human-level concept learning through probabilistic program induction.
        Science 2015. Two ways of comparing are those of its supplement, section 6.
    """

    many_shapes = False

    def __init__(
        self,
        input_shape: tuple[int, ...],
        normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None,
        strokes: PositiveInt,
        beads: PositiveInt,
        rounds: PositiveInt,
        two_way: bool,
        engine: Literal["auto", "vectorized"],
    ) -> None:
        super().__init__(engine, 1)
        if len(input_shape) != 3:
            raise ValueError(f"BPL reads images, and the inputs are numbers of shape {input_shape}; choose other data")
        self.strokes, self.beads, self.two_way = strokes, beads, two_way
        self.look = normalisation or ((0.0,), (1.0,))
        self.ink, self.types = InkModel(strokes, rounds), StrokePrior(strokes)
        self.log_scale = nn.Parameter(torch.tensor(-3.0))

    meta_gradient = Learner.meta_gradient

    def chunk(self, batch: Batch, n_tasks: int) -> int:
        return 1  # strokes are found outside of torch

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        found = []
        for support_x, support_y, query_x, query_y in zip(*batch.support, *batch.query, strict=True):
            state = self.adapt({}, Examples(support_x, support_y), batch.n_way)
            query = self._parse(query_x)
            there = self.ink.bound(query.ink, state.beads)
            types = self.types.log_density(self._list_strokes(support_x)).mean()
            logits = self._classify(state, query, there.detach())
            same = one_hot(query_y, batch.n_way, there.dtype) @ state.classes.T  # [M, S]
            per_pixel = (there * same).sum() / (same.sum(1) @ query.ink.there.sum(1))
            loss = F.cross_entropy(logits, query_y)
            hit = (logits.argmax(1) == query_y).to(loss.dtype).mean()
            found.append(torch.stack([loss - per_pixel - types, loss, per_pixel, types, hit]))
        total, loss, per_pixel, types, hit = torch.stack(found).mean(0)
        terms = {"loss": loss, "log_likelihood": per_pixel, "log_prior": types, "accuracy": hit}
        return total, {name: value.detach() for name, value in terms.items()}

    def adapt(self, params: Params, support: Examples, n_way: int) -> Parsed:
        return self._parse(support.x)._replace(classes=one_hot(support.y, n_way, support.x.dtype))

    def predict(self, params: Params, state: Parsed, x: Tensor) -> Tensor:
        query = self._parse(x)
        return self._classify(state, query, self.ink.bound(query.ink, state.beads))

    def _score_task(self, params: Params, support: Examples, query: Examples, n_way: int, **facts: Tensor) -> Scored:
        """Score a task of a test, whose queries' strokes are found once for both scores."""
        state, asked = self.adapt(params, support, n_way), self._parse(query.x)
        there = self.ink.bound(asked.ink, state.beads)
        scores = self.score(params, state, self._classify(state, asked, there), query.y)
        same = one_hot(query.y, n_way, state.classes.dtype) @ state.classes.T
        each = (there * same).sum(1) / same.sum(1)
        return Scored(scores | {"log_likelihood": (each / asked.ink.there.sum(1)).mean()}, [])

    @torch.no_grad()
    def draw(self, batch: Batch) -> Mapping[str, Any]:
        """Draw new drawings of each class by its support image and its strokes; and characters from the prior."""
        generator = torch.Generator().manual_seed(0)
        side, rows = int(batch.support.x.shape[-1]), []
        for x in batch.support.x.flatten(0, 1)[:MOST_ROWS]:
            strokes = find_strokes(self._to_pixels(x), self.strokes)
            again = [self._move(strokes, generator) for _ in range(SAMPLES)]
            shown = [torch.from_numpy(self._to_pixels(x)), *(render(s, side) for s in (strokes, *again))]
            rows.append(torch.stack([image.float() for image in shown]))
        types = [render(self.types.sample(generator), side).float() for _ in range(5 * (SAMPLES + 2))]
        made = torch.stack(types).reshape(5, SAMPLES + 2, side, side)
        return {
            "drawings": draw_rows(torch.stack(rows)[:, :, None], given=2),
            "characters": draw_rows(made[:, :, None], given=SAMPLES + 2),
        }

    def _move(self, strokes: list[Floats], generator: torch.Generator) -> list[Floats]:
        """Return the strokes as a new drawing has them."""
        std = self.ink.precisions().rsqrt()[:, None].cpu().double()
        moved = (std * torch.randn(len(std), 2, generator=generator, dtype=torch.float64)).numpy()
        return [each + each @ moved[:2] + moved[2] + moved[3 + s] for s, each in enumerate(strokes)]

    def _classify(self, state: Parsed, query: Parsed, there: Tensor) -> Tensor:
        """Return logits [M, N]: log-likelihoods against ink anywhere, of the support images of a class as a mixture."""
        anywhere = -torch.log(torch.tensor(AREA))
        score = there - anywhere * query.ink.there.sum(1)[:, None]  # [M, S]
        if self.two_way:
            back = self.ink.bound(state.ink, query.beads).T.detach()
            score = score + back - anywhere * state.ink.there.sum(1)
        scaled = self.log_scale.exp() * score
        members = state.classes.T.log()  # minus infinity where an image is of another class
        return (scaled[:, None] + members).logsumexp(-1) - state.classes.sum(0).log()

    def _parse(self, x: Tensor) -> Parsed:
        """Find strokes and ink of images [R, C, H, W]."""
        beads, strokes, ink = [], [], []
        for image in x:
            pixels = self._to_pixels(image)
            found = find_strokes(pixels, self.strokes)
            places, owner = place_beads(found, self.beads)
            beads.append(places)
            strokes.append(np.eye(self.strokes)[owner])
            ink.append(to_plane(np.argwhere(pixels > INK).astype(float), pixels.shape))
        most = max(1, *(len(places) for places in ink))
        filled = np.zeros((len(ink), most, 3))
        for row, places in zip(filled, ink, strict=True):
            row[: len(places), :2], row[: len(places), 2] = places, 1
        filled[:, 0, 2] = 1  # an image without ink has a dot in its middle
        both, all_ink = (torch.from_numpy(np.array(each)).to(x) for each in (filled, beads))
        return Parsed(Beads(all_ink, torch.from_numpy(np.array(strokes)).to(x)), Ink(both[..., :2], both[..., 2]), x)

    def _list_strokes(self, x: Tensor) -> list[list[Floats]]:
        return [find_strokes(self._to_pixels(image), self.strokes) for image in x]

    def _to_pixels(self, image: Tensor) -> Floats:
        """Return an image [C, H, W] in 0..1, its colours averaged: [H, W]."""
        mean, std = (np.array(values)[:, None, None] for values in self.look)
        pixels: Floats = (image.detach().cpu().double().numpy() * std + mean).mean(0)
        return pixels


def place_beads(strokes: list[Floats], n: int) -> tuple[Floats, np.ndarray]:
    """Place n beads on strokes, by their lengths: places [n, 2], and the number of each one's stroke [n]."""
    lengths = np.array([measure_length(stroke) + 1e-6 for stroke in strokes])
    ends = np.round(n * np.cumsum(lengths) / lengths.sum()).astype(int)
    counts = np.diff(ends, prepend=0)
    places = [resample(stroke, count) for stroke, count in zip(strokes, counts, strict=True) if count]
    return np.concatenate(places), np.repeat(np.arange(len(strokes)), counts)


def render(strokes: list[Floats], side: int) -> Tensor:
    """Draw strokes with a round pen: [side, side] in 0..1."""
    points = torch.from_numpy(np.concatenate([resample(stroke, DENSE) for stroke in strokes]))
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    nearest = torch.cdist(grid, points).amin(1) * side / 2  # pixels
    return torch.sigmoid((PEN - nearest) / 0.3).reshape(side, side)
