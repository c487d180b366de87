from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from metarun.app.jobs.pictures import show_drawings, show_predictions
from metarun.core.tasks import Batch, Examples, Prediction
from metarun.report.figures import predictions
from metarun.report.figures.charts import PALETTE
from metarun.report.figures.predictions import draw_predictions


def batch(dimensions: int = 1) -> Batch:
    x = torch.linspace(-1, 1, 20)[None, :, None].expand(3, -1, dimensions)
    return Batch(Examples(x[:, ::5], x[:, ::5, :1]), Examples(x, x[..., :1]), 0)


def colours(picture: bytes | None) -> np.ndarray:
    assert picture is not None
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).reshape(-1, 3)


def seen(pixels: np.ndarray, colour: str) -> int:
    return int((pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(1).sum())


def test_support_points_mean_and_band_are_drawn() -> None:
    """The band takes a tenth of a panel at least, in the mean's colour at a fifth of its strength on white."""
    mean = torch.zeros(3, 20, 1)
    without = colours(draw_predictions(batch(), Prediction(mean, None)))
    with_band = colours(draw_predictions(batch(), Prediction(mean, torch.ones(3, 20, 1))))
    for pixels in (without, with_band):
        assert seen(pixels, PALETTE[0]) > 100
        assert seen(pixels, PALETTE[1]) > 100
    pale = (with_band == [204, 227, 240]).all(1).sum(), (without == [204, 227, 240]).all(1).sum()
    assert pale[0] > 0.1 * len(with_band) > 100 * pale[1]


def test_the_band_holds_95_of_100_observations() -> None:
    """From 1.96 standard deviations below the mean to as many above it."""
    predicted = Prediction(torch.full((3, 20, 1), 2.0), torch.full((3, 20, 1), 0.5))
    datasets = predictions._draw_panel(batch(), predicted, 0).to_dict()["datasets"].values()
    points = [point for dataset in datasets for point in dataset if "low" in point]
    assert len(points) >= 20
    assert {(round(point["low"], 6), round(point["high"], 6)) for point in points} == {(1.02, 2.98)}


def test_functions_of_more_than_a_number_are_not_drawn() -> None:
    assert draw_predictions(batch(dimensions=3), Prediction(torch.zeros(3, 20, 1), None)) is None


def test_what_is_shown_is_of_the_first_test_tasks_and_of_the_learner_as_it_tests(tmp_path: Path) -> None:
    """Four of them, or as many as the learner that draws by itself says."""
    asked: list[Any] = []

    class Learner(torch.nn.Module):
        tasks_drawn = 2

        def predictions(self, tasks: Batch) -> Prediction:
            assert not self.training
            return Prediction(torch.zeros(3, 20, 1), None)

        def eval_stream(self, source: Any, *words: Any) -> Any:
            return source.episodes(*words)

        def draw(self, tasks: Batch) -> dict[str, Image.Image]:
            assert not self.training
            return {"own": Image.new("RGB", (4, 3))}

    def episodes(*words: Any) -> Any:
        asked.append(words)
        yield batch()

    shown: dict[str, Path] = {}
    parts: Any = SimpleNamespace(
        learner=Learner(), source=SimpleNamespace(info=SimpleNamespace(n_way=0), episodes=episodes), folder=tmp_path
    )
    sink: Any = SimpleNamespace(show=shown.__setitem__)
    show_predictions(parts, [sink])
    show_drawings(parts, [sink])
    assert asked == [("test", 0, 4), ("test", 0, 2)]
    assert shown == {"predictions": tmp_path / "predictions.png", "own": tmp_path / "own.png"}
    assert Image.open(shown["own"]).size == (4, 3)
    assert seen(colours(shown["predictions"].read_bytes()), PALETTE[1]) > 100
