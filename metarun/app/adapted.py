"""What a trained model has become by a support set: a classifier of its classes, or a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from metarun.algos.base.abilities import AdaptsToTask, Predicting
from metarun.algos.base.learner import Learner
from metarun.core.errors import ConfigError
from metarun.core.tasks import Batch, Examples, Prediction
from metarun.core.words import ALONE
from metarun.data.files.decode import Range
from metarun.ops import context

QUERIES_AT_ONCE = 256
"""Queries that are answered together where no query matters to another."""


class Using(Protocol):
    """What a classifier needs of the model that it comes from; metarun/app/model.py documents it."""

    bn: str
    learner: Learner

    def read_pixels(self, images: Any, name: str, limits: Range | None) -> tuple[Tensor, Range | None]: ...

    def make_inputs(self, pixels: Tensor) -> Tensor: ...

    def tell_classes(self, names: Sequence[str]) -> Mapping[str, Tensor]: ...

    def find_temperature(self) -> float: ...

    def find_backbone(self) -> nn.Module: ...


class Support(NamedTuple):
    """A support set: class names, what the network sees [S, C, H, W] uint8, the images' labels [S], and their range."""

    classes: list[str]
    pixels: Tensor
    y: Tensor
    limits: Range | None


class Classifier:
    """A learner that has adapted to a support set.

    Attributes:
        support: what it has adapted to; its classes, in order, are the columns of logits and probabilities.
    """

    def __init__(self, model: Using, support: Support, examples: Examples) -> None:
        """Adapt the learner of `model`; `examples` are the inputs and labels of the support set."""
        assert isinstance(model.learner, AdaptsToTask)
        self.model, self.support, self.examples = model, support, examples
        self._predict = model.learner.adapt_to(examples, len(support.classes), **model.tell_classes(support.classes))

    @property
    def classes(self) -> list[str]:
        return self.support.classes

    def predict(self, images: Any) -> list[str]:
        """Return the likeliest class of each image."""
        return [self.classes[number] for number in self.logits(images).argmax(-1).tolist()]

    def probabilities(self, images: Any) -> Tensor:
        """Return the probability of each class for each image [M, N], by the temperature of the run."""
        return self.weigh(self.logits(images))

    def logits(self, images: Any) -> Tensor:
        """Return the learner's own outputs [M, N] for images."""
        return self.answer(self.read(images))

    def read(self, images: Any, name: str = "those given") -> Tensor:
        """Read images as pixels [M, C, H, W], as the support set was read; messages call them `name`."""
        return self.model.read_pixels(images, name, self.support.limits)[0]

    def answer(self, pixels: Tensor) -> Tensor:
        """Return logits [M, N] for pixels [M, C, H, W] that the model has read."""
        together = self.model.bn == "transductive" or self.model.learner.answers != ALONE
        parts = [pixels] if together else torch.split(pixels, QUERIES_AT_ONCE)
        return torch.cat([self._predict(self.model.make_inputs(part)).cpu() for part in parts])

    def weigh(self, logits: Tensor) -> Tensor:
        """Return the probabilities [M, N] of logits [M, N]."""
        return (logits / self.model.find_temperature()).softmax(-1)

    @torch.no_grad()
    def embed(self, images: Any) -> Tensor:
        """Return the embeddings [M, ...] of images; with bn=support the support set alone normalises them."""
        backbone, rows = self.model.find_backbone(), len(self.examples.x)
        x = self.model.make_inputs(self.read(images))
        with context.support_rows(rows):
            embedded: Tensor = backbone(torch.cat([self.examples.x, x]))
        return embedded[rows:].cpu()


class Function:
    """A learner that has adapted to points (x, y) of a function."""

    def __init__(self, learner: Predicting, support: Examples) -> None:
        self.learner, self.support = learner, support

    def predict(self, x: Any) -> Prediction:
        """Return the mean [M, D_out] at x [M, D_in], and the standard deviation if the learner predicts one."""
        asked = torch.as_tensor(x, dtype=self.support.x.dtype, device=self.support.x.device)
        if asked.ndim != 2 or asked.shape[1:] != self.support.x.shape[1:] or not len(asked):
            raise ConfigError(f"inputs are x [M, {self.support.x.shape[1]}]; these are {list(asked.shape)}")
        unknown = asked.new_zeros(1, len(asked), self.support.y.shape[1])
        support = Examples(self.support.x[None], self.support.y[None])
        with torch.no_grad():
            found = self.learner.predictions(Batch(support, Examples(asked[None], unknown), 0))
        if found is None:
            raise ConfigError(f"{type(self.learner).__name__} predicts no functions")
        return Prediction(found.mean[0].cpu(), None if found.std is None else found.std[0].cpu())
