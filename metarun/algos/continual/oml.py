from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn

from metarun.algos.continual.head import Head, learn_in_order
from metarun.algos.continual.in_turn import InTurn
from metarun.core import objectives
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from metarun.core.task_streams import StreamSource
from metarun.core.tasks import Batch, Examples, Metrics, TaskSource
from metarun.ops import context, norm
from metarun.ops.functional import Params, call, within


class Trajectory(NamedTuple):
    """An outer step's classes, which come one by one [T tasks of one class], and examples of any training class."""

    tasks: Batch
    remembered: Examples


class OMLSettings(TypedDict):
    """Settings of OML, and of what changes its features."""

    trajectory: PositiveInt
    inner_lr: PositiveFloat
    test_inner_lr: PositiveFloat | None
    task_chunk: NonNegativeInt


class OML(InTurn):
    """Learns a representation on which a linear head can learn class after class, an example at a time, and not forget.

    An outer step empties the head's rows of a few training classes and lets the head learn these again, one after the
    other, by a gradient step with each example. The loss is on new images of these classes, and on images of any
    training class, which must not be forgotten. Its gradient goes through the steps, and trains the representation and
    the head. In a stream the representation stands still, and a head of empty rows learns.

    In the paper rows start at random and the head may have two layers; here they start at zero, and it has one. The
    paper's code takes the trajectory's own images for the loss; here it is others of the same classes.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: the representation, from inputs to features [R, D].
        train_classes: classes of the split train.
        trajectory: classes of an outer step; each has data.train.k_shot images to learn from and n_query for the loss.
        inner_lr: step size of the head.
        test_inner_lr: the same in validation and test; None for the same.
        task_chunk: see EpisodicLearner.
    Reference: Javed, White. Meta-Learning Representations for Continual Learning. NeurIPS 2019. arXiv:1905.12588,
        Algorithm 2.
    """

    needs = ("episodes", "examples", "streams")
    trains_on = ("streams", "examples")

    def __init__(self, backbone: nn.Module, train_classes: int, **settings: Unpack[OMLSettings]) -> None:
        super().__init__("vectorized", settings["task_chunk"])
        self.trajectory, self.inner_lr = settings["trajectory"], settings["inner_lr"]
        self.test_inner_lr = settings["test_inner_lr"] or self.inner_lr
        self.backbone = backbone
        self.classifier = nn.Linear(int(backbone.out_features), train_classes)  # type: ignore[arg-type]

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Any]:
        assert isinstance(source, StreamSource), "the streams that it needs are asked for when it is built"
        trajectories = source.streams("train", step, self.trajectory, 1)
        remembered = source.examples("train", step * meta_batch_size, meta_batch_size)
        return map(Trajectory, trajectories, remembered)

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        tasks, remembered = batch
        classes = tasks.side["classes"]  # [T, 1]
        learned, asked = (Examples(side.x.flatten(0, 1), classes.expand_as(side.y).flatten()) for side in tasks[:2])
        x, y = (torch.cat(pair) for pair in zip(asked, remembered, strict=True))
        found = objectives.classification(self.follow(self._empty(classes[:, 0]), learned, x), y)
        return found["loss"], {name: score.detach() for name, score in found.items()}

    def follow(self, head: Head, learned: Examples, x: Tensor) -> Tensor:
        """Return the logits of `x` [R, N] after a step with each of the examples that are learned, in their order."""
        features, asked = torch.split(self.embed(torch.cat([learned.x, x])), [len(learned.x), len(x)])
        return learn_in_order(head, features, learned.y, self.inner_lr)(asked)

    def embed(self, x: Tensor) -> Tensor:
        with context.recording() as statistics:
            features = self.represent(self.theta(), x)
        norm.update_running(self, statistics)
        return features

    def _empty(self, classes: Tensor) -> Head:
        """Return the head of the training classes with the rows of `classes` at zero."""
        weight, bias = (self.theta()[f"classifier.{name}"] for name in Head._fields)
        kept = torch.ones_like(bias).index_fill(0, classes, 0)
        return Head(weight * kept[:, None], bias * kept)

    def represent(self, params: Params, x: Tensor) -> Tensor:
        """Return the features [R, D] of inputs."""
        features: Tensor = call(self.backbone, within(params, "backbone"), x)
        return features

    def begin(self, params: Params, n_classes: int) -> Head:
        weight = params["classifier.weight"]
        return Head(weight.new_zeros(n_classes, weight.shape[1]), weight.new_zeros(n_classes))

    def learn(self, params: Params, known: Head, examples: Examples, classes: range) -> Head:
        with context.frozen():
            features = self.represent(params, examples.x)
        return learn_in_order(known, features, examples.y, self.test_inner_lr)

    def answer(self, params: Params, known: Head, x: Tensor) -> Tensor:
        return known(self.represent(params, x))

    def describe(self) -> dict[str, Any]:
        return {"inner_lr": self.test_inner_lr}
