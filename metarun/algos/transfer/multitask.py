from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.network import with_support
from metarun.algos.base.pretraining import Fit, FitSettings, embed_training
from metarun.algos.transfer.finetune import Tuned
from metarun.core.batches import merge_sides
from metarun.core.ranges import PositiveInt
from metarun.core.tasks import Batch, Examples, Metrics, Objective, TaskSource
from metarun.ops.functional import Params, call, flatten, unflatten, within


class MultiTask(EpisodicLearner):
    """Learns a network that a fixed number of training tasks share, each with a linear head of its own.

    The training tasks are the first of the source's training stream; an outer step takes the next of them, with all
    their points, support and query alike. A new task gets a head that starts at the mean of the training heads and is
    fit to the support set, alone or with the network.

    Training descends the mean of the tasks' losses, or each over a variance that is learned: exp(-s) L + s / 2 for
    cross-entropies and (exp(-s) L + s) / 2 for squared errors, with s the logarithm of the task's variance. With
    `pcgrad` the gradient of the shared network is the mean of the tasks' gradients after each has lost its parts that
    point against others of the outer step, met in random order (the paper has the sum).

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1 or [S, D_out]; predicts [M, outputs].
    Args:
        backbone: the shared network, from inputs to features [R, D].
        outputs: size of a head.
        objective: scores a task.
        tasks: training tasks, each of which has a head.
        weighting: of the tasks' losses: `equal`, or by learned `uncertainty`.
        conflicts: between the tasks' gradients: `average` them, or `pcgrad`.
        adapts: what is fit to a new task: its `head`, or `all`.
        settings: of the fit, see FitSettings.
    Reference: Caruana. Multitask Learning. Machine Learning 28, 1997. uncertainty: Kendall, Gal, Cipolla. Multi-Task
        Learning Using Uncertainty. CVPR 2018. arXiv:1705.07115, equations 5 and 10. pcgrad: Yu et al. Gradient Surgery
        for Multi-Task Learning. NeurIPS 2020. arXiv:2001.06782, algorithm 1.
    """

    many_shapes = False

    kinds = ("classification", "regression")
    shareable = False  # tasks have heads of their own, and gradients that meet
    only_trained = ("log_variances",)

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        tasks: PositiveInt,
        weighting: Literal["equal", "uncertainty"],
        conflicts: Literal["average", "pcgrad"],
        adapts: Literal["head", "all"],
        **settings: Unpack[FitSettings],
    ) -> None:
        super().__init__(settings["engine"], settings["task_chunk"], objective)
        self.fit = Fit.of(settings)
        self.tasks, self.outputs, self.conflicts, self.adapts = tasks, outputs, conflicts, adapts
        self.backbone = backbone
        self.heads = nn.Linear(int(backbone.out_features), tasks * outputs)  # type: ignore[arg-type]
        self.log_variances = nn.Parameter(torch.zeros(tasks)) if weighting == "uncertainty" else None

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Batch]:
        while True:
            numbers = (step * meta_batch_size + np.arange(meta_batch_size)) % self.tasks
            runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)  # of tasks that follow each other
            drawn = [merge_sides(next(source.episodes("train", int(run[0]), len(run)))) for run in runs]
            fewest = min(batch.query.y.shape[1] for batch in drawn)  # where tasks have several numbers of shots
            x, y = (torch.cat([batch.query[i][:, :fewest] for batch in drawn]) for i in (0, 1))
            points = Examples(x, y)
            yield Batch(points, points, drawn[0].n_way, {"task": torch.as_tensor(numbers, device=y.device)})
            step += 1

    def meta_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        losses, metrics = self._score_heads(batch)
        return losses.mean(), metrics

    def meta_gradient(self, batch: Batch) -> Metrics:
        losses, metrics = self._score_heads(batch)
        if self.conflicts == "average":
            losses.mean().backward()  # type: ignore[no-untyped-call]
            return metrics
        learned = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        shared = {name: parameter for name, parameter in learned.items() if name.startswith("backbone.")}
        own = [parameter for name, parameter in learned.items() if name not in shared]
        alone = [torch.autograd.grad(loss, list(shared.values()), retain_graph=True) for loss in losses]
        losses.mean().backward(inputs=own)  # type: ignore[no-untyped-call]
        vectors = torch.stack([flatten(dict(zip(shared, gradients, strict=True))) for gradients in alone])  # [B, P]
        for name, gradient in unflatten(project_conflicts(vectors).mean(0), shared).items():
            parameter = shared[name]
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return metrics

    def _score_heads(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the weighted loss of each task [B], and the means of the plain scores."""
        weight = self.heads.weight.view(self.tasks, self.outputs, -1)[batch.side["task"]]  # [B, O, D]
        bias = self.heads.bias.view(self.tasks, self.outputs)[batch.side["task"]]
        scored = []
        for x, y, w, b in zip(*batch.query, weight, bias, strict=True):
            scored.append(self.objective(linear(embed_training(self.backbone, x), w, b), y))
        scores = {name: torch.stack([each[name] for each in scored]) for name in scored[0]}
        losses, metrics = scores["loss"], {name: score.detach().mean() for name, score in scores.items()}
        if self.log_variances is None:
            return losses, metrics
        s, factor = self.log_variances[batch.side["task"]], 1.0 if batch.n_way else 0.5
        return factor * torch.exp(-s) * losses + s / 2, metrics

    def adapt(self, params: Params, support: Examples, n_way: int) -> Tuned:
        network = {name: value.detach() for name, value in params.items() if name.startswith("backbone.")}
        weight = params["heads.weight"].detach().view(self.tasks, self.outputs, -1).mean(0)
        bias = params["heads.bias"].detach().view(self.tasks, self.outputs).mean(0)
        head = {"head.weight": weight, "head.bias": bias}
        if self.adapts == "all":
            tuned = self.fit(lambda phi: self._loss(phi, self._embed(phi, support.x), support.y), network | head)
            return Tuned(tuned, support.x)
        features = self._embed(network, support.x).detach()
        return Tuned(network | self.fit(lambda phi: self._loss(phi, features, support.y), head), support.x)

    def predict(self, params: Params, state: Tuned, x: Tensor) -> Tensor:
        def outputs(rows: Tensor) -> Tensor:
            return linear(self._embed(state.phi, rows), state.phi["head.weight"], state.phi["head.bias"])

        return with_support(self.backbone, outputs, state.support_x, x)

    def describe(self) -> dict[str, Any]:
        return self.fit.describe() | {"training_tasks": self.tasks}

    def _embed(self, phi: Params, x: Tensor) -> Tensor:
        embedded: Tensor = call(self.backbone, within(phi, "backbone"), x)
        return embedded

    def _loss(self, phi: Params, features: Tensor, y: Tensor) -> Tensor:
        return self.objective(linear(features, phi["head.weight"], phi["head.bias"]), y)["loss"]


def project_conflicts(gradients: Tensor) -> Tensor:
    """Return the gradients [B, P] of B tasks, each without its parts against others (algorithm 1 of PCGrad).

    Each meets the others' own gradients in random order, and is projected onto the plane normal to one that it points
    against. All stay combinations of the gradients, so their inner products say everything.
    """
    n = len(gradients)
    products = gradients @ gradients.T  # [B, B]
    combined = torch.eye(n, dtype=gradients.dtype, device=gradients.device)
    order = torch.rand(n, n, device=gradients.device).argsort(1)
    rows = torch.arange(n, device=gradients.device)
    for other in order.T:  # [B], one for each task
        along = (combined * products[:, other].T).sum(1)
        against = along.clamp_max(0) / products[other, other].clamp_min(torch.finfo(gradients.dtype).tiny)
        combined = combined.index_put((rows, other), -against * (other != rows), accumulate=True)
    return combined @ gradients
