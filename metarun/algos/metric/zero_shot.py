from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import average_classes, compute_nearness, find_cosines
from metarun.algos.base.texts import embed_texts, find_text_tower
from metarun.algos.processes.cnp import make_mlp
from metarun.core.ranges import CountsWith, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.core.tasks import Examples
from metarun.ops import norm
from metarun.ops.functional import Params, call, one_hot, within


class ZeroShot(EpisodicLearner):
    """Learns to embed images and descriptions of classes in one space, where an image is near its class's description.

    The support set of a task is descriptions, not images, so classes never seen can be told by what is said of them. A
    class with several descriptions lies at their mean. If a description is the embedding of a support image, and its
    network leaves it as it is, this is ProtoNet with one shot.

    Shapes: support.x [S, D], support.y [S] int64 in 0..N-1; predicts logits [M, N] for images [M, C, H, W].
    Args:
        backbone: from images to embeddings [R, E].
        support_shape: of a description.
        width, layers: of the `mlp`, its units and number of hidden layers.
        distance: minus the squared `euclidean` distance as the logit, or the `cosine` over `temperature`.
        temperature: of `cosine`, > 0.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
        network: what embeds descriptions: an `mlp`; or `texts`, the backbone's tower of texts, whose tokens they are.
    Raises: ValueError with `bn=support`: there are no support images whose statistics could be taken.
    Reference: after Frome et al. DeViSE: A Deep Visual-Semantic Embedding Model. NeurIPS 2013; in episodes, Snell,
        Swersky, Zemel. Prototypical Networks. NeurIPS 2017. arXiv:1703.05175, section 2.7.
    """

    kinds = ("described",)
    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        support_shape: tuple[int, ...],
        width: PositiveInt,
        layers: NonNegativeInt,
        distance: Literal["euclidean", "cosine"],
        temperature: Annotated[PositiveFloat, CountsWith("distance", ("cosine",))],
        engine: Engine,
        task_chunk: NonNegativeInt,
        network: Literal["mlp", "texts"] = "mlp",
    ) -> None:
        super().__init__(engine, task_chunk)
        if norm.uses_support_statistics(backbone):
            raise ValueError("bn=support needs support images, and here are descriptions: set bn=running")
        self.backbone, self.distance, self.temperature = backbone, distance, temperature
        self.of_texts = network == "texts"
        if self.of_texts:
            find_text_tower(backbone)
        else:
            self.description = make_mlp(support_shape[0], width, layers, int(backbone.out_features))  # type: ignore[arg-type]

    def adapt(self, params: Params, support: Examples, n_way: int) -> Tensor:
        if self.of_texts:
            embedded = embed_texts(self.backbone, within(params, "backbone"), support.x)
        else:
            embedded = call(self.description, within(params, "description"), support.x)
        return average_classes(embedded, one_hot(support.y, n_way, embedded.dtype))  # [N, E]

    def predict(self, params: Params, state: Tensor, x: Tensor) -> Tensor:
        query: Tensor = call(self.backbone, within(params, "backbone"), x)
        if self.distance == "euclidean":
            return compute_nearness(query, state)
        return find_cosines(query, state) / self.temperature
