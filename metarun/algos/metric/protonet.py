from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn

from metarun.algos.base import wrappers
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, average_classes, compute_nearness, find_cosines
from metarun.core.ranges import CountsWith, NonNegativeInt, PositiveFloat, check_choice
from metarun.ops.functional import Params

Distance = Literal["euclidean", "mean_squared", "cosine"]


class ProtoNet(MetricLearner):
    """Learns an embedding in which a class is the mean of its support images and queries go to the nearest mean.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        distance: `euclidean`, squared as in the paper; `mean_squared`, that over the number of dimensions, for
            embeddings of thousands; or `cosine`, a similarity in -1..1 over `temperature`.
        temperature: divides the logits of `cosine`, > 0.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner; `learn2learn` scores with
            learn2learn's PrototypicalClassifier.
    Reference: Snell, Swersky, Zemel. Prototypical Networks for Few-shot Learning. NeurIPS 2017. arXiv:1703.05175,
        equations 1 and 2.
    """

    recordable = True
    batched = True
    learn2learn = wrappers.protonet

    def __init__(
        self,
        backbone: nn.Module,
        distance: Distance,
        temperature: Annotated[PositiveFloat, CountsWith("distance", ("cosine",))],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        check_choice("algo.distance", distance, Distance)
        self.distance, self.temperature = distance, temperature

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        prototypes = average_classes(support, classes)  # equation 1
        if self.distance == "cosine":
            return find_cosines(query, prototypes) / self.temperature
        logits = compute_nearness(query, prototypes)  # equation 2
        return logits / query.shape[-1] if self.distance == "mean_squared" else logits
