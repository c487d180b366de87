from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.algos.memory.incontext import Block
from metarun.core.ranges import NonNegativeInt, PositiveInt
from metarun.ops.freezing import freeze
from metarun.ops.functional import Params, call, within
from metarun.ops.layer_norm import LayerNorm


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
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Raises: ValueError if `width` is no multiple of `heads`.
    Reference: Fifty, Duan, Junkins, Amid, Leskovec, Re, Thrun. Context-Aware Meta-Learning. ICLR 2024.
        arXiv:2310.10971, section 3; the codes (ELMES) are those of its equation 4.
    """

    recordable = True

    codes: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        most_ways: Annotated[int, Ge(2)],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        if width % heads:
            raise ValueError(f"algo.width={width} must be a multiple of algo.heads={heads}")
        freeze(backbone)
        size, length = int(backbone.out_features), most_ways  # type: ignore[arg-type]
        self.register_buffer("codes", make_codes(most_ways))
        self.unknown = nn.Parameter(torch.randn(length) / length**0.5)
        self.sequence = Sequence(size + length, width, layers, heads, length)

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        n_way = classes.shape[1]
        if n_way > len(self.codes):
            raise ValueError(
                f"this CAML has codes for {len(self.codes)} classes, and a task has {n_way}: set algo.most_ways"
            )
        codes = self.codes[:n_way].to(support.dtype)
        known = torch.cat([support, classes @ codes], -1)  # [S, D + most_ways]
        asked = torch.cat([query, params["unknown"].expand(len(query), -1)], -1)  # [M, D + most_ways]
        inner = within(params, "sequence")
        outputs: Tensor = torch.func.vmap(lambda one: call(self.sequence, inner, one, known))(asked)  # [M, most_ways]
        return outputs @ codes.T


class Sequence(nn.Module):
    """A transformer over one query's token [inputs] and the support set's [S, inputs]: [outputs] of the query.

    There are no positions, so the order of the support set does not matter.
    """

    def __init__(self, inputs: int, width: int, layers: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.last = nn.Sequential(LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, query: Tensor, support: Tensor) -> Tensor:
        tokens = self.embed(torch.cat([query[None], support]))
        for block in self.blocks:
            tokens = block(tokens, len(tokens))
        out: Tensor = self.last(tokens[0])
        return out


def make_codes(count: int) -> Tensor:
    """Return `count` codes of as many numbers, of length 1, each as far from each other as can be (equation 4)."""
    centred = torch.eye(count) - 1 / count
    codes: Tensor = centred * (count / (count - 1)) ** 0.5
    return codes
