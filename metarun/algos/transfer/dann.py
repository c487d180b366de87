from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from metarun.algos.base.count import Count
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, average_classes, compute_nearness
from metarun.algos.base.pretraining import Pretraining
from metarun.algos.processes.cnp import make_mlp
from metarun.algos.transfer.boundary import draw_boundary
from metarun.core import objectives
from metarun.core.ranges import CountsWith, NonNegativeFloat, NonNegativeInt, PositiveInt
from metarun.core.tasks import Batch, Examples, Metrics, Pairs, PairSource, TaskSource
from metarun.ops.functional import Params


class DANN(Pretraining, MetricLearner):
    """Learns features that tell the classes of a labelled domain, and do not tell it from a domain without labels.

    A second classifier learns to tell the two domains apart by the features, and the features learn, by a gradient
    that is reversed on its way to them, to be of no use to it. Source and target pass the network one after the other,
    so `bn=transductive` and `running` normalise each by its own statistics in training, which by itself brings the
    domains closer. At `weight=0` this is training on the source alone.

    Unlike the paper, the learning rate is the business of `optim`.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to features [R, D].
        train_classes: classes of the source.
        weight: lambda, of the reversed gradient in the end, >= 0.
        rise_steps: outer steps over which lambda rises from 0 (2 / (1 + exp(-10 p)) - 1 of `weight` after the part p
            of them); 0: it is `weight` from the first step.
        width, layers: units and number of hidden layers of the domain classifier.
        tests: a query's class is that of the nearest `means` of the normalised features of the support set; or what
            the `classifier` of the training classes says, where tasks have these classes with their own labels.
        engine, task_chunk: how tests are computed, see EpisodicLearner.
    Reference: Ganin et al. Domain-Adversarial Training of Neural Networks. JMLR 2016. arXiv:1505.07818, equations 9 to
        18; of the rise, section 5.2.2.
    """

    kinds = ("domains",)
    needs = ("episodes", "pairs")
    trains_on = ("pairs",)
    only_trained: tuple[str, ...] = ("classifier.", "domain.", "outer_steps.")

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        weight: NonNegativeFloat,
        rise_steps: Annotated[NonNegativeInt, CountsWith("weight")],
        width: PositiveInt,
        layers: NonNegativeInt,
        tests: Literal["means", "classifier"],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.weight, self.rise_steps, self.tests = weight, rise_steps, tests
        features = int(backbone.out_features)  # type: ignore[arg-type]
        self.classifier: nn.Module = nn.Linear(features, train_classes)
        self.domain = make_mlp(features, width, layers, 1)
        self.outer_steps = Count()
        if tests == "classifier":
            self.only_trained = ("domain.", "outer_steps.")

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Pairs]:
        assert isinstance(source, PairSource), "the needs of a learner are checked"
        return source.pairs("train", step * meta_batch_size, meta_batch_size)

    def meta_step(self, batch: Any, optims: dict[str, Optimizer]) -> Metrics:
        metrics = super().meta_step(batch, optims)
        self.outer_steps.number += 1
        return metrics

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        source, target = self.embed(batch.source.x), self.embed(batch.target)
        scores = objectives.classification(self.classifier(source), batch.source.y)
        of_source, of_target = (self.domain(reverse_gradient(x, self.find_weight()))[:, 0] for x in (source, target))
        apart = F.softplus(-of_source).mean() + F.softplus(of_target).mean()  # equation 9
        right = ((of_source > 0).to(source.dtype).mean() + (of_target <= 0).to(source.dtype).mean()) / 2
        scores |= {"domain_loss": apart, "domain_accuracy": right, "loss": scores["loss"] + apart}
        return scores["loss"], {name: score.detach() for name, score in scores.items()}

    def find_weight(self) -> float:
        """Return lambda at the present outer step."""
        if not self.rise_steps:
            return self.weight
        return self.weight * (2 / (1 + math.exp(-10 * min(1, self.outer_steps.number / self.rise_steps))) - 1)

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        if self.tests == "classifier":
            logits: Tensor = self.classifier(query)
            return logits
        support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        return compute_nearness(query, average_classes(support, classes))

    @torch.no_grad()
    def draw(self, batch: Batch) -> Mapping[str, Any]:
        """Draw, for points in the plane, what is said of each place in the first task: rings are its support points."""
        x, y = batch.query.x[0], batch.query.y[0]
        if x.dim() != 2 or x.shape[1] != 2 or batch.n_way != 2:
            return {}
        support = Examples(batch.support.x[0], batch.support.y[0])
        return {"boundary": draw_boundary(self.adapt_to(support, 2), [support, Examples(x, y)])}


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradient, None


def reverse_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x; its gradient is -`factor` times what it would be."""
    reversed_: Tensor = _Reverse.apply(x, factor)
    return reversed_
