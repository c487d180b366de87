from __future__ import annotations

from functools import partial
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from metarun.algos.base.learner import Learner
from metarun.algos.gradient.maml import MAML, Adapted, MAMLSettings
from metarun.core.ranges import NonNegativeFloat, check_choice
from metarun.core.tasks import Batch, Examples, Metrics, Objective
from metarun.ops.functional import Params, call, within

Bias = Literal["entropy", "theil", "gini", "log_variance"]


class TAML(MAML):
    """MAML whose initial weights are to favour no task: before adaptation they predict little, or all tasks alike.

    `entropy` raises the entropy of what theta predicts before the inner loop, and lowers it afterwards. The others
    measure how unequal the tasks' losses are before the inner loop. Where labels are shuffled anew for each task, the
    best prediction before it is uniform, so both terms are small from the start, and little is to be gained.

    Shapes: as MAML.
    Args:
        backbone, outputs, objective: as for MAML.
        bias: `entropy`, for classes alone, or a measure of inequality: `theil`, `gini`, `log_variance`.
        weight: of the term in the meta-loss, >= 0; 0 is MAML (lambda in the paper).
        settings: see MAMLSettings.
    Reference: Jamal, Qi. Task Agnostic Meta-Learning for Few-Shot Learning. CVPR 2019. arXiv:1805.07722, sections 3.1
        and 3.2.
    """

    shareable = False  # an inequality of a meta-batch is no mean over its tasks

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        n_way: int,
        *,
        bias: Bias,
        weight: NonNegativeFloat,
        **settings: Unpack[MAMLSettings],
    ) -> None:
        super().__init__(backbone, outputs, objective, **settings)
        check_choice("algo.bias", bias, Bias)
        if bias == "entropy" and not n_way:
            raise ValueError("algo.bias=entropy is for classes; functions take theil, gini or log_variance")
        self.bias, self.weight = bias, weight

    meta_gradient = Learner.meta_gradient

    def meta_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        scores = self._score_in_chunks(batch, partial(self._score_tasks, self.theta()))
        if self.bias == "entropy":
            term = (scores["entropy_after"] - scores["entropy_before"]).mean()
        else:
            term = measure_inequality(scores["loss_before"], self.bias)
        return scores["loss"].mean() + self.weight * term, self._average(scores) | {"bias": term.detach()}

    def score(self, params: Params, state: Any, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        if self.training and self.bias == "entropy":
            scores = scores | {"entropy_after": find_entropy(output)}
        return scores

    def extra_scores(self, params: Params, state: Adapted, query: Examples) -> dict[str, Tensor]:
        if not self.training:
            return super().extra_scores(params, state, query)
        before = call(self.net, within(params, "net"), query.x)
        if self.bias == "entropy":
            return {"entropy_before": find_entropy(before)}
        return {"loss_before": self.objective(before, query.y)["loss"]}

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"bias": self.bias}


def find_entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy in nats of the predictions [M, N]."""
    logs = torch.log_softmax(logits, -1)
    return -(logs.exp() * logs).sum(-1).mean()


def measure_inequality(losses: Tensor, measure: str) -> Tensor:
    """Measure how unequal the losses [B], > 0, are; 0 for equal ones, and the same for all of them times a number."""
    share = losses / losses.mean()
    if measure == "theil":
        return (share * share.log()).mean()
    if measure == "gini":
        return (losses[:, None] - losses).abs().sum() / (2 * len(losses) * losses.sum())
    assert measure == "log_variance"
    return (losses.log() - losses.mean().log()).square().mean()
