from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.algos.memory.incontext import Block
from metarun.core.machine import split_evenly
from metarun.core.ranges import NonNegativeInt, PositiveInt
from metarun.core.tasks import Batch
from metarun.ops.freezing import freeze
from metarun.ops.functional import Params, call, within
from metarun.ops.layer_norm import LayerNorm

TOKENS_TOGETHER = 5_000
"""Tokens of the sequences that run together on a CPU, as measured at a width of 256; more leave its caches."""


class CAML(MetricLearner):
    """Learns in context on the embeddings of a network that never changes: each query is read with the support set.

    A token is an embedding and a code of its label; all codes are as far from each other, and the query's is learned.
    All tokens of a sequence attend to each other, support tokens to the query too. The paper's last layer has an output
    for each of five classes; here a logit is the product of the query's token with the class's code, so a task may have
    any number of classes up to `most_ways`. Classes get codes by their labels, which are drawn anew for each task.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        width: size of a token.
        layers, heads: of the transformer.
        most_ways: classes that there are codes for.
        features: `un`, embeddings as they are; `l2n`, of length 1 as the codes are. Long ones drown the codes: of those
            of a ResNet-12, of length 13, nothing is learned.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Raises: ValueError if `width` is no multiple of `heads`.
    Reference: Fifty, Duan, Junkins, Amid, Leskovec, Re, Thrun. Context-Aware Meta-Learning. ICLR 2024.
        arXiv:2310.10971, section 3; the codes (ELMES) are those of its equation 4.
    """

    recordable = True
    batched = True

    codes: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        most_ways: Annotated[int, Ge(2)],
        features: Literal["un", "l2n"],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        self.features = features
        if width % heads:
            raise ValueError(f"algo.width={width} must be a multiple of algo.heads={heads}")
        freeze(backbone)
        size, length = int(backbone.out_features), most_ways  # type: ignore[arg-type]
        self.register_buffer("codes", make_codes(most_ways))
        self.unknown = nn.Parameter(torch.randn(length) / length**0.5)
        self.sequence = Sequence(size + length, width, layers, heads, length)

    def chunk(self, batch: Batch, n_tasks: int) -> int:
        at_once = super().chunk(batch, n_tasks)
        if at_once == 1 or self.task_chunk or batch.query.x.device.type != "cpu":
            return at_once
        tokens = batch.query.y.shape[1] * (1 + batch.support.y.shape[1])  # of a task: a sequence for each query
        return min(at_once, split_evenly(n_tasks, max(1, TOKENS_TOGETHER // tokens)))

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        n_way = classes.shape[-1]
        if n_way > len(self.codes):
            raise ValueError(
                f"this CAML has codes for {len(self.codes)} classes, and a task has {n_way}: set algo.most_ways"
            )
        if self.features == "l2n":
            support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        codes = self.codes[:n_way].to(support.dtype)
        known = torch.cat([support, classes @ codes], -1)  # [..., S, D + most_ways]
        asked = torch.cat([query, params["unknown"].expand(*query.shape[:-1], -1)], -1)  # [..., M, D + most_ways]
        outputs: Tensor = call(self.sequence, within(params, "sequence"), asked, known)  # [..., M, most_ways]
        return outputs @ codes.T


class Sequence(nn.Module):
    """A transformer over the tokens of one query and of the support set, for each query: what it makes of the query.

    There are no positions, so the order of the support set does not matter.

    Shapes: query [..., M, inputs], support [..., S, inputs] -> [..., M, outputs].
    """

    def __init__(self, inputs: int, width: int, layers: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Exchange(width, heads) for _ in range(layers))
        self.last = nn.Sequential(LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, query: Tensor, support: Tensor) -> Tensor:
        tokens = self.embed(torch.cat([query, support], -2))  # [..., M + S, W]
        spread: Callable[[Tensor], Tensor] = partial(_make_sequences, rows=query.shape[-2])
        for number, block in enumerate(self.blocks, 1):
            tokens, spread = block(tokens, spread, number == len(self.blocks)), _keep
        out: Tensor = self.last(tokens[..., 0, :])
        return out


class Exchange(Block):
    """A block in which all tokens of a sequence attend to each other.

    The first one is given each token once, as support tokens are the same for all queries until they have seen them,
    and makes the sequences by `spread`. The last one returns the queries' tokens alone: [..., M, 1, W].
    """

    def forward(  # type: ignore[override]
        self, tokens: Tensor, spread: Callable[[Tensor], Tensor], last: bool
    ) -> Tensor:
        normal = self.before(tokens)
        key, value = spread(self.key(normal)), spread(self.value(normal))  # [..., M, 1 + S, W]
        rows = slice(1) if last else slice(None)
        tokens, normal = spread(tokens)[..., rows, :], spread(normal)[..., rows, :]
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in (self.query(normal), key, value))
        weights = torch.softmax(torch.einsum("...rhd,...shd->...hrs", q, k) / q.shape[-1] ** 0.5, -1)
        tokens = tokens + self.join(torch.einsum("...hrs,...shd->...rhd", weights, v).flatten(-2))
        out: Tensor = tokens + self.connected(self.between(tokens))
        return out


def _make_sequences(tokens: Tensor, rows: int) -> Tensor:
    """Make a sequence for each of the M = `rows` queries, of its token and the support set: [..., M, 1 + S, W]."""
    query, support = tokens[..., :rows, None, :], tokens[..., None, rows:, :]
    return torch.cat([query, support.expand(*query.shape[:-2], -1, -1)], -2)


def _keep(tokens: Tensor) -> Tensor:
    return tokens


def make_codes(count: int) -> Tensor:
    """Return `count` codes of as many numbers, of length 1, each as far from each other as can be (equation 4)."""
    centred = torch.eye(count) - 1 / count
    codes: Tensor = centred * (count / (count - 1)) ** 0.5
    return codes
