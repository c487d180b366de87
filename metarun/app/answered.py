"""What a trained model answers for files: images of classes, or points of a function."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from metarun.app.adapted import Classifier
from metarun.app.descriptions import read_classes
from metarun.app.model import Model
from metarun.core.errors import wrong_input
from metarun.core.tasks import Examples, Prediction
from metarun.core.words import ALONE
from metarun.data.files.own import read_layout
from metarun.data.files.split_file import normalise_name
from metarun.data.given import list_given
from metarun.data.points_file import read_points
from metarun.report.predicted import Answers


def answer_classes(model: Model, support: Path, places: Sequence[Path]) -> tuple[Classifier, Tensor, Answers]:
    """Adapt to a folder with a folder of images for each class, or a file of descriptions, and answer for the images.

    Args:
        places: files, folders and zip files of images to answer for.

    Returns: the classifier, the pixels of the queries [M, C, H, W], and its answers.
    Raises: ConfigError for files that cannot be read, or classes that the learner does not take.
    """
    with wrong_input():
        if model.info.support_shape:
            few = model.adapt_to_classes(read_classes(support, model.settings.data))
        else:
            classes = read_layout(support).classes
            few = model.adapt_to_classes({label: classes[label] for label in sorted(classes)})
        files = list_given(places)
        pixels = few.read(files, "the queries")
    answered = few.weigh(few.answer(pixels)).tolist()
    truth = [find_class(file.path, few.classes) for file in files]
    return few, pixels, Answers([file.path for file in files], few.classes, answered, truth)


def find_class(path: str, classes: Sequence[str]) -> str | None:
    """Find the class whose name ends the path of the folder that a file lies in; None if there is none."""
    folder = PurePosixPath(path).parent.parts
    for label in sorted(classes, key=len, reverse=True):
        parts = PurePosixPath(label).parts
        if tuple(map(normalise_name, folder[len(folder) - len(parts) :])) == tuple(map(normalise_name, parts)):
            return label
    return None


def describe_mode(model: Model) -> str:
    """Say how the images are normalised, and what that costs where it is not as in training; nothing without layers."""
    own, answers = model.run.modes[0], model.learner.answers
    together = f"the method answers {answers}: an image's answer depends on the other images that are asked for with it"
    if len(model.run.modes) == 1:
        return "" if answers == ALONE else together
    if model.bn == "transductive":
        return "transductive: an image's answer depends on the other images that are asked for with it"
    if answers != ALONE:
        return f"{model.bn}: images do not normalise each other, but {together}"
    alone = f"{model.bn}: an image's answer does not depend on the other images"
    if model.bn == own:
        return alone
    known = model.calibration
    if known.accuracy_transductive is None:
        return f"{alone}; the run was trained with bn={own}: metarun eval RUN says what that costs"
    here, then = (f"{100 * value:.1f} %" for value in (known.accuracy, known.accuracy_transductive))
    return f"{alone}; trained with bn={own}: {here} instead of {then} right in {known.tasks} validation tasks"


def describe_calibration(model: Model) -> str:
    """Say how far the probabilities can be believed."""
    known = model.calibration
    if known.missing:
        return f"not calibrated (temperature 1): {known.missing}"
    before, after = (f"{100 * value:.1f} %" for value in (known.error_before, known.error_after))
    half = known.tasks // 2
    return (
        f"temperature {known.temperature:.3g}, fitted on {half} {known.task} validation tasks; on {half} others the "
        f"calibration error is {before} without it, {after} with it"
    )


@dataclass(frozen=True)
class Answered:
    """What a model of functions answered: support points, inputs x [M, D_in] with values y if known, predictions."""

    support: Examples
    x: Tensor
    y: Tensor | None
    predicted: Prediction

    @property
    def mse(self) -> float | None:
        """The mean squared error, where the values are known."""
        return None if self.y is None else float((self.predicted.mean - self.y).square().mean())

    @property
    def heads(self) -> list[str]:
        inputs, values = ([""] if n == 1 else map(str, range(1, n + 1)) for n in self._sizes())
        xs, ys = [f"x{i}" for i in inputs], [f"y{i}" for i in values]
        return [*xs, *ys, *([] if self.predicted.std is None else [f"deviation of {y}" for y in ys])]

    @property
    def rows(self) -> list[list[float]]:
        std = self.predicted.std
        parts = [self.x, self.predicted.mean, *([] if std is None else [std])]
        rows: list[list[float]] = torch.cat([part.double() for part in parts], 1).tolist()
        return rows

    def format_csv(self) -> str:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.heads, *self.rows])
        return file.getvalue()

    def _sizes(self) -> tuple[int, int]:
        return self.x.shape[1], self.predicted.mean.shape[1]


def answer_function(model: Model, support: Path, queries: Path) -> Answered:
    """Adapt to the points in a CSV file, and predict at the inputs in another; values there are compared.

    Raises: ConfigError for files that cannot be read, or have other columns than the run's functions.
    """
    inputs, outputs = model.info.input_shape[0], model.info.outputs
    with wrong_input():
        known = read_points(support, [inputs + outputs])
        asked = read_points(queries, [inputs, inputs + outputs])
    function = model.adapt_to_points(known[:, :inputs], known[:, inputs:])
    predicted = function.predict(asked[:, :inputs])
    y = asked[:, inputs:].to(predicted.mean) if asked.shape[1] > inputs else None
    return Answered(function.support, asked[:, :inputs], y, predicted)
