from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead, Features
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.learner import Answers
from metarun.algos.base.metric import average_classes, compute_nearness
from metarun.algos.heads.bd_cspn import find_cosines
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat
from metarun.ops.functional import Params, gradient

BETAS = 0.9, 0.999
"""Adam's decays."""


class TIM(FeatureHead):
    """Learns to tell all training classes apart; class means then move until queries are sure and classes full.

    Adam descends the cross-entropy of the support set, minus the entropy of the mean of the queries' distributions
    over classes, plus the mean of their entropies: the latter two are minus the mutual information of queries and
    classes.

    The marginal entropy assumes that a task has as many queries of each class. Rates are in units of the features,
    whose length is 1 unless they are `un`: Adam moves each of D numbers by about `inner_lr` in a step.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N]: temperature times the cosine,
        or minus half the squared distance.
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        inner_lr: step size, > 0.
        test_inner_steps: steps, >= 0; without any, queries go to the nearest class mean.
        temperature: factor of the logits, > 0.
        distance: `euclidean` as in the authors' code, or `cosine` as in easyfsl's.
        support_weight, marginal_weight, conditional_weight: of the three terms, >= 0.
        features: of which embeddings, `un`, `l2n` or `cl2n`, see FeatureHead.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Boudiaf et al. Transductive Information Maximization for Few-Shot Learning. NeurIPS 2020.
        arXiv:2008.11297, equation 3.
    """

    answers: ClassVar[Answers] = "together, balanced assumed"

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        inner_lr: PositiveFloat,
        test_inner_steps: NonNegativeInt,
        temperature: PositiveFloat,
        distance: Literal["euclidean", "cosine"],
        support_weight: NonNegativeFloat,
        marginal_weight: NonNegativeFloat,
        conditional_weight: NonNegativeFloat,
        features: Features,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, train_classes, features, engine, task_chunk)
        if distance not in ("euclidean", "cosine"):
            raise ValueError(f"algo.distance={distance} is not one of euclidean, cosine")
        self.lr, self.steps, self.temperature, self.distance = inner_lr, test_inner_steps, temperature, distance
        self.weights = support_weight, marginal_weight, conditional_weight

    def describe(self) -> dict[str, object]:
        return {"inner_steps": {"train": 0, "test": self.steps}, "inner_lr": self.lr}

    def answer(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        on_support, on_marginal, on_each = self.weights

        def loss(phi: Params) -> Tensor:
            told = self.logits(support, phi["means"]).softmax(-1)
            guessed = self.logits(query, phi["means"]).softmax(-1)
            information = on_marginal * self.entropy(guessed.mean(0)) - on_each * self.entropy(guessed).mean()
            return on_support * -(classes * (told + 1e-12).log()).sum(-1).mean() - information

        means = descend_by_adam(loss, average_classes(support, classes), self.steps, self.lr)
        return self.logits(query, means)

    def logits(self, embedded: Tensor, means: Tensor) -> Tensor:
        near = find_cosines if self.distance == "cosine" else compute_nearness
        return self.temperature * (1.0 if self.distance == "cosine" else 0.5) * near(embedded, means)

    def entropy(self, shares: Tensor) -> Tensor:
        """Return the entropy [...] of distributions [..., N]."""
        return -(shares * (shares + 1e-12).log()).sum(-1)


def descend_by_adam(loss: Callable[[Params], Tensor], means: Tensor, steps: int, lr: float) -> Tensor:
    """Return the `means` after so many of Adam's steps down the loss, a function of {"means": ...}."""
    first, second = torch.zeros_like(means), torch.zeros_like(means)
    for step in range(1, steps + 1):
        grad = gradient(loss, {"means": means}, first_order=True)["means"]
        first, second = BETAS[0] * first + (1 - BETAS[0]) * grad, BETAS[1] * second + (1 - BETAS[1]) * grad.square()
        size = (second / (1 - BETAS[1] ** step)).sqrt() + 1e-8
        means = means - lr * first / (1 - BETAS[0] ** step) / size
    return means
