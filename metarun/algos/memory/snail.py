from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.memory.reader import SupportReader, label_tokens
from metarun.core.ranges import CountsBeside, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.ops.functional import Params, call, within


class SNAIL(SupportReader):
    """Learns to read the support set as a sequence, by convolutions over its past and attention to all of it.

    A query stands at the end of the sequence; queries do not see each other. The support set comes in random order,
    drawn anew for each training task, and always the same one for as many images in tests. Dilations begin at 1. The
    paper's formula, read literally, begins at 2, where two of three positions in a row never meet.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1 or [S, D_out]; predicts logits [M, N], or a Gaussian
        [M, D_out].
    Args:
        backbone: from inputs to embeddings [R, D].
        outputs, n_way: classes of a task, or D_out and 0.
        length: positions that a block of convolutions reaches back, its own among them; N K + 1 for all.
        filters: of each convolution (D in the paper).
        attention: sizes of keys and of values of the three attention blocks (K and V).
        min_std: least standard deviation of a Gaussian, in 0..1.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Mishra, Rohaninejad, Chen, Abbeel. A Simple Neural Attentive Meta-Learner. ICLR 2018. arXiv:1707.03141,
        figure 2 and appendix A.
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        n_way: int,
        length: PositiveInt,
        filters: PositiveInt,
        attention: list[list[PositiveInt]],
        min_std: Annotated[PositiveFloat, CountsBeside("data", ("regression",))],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, outputs, n_way, min_std, engine, task_chunk)
        if any(len(sizes) != 2 for sizes in attention):
            raise ValueError(f"algo.attention={attention} is not a list of pairs [keys, values]")
        self.sequence = Sequence(self.features + self.targets + 1, length, filters, attention, self.predicted)

    def read(self, params: Params, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        known, asked = label_tokens(support, targets, query)
        known = known[self.draw_order(known)]
        predicted: Tensor = call(self.sequence, within(params, "sequence"), known, asked)
        return predicted


class Positions(NamedTuple):
    """What stands at the positions 0..S-1, the support set [S, D], and, for each query, at position S [M, D]."""

    past: Tensor
    last: Tensor


class Sequence(nn.Module):
    """Attention and convolutions by turns, each with its input beside its output.

    Shapes: known [S, inputs], asked [M, inputs] -> [M, outputs].
    """

    def __init__(self, inputs: int, length: int, filters: int, attention: list[list[int]], outputs: int) -> None:
        super().__init__()
        blocks: list[Attention | Convolution] = []
        for place, (keys, values) in enumerate(attention):
            blocks.append(Attention(inputs, keys, values))
            inputs += values
            if place < len(attention) - 1:
                for level in range(max(1, math.ceil(math.log2(length)))):
                    blocks.append(Convolution(inputs, 2**level, filters))
                    inputs += filters
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, known: Tensor, asked: Tensor) -> Tensor:
        positions = Positions(known, asked)
        for block in self.blocks:
            positions = block(positions)
        out: Tensor = self.head(positions.last)
        return out


class Convolution(nn.Module):
    """A causal convolution of two positions with a gate (DenseBlock in the paper)."""

    def __init__(self, inputs: int, dilation: int, filters: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.both = nn.Linear(2 * inputs, 2 * filters)  # of a position and of the one `dilation` before it

    def forward(self, positions: Positions) -> Positions:
        past, last = positions
        rows, far = len(past), min(self.dilation, len(past))
        before = torch.cat([torch.zeros_like(past[:far]), past[: rows - far]])  # [S, D]
        at_end = past[rows - self.dilation] if self.dilation <= rows else torch.zeros_like(past[0])
        return Positions(self._join(before, past), self._join(at_end.expand_as(last), last))

    def _join(self, before: Tensor, now: Tensor) -> Tensor:
        value, gate = self.both(torch.cat([before, now], -1)).chunk(2, -1)
        return torch.cat([now, value.tanh() * gate.sigmoid()], -1)


class Attention(nn.Module):
    """Attention of a position to itself and to those before it (AttentionBlock in the paper)."""

    def __init__(self, inputs: int, keys: int, values: int) -> None:
        super().__init__()
        self.keys = keys
        self.query, self.value = nn.Linear(inputs, keys), nn.Linear(inputs, values)
        self.key = nn.Linear(inputs, keys, bias=False)  # a bias would add the same to all scores of a position

    def forward(self, positions: Positions) -> Positions:
        past, last = positions
        key, value = self.key(past), self.value(past)  # [S, K], [S, V]
        later = torch.ones(len(past), len(past), dtype=torch.bool, device=past.device).triu(1)
        scores = (self.query(past) @ key.T / math.sqrt(self.keys)).masked_fill(later, -torch.inf)
        read = torch.softmax(scores, -1) @ value
        asked = self.query(last)
        own = (asked * self.key(last)).sum(-1, keepdim=True)  # [M, 1]
        weights = torch.softmax(torch.cat([asked @ key.T, own], -1) / math.sqrt(self.keys), -1)  # [M, S + 1]
        seen = weights[:, :-1] @ value + weights[:, -1:] * self.value(last)
        return Positions(torch.cat([past, read], -1), torch.cat([last, seen], -1))
