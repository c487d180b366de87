from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from metarun.algos.base.features import FeatureHead
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import Support, average_classes, embed_together, find_cosines
from metarun.algos.base.texts import embed_texts, remember_texts
from metarun.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, within

Lengths = Literal["l2n", "cl2n"]


class Told(NamedTuple):
    """A task's state: the support set, and a vector for each class of what is said of it [N, D]; None if nothing is."""

    support: Support
    texts: Tensor | None


class TipAdapter(FeatureHead):
    """Learns to tell all training classes apart; a query then asks what is said of the classes and each support image.

    The logits are `scale` times the cosines to the embeddings of the classes' names, plus `alpha` times a vote of the
    support images: each speaks for its class with exp(-beta (1 - cosine)). With `alpha` 0 that is CLIP's zero-shot
    classifier, with `scale` 0 the cache of images alone. Where tasks come without names (any data but `named`), the
    class means stand in their place. The paper's repository once chose both rates on test images:
    `metarun eval RUN algo=tip_adapter algo.alpha=0.5,1,5 --choose` chooses on validation tasks.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; `tokens` [N, P, L] of P texts a class, for the
        backbone's tower of texts; `vectors` [N, P, D] embedded already; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        scale: of the cosines to the names, or to the class means (CLIP's is 100).
        alpha: weight of the support images' votes.
        beta: how fast a vote falls with the distance, > 0.
        features: of which embeddings, `l2n` or `cl2n`, see FeatureHead: cosines know no lengths.
        engine, task_chunk: how a batch of tasks is computed, see EpisodicLearner.
    Raises: ValueError for names and `cl2n`, for a network without a tower of texts, or for vectors of another length.
    Reference: Zhang et al. Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification. ECCV 2022.
        arXiv:2207.09519, equations 4 to 6.
    """

    batched = True
    asks = ("tokens", "vectors")
    input_encoder = FeatureHead.input_encoder  # for `predict` embeds by embed_together, which leaves what is embedded

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        scale: NonNegativeFloat,
        alpha: NonNegativeFloat,
        beta: PositiveFloat,
        features: Lengths,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, train_classes, features, engine, task_chunk)
        self.scale, self.alpha, self.beta = scale, alpha, beta
        self.read: Callable[[Params, Tensor], Tensor] = partial(embed_texts, backbone)

    def list_features(self) -> tuple[str, ...]:
        return get_args(Lengths)

    @contextmanager
    def encoded(self) -> Iterator[None]:
        before, known = self.read, remember_texts(self.backbone)
        self.read = lambda params, tokens: known(tokens)
        with super().encoded():
            try:
                yield
            finally:
                self.read = before

    def adapt(  # type: ignore[override]
        self, params: Params, support: Examples, n_way: int, tokens: Tensor | None = None, vectors: Tensor | None = None
    ) -> Told:
        known = super().adapt(params, support, n_way)
        if tokens is not None:
            rows = self.read(within(params, "backbone"), tokens.flatten(0, -2))
            vectors = rows.view(*tokens.shape[:-1], -1)  # [N, P, D]
        if vectors is None:
            return Told(known, None)
        if self.features == "cl2n":
            raise ValueError("algo.features=cl2n moves images away from the names of their classes: set l2n")
        if vectors.shape[-1] != self.mean.shape[0]:
            raise ValueError(
                f"vectors of {vectors.shape[-1]} numbers say what the classes are, and the network's embeddings have "
                f"{self.mean.shape[0]}"
            )
        return Told(known, F.normalize(vectors, dim=-1).mean(-2))

    def predict(self, params: Params, state: Told, x: Tensor) -> Tensor:  # type: ignore[override]
        support, query = embed_together(self.backbone, within(params, "backbone"), state.support.x, x)
        if not self.prepared:
            support, query = self.prepare(support), self.prepare(query)
        return self.answer(support, state.support.classes, query, state.texts)

    def answer(self, support: Tensor, classes: Tensor, query: Tensor, texts: Tensor | None = None) -> Tensor:
        points = average_classes(support, classes) if texts is None else texts
        votes = (-self.beta * (1 - find_cosines(query, support))).exp() @ classes  # [M, N], equation 4
        return self.scale * find_cosines(query, points) + self.alpha * votes  # equation 6
