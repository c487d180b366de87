from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, linear, log_softmax, normalize
from torch.optim import Optimizer

from metarun.algos.base.count import Count
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.algos.base.pretraining import Pretraining, fit_weights
from metarun.algos.base.stages import Stage, Staged
from metarun.core import objectives
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Share
from metarun.core.tasks import Examples, Metrics, TaskSource
from metarun.ops import context
from metarun.ops.functional import Params, call, flatten_name

TEACHER, START = "teacher", "start"


class Distill(Staged, Pretraining, MetricLearner):
    """Distils a classifier of all training classes through generations of equal networks.

    Each generation teaches the next. On a task, logistic regression on the last network's embeddings classifies. The
    generations share the run's outer steps evenly. Each but the first descends
    alpha * cross-entropy + (1 - alpha) * temperature^2 * KL(teacher || student), both softened by `temperature`. It
    starts from the initial weights of the first one, with a new optimizer state. Embeddings of a task are scaled to
    length 1. The head minimises the support set's mean cross-entropy plus squared length / (2 C S), as in scikit-learn,
    by gradient descent from zero (unlike there, the bias is penalised too).

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        steps: outer steps of the run.
        generations: networks in a row, >= 1; 1 is the paper's `simple`, 2 its `distill`.
        alpha: weight of the labels, in 0..1.
        temperature: divides the logits of teacher and student, > 0.
        inverse_decay: C, > 0.
        inner_lr: step size of the head's fit, > 0.
        test_inner_steps: its steps, >= 0.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Tian, Wang, Krishnan, Tenenbaum, Isola. Rethinking Few-Shot Image Classification: A Good Embedding Is
        All You Need? ECCV 2020. arXiv:2003.11539, section 3. After Furlanello et al. Born-Again Neural Networks.
        ICML 2018. arXiv:1805.04770.
    """

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        steps: int,
        generations: PositiveInt,
        alpha: Share,
        temperature: PositiveFloat,
        inverse_decay: PositiveFloat,
        inner_lr: PositiveFloat,
        test_inner_steps: NonNegativeInt,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.generations, self.generation_steps = generations, max(1, math.ceil(steps / generations))
        self.alpha, self.temperature, self.inverse_decay = alpha, temperature, inverse_decay
        self.inner_lr, self.test_inner_steps = inner_lr, test_inner_steps
        self.classifier = nn.Linear(int(backbone.out_features), train_classes)  # type: ignore[arg-type]
        start = self._network()
        self.generation = Count()
        self._keep(START, start)
        self._keep(TEACHER, start)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [R, classes] of the training classes."""
        logits: Tensor = self.classifier(self.backbone(x))
        return logits

    def stages(self) -> list[Stage]:
        return [
            Stage(
                self.generation_steps,
                partial(self._images, generation * self.generation_steps),
                self._taught_loss if generation else partial(Pretraining.meta_loss, self),
                enter=self._graduate if generation else None,
            )
            for generation in range(self.generations)
        ]

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        support, query = normalize(support, dim=-1), normalize(query, dim=-1)

        def loss(head: Params) -> Tensor:
            return cross_entropy(linear(support, head["weight"], head["bias"]), classes)

        zero = support.new_zeros(classes.shape[1], support.shape[1])
        decay = 1 / (self.inverse_decay * len(support))
        head = fit_weights(loss, {"weight": zero, "bias": zero[:, 0]}, self.test_inner_steps, self.inner_lr, decay)
        return linear(query, head["weight"], head["bias"])

    def describe(self) -> dict[str, Any]:
        return {"inner_steps": {"train": 0, "test": self.test_inner_steps}, "inner_lr": self.inner_lr}

    def _images(self, first: int, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Any]:
        """Return the stream of a generation: it goes on where the generation before it stopped."""
        return Pretraining.train_stream(self, source, first + step, meta_batch_size)

    def _taught_loss(self, batch: Examples) -> tuple[Tensor, Metrics]:
        x, y = batch
        logits = self.classifier(self.embed(x))
        scores = objectives.classification(logits, y)
        with torch.no_grad(), context.recording():  # the teacher does not change the averages
            taught = call(self, self._kept(TEACHER), x)
        distance = self.temperature**2 * kl_div(
            log_softmax(logits / self.temperature, -1),
            log_softmax(taught / self.temperature, -1),
            reduction="batchmean",
            log_target=True,
        )
        scores["distance"] = distance
        scores["loss"] = self.alpha * scores["loss"] + (1 - self.alpha) * distance
        return scores["loss"], {name: score.detach() for name, score in scores.items()}

    def _graduate(self, optims: Mapping[str, Optimizer]) -> None:
        """Make the network the teacher, and start a new network in its place, with new optimizer states."""
        self._keep(TEACHER, self._network())
        self.load_state_dict(self._kept(START), strict=False)
        self.generation.number += 1
        for optim in optims.values():
            optim.state.clear()

    def _network(self) -> Params:
        """Return the weights and averages of backbone and classifier, by name."""
        return {n: v for n, v in self.state_dict().items() if n.startswith(("backbone.", "classifier."))}

    def _keep(self, what: str, network: Params) -> None:
        for name, value in network.items():
            self.register_buffer(f"{what}/{flatten_name(name)}", value.detach().clone())

    def _kept(self, what: str) -> Params:
        return {name: self.get_buffer(f"{what}/{flatten_name(name)}") for name in self._network()}
