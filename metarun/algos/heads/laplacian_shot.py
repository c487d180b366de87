from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead, Features
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import average_classes, compute_nearness, measure
from metarun.algos.heads.bd_cspn import rectify
from metarun.core.ranges import CountsWith, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UpTo
from metarun.ops.functional import softmax


class LaplacianShot(FeatureHead):
    """Learns to tell all training classes apart; queries that lie close to each other then get the same class.

    Each query has a distribution over classes, softmax of minus its squared distances to the class means. In each step
    it becomes softmax of the same plus `pull` times the sum of its neighbours' distributions. The steps are a fixed
    number, where the authors stop once the energy changes by less than a millionth.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N]. Without steps and `rectify`
        they are SimpleShot's.
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        pull: weight of the neighbours, >= 0 (lambda in the paper).
        neighbours: of a query, the nearest other queries. The authors' and easyfsl's k is one more, for it counts the
            query itself.
        steps: of the distributions, >= 0.
        rectify: whether the queries first pull the class means towards themselves, as BD-CSPN does.
        scale: of the cosines in that, > 0, see BDCSPN.
        features: of which embeddings, `un`, `l2n` or `cl2n`, see FeatureHead.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Reference: Ziko, Dolz, Granger, Ben Ayed. Laplacian Regularized Few-Shot Learning. ICML 2020. arXiv:2006.15486,
        equation 12, algorithm 1.
    """

    answers = "together"
    batched = True

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        pull: NonNegativeFloat,
        neighbours: Annotated[PositiveInt, CountsWith("pull"), UpTo("other queries of a test task")],
        steps: Annotated[NonNegativeInt, CountsWith("pull")],
        rectify: bool,
        scale: Annotated[PositiveFloat, CountsWith("rectify", (True,))],
        features: Features,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, train_classes, features, engine, task_chunk)
        self.pull, self.neighbours, self.steps, self.rectify, self.scale = pull, neighbours, steps, rectify, scale

    def answer(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        means = rectify(support, classes, query, self.scale) if self.rectify else average_classes(support, classes)
        alone = logits = compute_nearness(query, means)
        near = find_neighbours(query, self.neighbours)
        for _ in range(self.steps):
            logits = alone + self.pull * sum_rows(softmax(logits), near)
        return logits


def find_neighbours(points: Tensor, count: int) -> Tensor:
    """Return the rows [..., M, K] of the `count` nearest other points of each of the points [..., M, D]; K <= M - 1."""
    # A row's own length changes no order in it. Maxima, one after the other, take half the time of topk.
    near = 2 * (points @ points.mT) - measure(points).square().mT
    near.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    found = [near[..., :0].long()]
    for number in range(min(count, points.shape[-2] - 1)):
        near = near.scatter(-1, found[-1], -torch.inf) if number else near
        found.append(near.max(-1, keepdim=True).indices)
    return torch.cat(found, -1)


def sum_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Sum those of the values [..., M, N] that stand in `rows` [..., M, K], for each of them: [..., M, N]."""
    flat = rows.flatten(-2)[..., None]  # [..., M K, 1]
    taken = values.gather(-2, flat.expand(*flat.shape[:-1], values.shape[-1]))
    return taken.view(*rows.shape, values.shape[-1]).sum(-2)
