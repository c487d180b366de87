from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.memory.reader import SupportReader, label_tokens
from metarun.core.ranges import CountsBeside, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.ops.functional import Params, call, within
from metarun.ops.layer_norm import LayerNorm


class InContext(SupportReader):
    """Learns to learn in context: a transformer reads the labelled support set, and each query attends to it.

    The tokens have no positions, so the order of the support set does not matter, and queries do not see each other.
    Of functions this is a transformer neural process, also known as a prior-data fitted network.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1 or [S, D_out]; predicts logits [M, N], or a Gaussian
        [M, D_out].
    Args:
        backbone: from inputs to embeddings [R, D].
        outputs, n_way: classes of a task, or D_out and 0.
        width: size of a token.
        layers: blocks of attention and a fully connected layer.
        heads: of the attention; they share `width` among them.
        min_std: least standard deviation of a Gaussian, in 0..1.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Müller, Hollmann, Pineda Arango, Grabocka, Hutter. Transformers Can Do Bayesian Inference. ICLR 2022.
        arXiv:2112.10510; Nguyen, Grover. Transformer Neural Processes. ICML 2022. arXiv:2207.04179. With images:
        Kirsch, Harrison, Sohl-Dickstein, Metz. General-Purpose In-Context Learning by Meta-Learning Transformers. 2022.
        arXiv:2212.04458.
    """

    recordable = True

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        n_way: int,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        min_std: Annotated[PositiveFloat, CountsBeside("data", ("regression",))],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, outputs, n_way, min_std, engine, task_chunk)
        if width % heads:
            raise ValueError(f"algo.width={width} must be a multiple of algo.heads={heads}")
        self.transformer = Transformer(self.features + self.targets + 1, width, layers, heads, self.predicted)

    def read(self, params: Params, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        known, asked = label_tokens(support, targets, query)
        predicted: Tensor = call(self.transformer, within(params, "transformer"), known, asked)
        return predicted


class Transformer(nn.Module):
    """Blocks in which support tokens attend to each other, and queries to the support tokens.

    Shapes: known [S, inputs], asked [M, inputs] -> [M, outputs].
    """

    def __init__(self, inputs: int, width: int, layers: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.last = nn.Sequential(LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, known: Tensor, asked: Tensor) -> Tensor:
        rows, tokens = len(known), self.embed(torch.cat([known, asked]))
        for block in self.blocks:
            tokens = block(tokens, rows)
        out: Tensor = self.last(tokens[rows:])
        return out


class Block(nn.Module):
    """Attention to the first tokens, then a fully connected layer; each normalises its input and adds to it.

    Shapes: tokens [R, W] -> the same.
    Reference: Xiong et al. On Layer Normalization in the Transformer Architecture. ICML 2020. arXiv:2002.04745.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = LayerNorm(width), LayerNorm(width)
        self.query, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # a bias would add the same to all scores of a query
        self.join = nn.Linear(width, width)
        self.connected = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, rows: int) -> Tensor:
        """Let all tokens attend to the first `rows`."""
        normal = self.before(tokens)
        known = normal[:rows]
        tokens = tokens + self.join(self._attend(self.query(normal), self.key(known), self.value(known)))
        out: Tensor = tokens + self.connected(self.between(tokens))
        return out

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        size = query.shape[-1] // self.heads
        q, k, v = (part.reshape(-1, self.heads, size) for part in (query, key, value))  # [R, h, d], [S, h, d] twice
        weights = torch.softmax(torch.einsum("rhd,shd->hrs", q, k) / math.sqrt(size), -1)
        return torch.einsum("hrs,shd->rhd", weights, v).flatten(1)
