from __future__ import annotations

from typing import ClassVar, Literal, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead, Features
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.learner import Answers
from metarun.algos.base.metric import average_classes, compute_nearness, multiply
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, check_choice
from metarun.ops.functional import softmax

Distance = Literal["euclidean", "cosine"]

BETAS = 0.9, 0.999
"""Adam's decays."""

EPSILON = 1e-8
"""Adam's, beside the root of the second moment."""

TINY = 1e-12
"""Added to a share before its logarithm, as in the authors' code."""


class TIMSettings(TypedDict):
    """Settings of TIM, and of what changes its entropies; see TIM."""

    inner_lr: PositiveFloat
    test_inner_steps: NonNegativeInt
    temperature: PositiveFloat
    distance: Distance
    support_weight: NonNegativeFloat
    marginal_weight: NonNegativeFloat
    conditional_weight: NonNegativeFloat
    features: Features
    engine: Engine
    task_chunk: NonNegativeInt


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
    batched = True

    def __init__(self, backbone: nn.Module, train_classes: int, **settings: Unpack[TIMSettings]) -> None:
        super().__init__(backbone, train_classes, settings["features"], settings["engine"], settings["task_chunk"])
        check_choice("algo.distance", settings["distance"], Distance)
        self.lr, self.steps = settings["inner_lr"], settings["test_inner_steps"]
        self.temperature, self.distance = settings["temperature"], settings["distance"]
        self.weights = settings["support_weight"], settings["marginal_weight"], settings["conditional_weight"]

    def describe(self) -> dict[str, object]:
        return {"inner_steps": {"train": 0, "test": self.steps}, "inner_lr": self.lr}

    def answer(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        x, rows = torch.cat([support, query], -2), support.shape[-2]
        if self.distance == "cosine":
            x = F.normalize(x, dim=-1)
        means = average_classes(support, classes)
        first, second = torch.zeros_like(means), torch.zeros_like(means)
        for step in range(1, self.steps + 1):
            shares = softmax(self.logits(x, means))
            grad = self.pull_back(x, means, self.find_slopes(shares[..., :rows, :], classes, shares[..., rows:, :]))
            # Adam in few passes over the numbers: both corrections are in the step size and in epsilon.
            first = (BETAS[0] * first).add(grad, alpha=1 - BETAS[0])
            second = (BETAS[1] * second).addcmul(grad, grad, value=1 - BETAS[1])
            corrected = (1 - BETAS[1] ** step) ** 0.5
            size = self.lr * corrected / (1 - BETAS[0] ** step)
            means = means.addcdiv(first, second.sqrt() + EPSILON * corrected, value=-size)
        return self.logits(x[..., rows:, :], means)

    def logits(self, x: Tensor, means: Tensor) -> Tensor:
        """Return logits [..., R, N] of embeddings [..., R, D], which have length 1 where cosines are taken."""
        if self.distance == "cosine":
            return self.temperature * multiply(x, F.normalize(means, dim=-1))
        return 0.5 * self.temperature * compute_nearness(x, means)

    def find_slopes(self, told: Tensor, classes: Tensor, guessed: Tensor) -> Tensor:
        """Return the loss's derivative by the logits [..., S + M, N], from the shares of support set and queries."""
        on_support, on_marginal, on_each = self.weights
        of_support = -on_support * classes / (told + TINY) / told.shape[-2]
        of_all = self.entropy_slope(guessed.mean(-2, keepdim=True))
        of_queries = (on_each * self.entropy_slope(guessed) - on_marginal * of_all) / guessed.shape[-2]
        slopes, shares = torch.cat([of_support, of_queries], -2), torch.cat([told, guessed], -2)
        return shares * (slopes - (shares * slopes).sum(-1, keepdim=True))

    def pull_back(self, x: Tensor, means: Tensor, slopes: Tensor) -> Tensor:
        """Return the derivative by the means [..., N, D], from that by the logits [..., R, N]."""
        slopes = self.temperature * slopes
        along: Tensor = slopes.mT @ x
        if self.distance == "cosine":
            length: Tensor = means.norm(dim=-1, keepdim=True)
            unit = means / length
            return along.addcmul(unit, (unit * along).sum(-1, keepdim=True), value=-1) / length
        return along.addcmul(means, slopes.sum(-2)[..., None], value=-1)

    def entropy_slope(self, shares: Tensor) -> Tensor:
        """Return the derivative of the entropy of distributions [..., N] by each of their numbers."""
        return -(shares + TINY).log() - shares / (shares + TINY)
