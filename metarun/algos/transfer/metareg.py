from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.network import with_support
from metarun.algos.base.pretraining import embed_training
from metarun.algos.base.stages import Stage, Staged
from metarun.core import objectives
from metarun.core.batches import merge_sides
from metarun.core.ranges import CountsWith, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.core.tasks import Batch, Examples, Metrics, TaskSource
from metarun.ops.functional import Params, call, within


class MetaReg(Staged, EpisodicLearner):
    """Learns which weights of a classifier to keep small, so that what one domain teaches holds in another.

    The first stage trains a network with a head for each training domain. A few steps on one domain's loss and the
    penalty R = sum phi |theta| lead from its head to another, whose loss on each other domain the phi of all weights
    learn to lower. In the second stage one new head for all domains is trained with this penalty, and the network goes
    on with it. At `weight=0` that is plain training on all domains.

    Unlike the paper, which draws one pair of domains, an outer step takes all of them; the network of the first stage
    is kept, on which the paper says nothing; and one optimizer trains all.

    Shapes: x [R, C, H, W], y [R] int64 in 0..N-1; predicts logits [M, N]. The support set of a test is not used.
    Args:
        backbone: from inputs to features [R, D].
        outputs: classes, which have the same labels in all domains.
        steps: outer steps of the run.
        regularising: share of them in the first stage, in 0..1.
        domains: of training; an outer step best takes a task of each.
        weight: of the penalty in the second stage, >= 0.
        inner_lr, inner_steps: of the steps from a domain's head.
        engine, task_chunk: how tests are computed, see EpisodicLearner.
    Reference: Balaji, Sankaranarayanan, Chellappa. MetaReg: Towards Domain Generalization using Meta-Regularization.
        NeurIPS 2018, algorithm 1 and equations 2 to 5.
    """

    kinds = ("domain generalisation",)
    shareable = False  # the domains of an outer step meet
    only_trained = ("heads.", "phi.")

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        steps: int,
        regularising: float,
        domains: int,
        weight: Annotated[NonNegativeFloat, CountsWith("regularising")],
        inner_lr: Annotated[PositiveFloat, CountsWith("regularising")],
        inner_steps: Annotated[PositiveInt, CountsWith("regularising")],
        engine: Literal["auto", "vectorized"],
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(engine, task_chunk)
        if not 0 <= regularising <= 1:
            raise ValueError(f"algo.regularising={regularising} is not in 0..1")
        self.first_steps, self.domains, self.weight = round(regularising * steps), domains, weight
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.backbone = backbone
        features = int(backbone.out_features)  # type: ignore[arg-type]
        self.heads = nn.Linear(features, domains * outputs)
        self.head = nn.Linear(features, outputs)
        self.phi = nn.ParameterDict({name: torch.zeros_like(value) for name, value in self.head.named_parameters()})

    def stages(self) -> list[Stage]:
        return [
            Stage(self.first_steps, self._draw, self._score_domains, self._learn_penalty),
            Stage(0, self._draw, self._score_all),
        ]

    def adapt(self, params: Params, support: Examples, n_way: int) -> Tensor:
        return support.x

    def predict(self, params: Params, state: Tensor, x: Tensor) -> Tensor:
        def answer(rows: Tensor) -> Tensor:
            logits: Tensor = call(
                self.head, within(params, "head"), call(self.backbone, within(params, "backbone"), rows)
            )
            return logits

        return with_support(self.backbone, answer, state, x)

    def describe(self) -> dict[str, Any]:
        return {"domains": self.domains, "penalty": self.weight}

    def _draw(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Batch]:
        return source.episodes("train", step * meta_batch_size, meta_batch_size)

    def _score_domains(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Score the network with each domain's own head: the mean loss, and the mean scores."""
        features, y = self._embed(batch)
        return self._score_own(features, y, *self._take_heads(batch))

    def _learn_penalty(self, batch: Batch) -> Metrics:
        features, y = self._embed(batch)  # [B, R, D], [B, R]
        weight, bias = self._take_heads(batch)
        loss, metrics = self._score_own(features, y, weight, bias)
        loss.backward()  # type: ignore[no-untyped-call]
        after = self.transfer(features.detach(), y, weight.detach(), bias.detach(), batch.side["domain"])
        after.backward(inputs=list(self.phi.values()))  # type: ignore[no-untyped-call]
        return metrics | {"transfer_loss": after.detach()}

    def transfer(self, features: Tensor, y: Tensor, weight: Tensor, bias: Tensor, domain: Tensor) -> Tensor:
        """Return the mean loss of tasks' heads, after steps on their own, on tasks of other domains (equations 3 to 5).

        Shapes: features [B, R, D], y [B, R]; weight [B, N, D], bias [B, N]; domain [B].
        """
        weight, bias = weight.requires_grad_(), bias.requires_grad_()
        for _ in range(self.inner_steps):
            logits = features @ weight.mT + bias[:, None]
            own = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]  # a sum over domains
            penalty = (self.phi["weight"] * weight.abs()).sum() + (self.phi["bias"] * bias.abs()).sum()
            along = torch.autograd.grad(own + penalty, (weight, bias), create_graph=True)
            weight, bias = weight - self.inner_lr * along[0], bias - self.inner_lr * along[1]
        logits = torch.einsum("brd,and->abrn", features, weight) + bias[:, None, None]
        losses = F.cross_entropy(logits.movedim(-1, 1), y.expand(len(y), *y.shape), reduction="none").mean(-1)  # [A, B]
        others = (domain[:, None] != domain).to(losses.dtype)
        return (losses * others).sum() / others.sum().clamp_min(1)

    def _score_all(self, batch: Batch) -> tuple[Tensor, Metrics]:
        features, y = self._embed(batch)
        scores = objectives.classification(self.head(features.flatten(0, 1)), y.flatten())
        penalty = sum((self.phi[name].detach() * value.abs()).sum() for name, value in self.head.named_parameters())
        metrics = {name: score.detach() for name, score in scores.items()}
        return scores["loss"] + self.weight * penalty, metrics

    def _score_own(self, features: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Metrics]:
        scores = objectives.classification((features @ weight.mT + bias[:, None]).flatten(0, 1), y.flatten())
        return scores["loss"], {name: score.detach() for name, score in scores.items()}

    def _embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embed all images of an outer step: features [B, R, D] and labels [B, R] of the domains of its tasks."""
        x, y = merge_sides(batch).query
        return embed_training(self.backbone, x.flatten(0, 1)).view(*y.shape, -1), y

    def _take_heads(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the heads of the tasks' domains: weights [B, N, D] and biases [B, N]."""
        numbers = batch.side["domain"]
        features = self.heads.in_features
        weight, bias = self.heads.weight.view(self.domains, -1, features), self.heads.bias.view(self.domains, -1)
        return weight[numbers], bias[numbers]
