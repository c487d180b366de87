from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, find_cosines
from metarun.core.ranges import CountsWith, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.ops.functional import Params, call, within
from metarun.ops.lstm import LSTMCell


class MatchingNet(MetricLearner):
    """Learns an embedding in which a query takes its class from the support images, weighted by cosine similarity.

    With full context embeddings (`fce`), the embedding of a support image depends on the other support images, and that
    of a query on the support set. The support set is read in the task's order, class by class, with the classes in
    random order. The paper does not say which order it uses, and scores depend on it.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts log-probabilities [M, N].
    Args:
        backbone: from inputs to embeddings [R, D] (f' and g' in the paper, which shares them as well).
        fce: full context embeddings.
        fce_steps: processing steps of the queries' attention, >= 1 (K in the paper).
        temperature: divides the cosine similarities, > 0; 1 in the paper, where no weight can come near 1.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Vinyals et al. Matching Networks for One Shot Learning. NeurIPS 2016. arXiv:1606.04080, section 2.1
        and appendix A.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        fce: bool,
        fce_steps: Annotated[PositiveInt, CountsWith("fce", (True,))],
        temperature: PositiveFloat,
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.temperature = temperature
        self.context = FullContext(int(backbone.out_features), fce_steps) if fce else None  # type: ignore[arg-type]

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        if self.context is not None:
            support, query = call(self.context, within(params, "context"), support, query)
        similarity = find_cosines(query, support)  # [M, S]
        weights = torch.log_softmax(similarity / self.temperature, dim=-1)  # a, section 2.1.1
        unseen = torch.zeros_like(classes).masked_fill(classes == 0, -torch.inf)  # [S, N]
        return torch.logsumexp(weights[:, :, None] + unseen, dim=1)  # log of equation 1


class FullContext(nn.Module):
    """Full context embeddings: a bidirectional LSTM embeds the support set, and attention over it embeds the queries.

    Shapes: support [S, D], query [M, D] -> the same.
    Args:
        features: D.
        steps: processing steps of the queries.
    """

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.forwards, self.backwards = LSTMCell(features, features, features), LSTMCell(features, features, features)
        self.attending = LSTMCell(features, 2 * features, features)

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        before, after = _read(self.forwards, support), _read(self.backwards, support.flip(0)).flip(0)
        support = before + after + support  # g, appendix A.2
        hidden = cell = torch.zeros_like(query)
        for _ in range(self.steps):  # f, appendix A.1
            seen = torch.softmax(hidden @ support.T, dim=-1) @ support
            output, cell = self.attending(query, torch.cat([hidden, seen], dim=-1), cell)
            hidden = output + query
        return support, hidden


def _read(lstm: LSTMCell, rows: Tensor) -> Tensor:
    """Return the cell's outputs for the rows [S, D], which it reads one after the other."""
    hidden = cell = torch.zeros_like(rows[:1])
    outputs = []
    for row in rows:
        hidden, cell = lstm(row[None], hidden, cell)
        outputs.append(hidden)
    return torch.cat(outputs)
