from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import find_cosines
from metarun.algos.memory.reader import SupportReader, label_tokens
from metarun.core.ranges import CountsBeside, NonNegativeInt, PositiveFloat, PositiveInt
from metarun.ops.functional import Params, call, within
from metarun.ops.lstm import LSTMCell


class MANN(SupportReader):
    """Learns to write the support set into an external memory, image by image, and to read labels off it.

    A long short-term memory sees each image with its label, and writes to the least used or the last read rows of the
    memory. A query is one more step, which reads and writes nothing, so that queries do not see each other. The support
    set comes in random order, as in SNAIL. The paper draws one long episode of all images, counts every prediction in
    it, and therefore shows a label with the image after its own (`label=late`): what an image looked like must then
    wait in the long short-term memory for its label.

    Cosines lie within -1 and 1, so their bare softmax, equation 3, reads all rows nearly alike: of 128 rows the one
    that is meant gets 6 % at most. The `temperature` divides them, as the strength of a key multiplies them in the
    neural Turing machine, which this memory comes from.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1 or [S, D_out]; predicts logits [M, N], or a Gaussian
        [M, D_out].
    Args:
        backbone: from inputs to embeddings [R, D]; the paper's controller sees the pixels themselves.
        outputs, n_way: classes of a task, or D_out and 0.
        units: of the long short-term memory.
        rows, size: of the external memory.
        reads: heads that read and write.
        decay: of the usage of a row, in 0..1 (gamma in the paper).
        temperature: divides the similarities of keys to rows, > 0; the paper's is 1.
        label: what a label comes with: its `own` image, or `late`, the image after it and, the last one, queries.
        min_std: least standard deviation of a Gaussian, in 0..1.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Santoro, Bartunov, Botvinick, Wierstra, Lillicrap. Meta-Learning with Memory-Augmented Neural Networks.
        ICML 2016, equations 2 to 8.
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        n_way: int,
        units: PositiveInt,
        rows: PositiveInt,
        size: PositiveInt,
        reads: PositiveInt,
        decay: Annotated[float, Gt(0), Le(1)],
        temperature: PositiveFloat,
        label: Literal["late", "own"],
        min_std: Annotated[PositiveFloat, CountsBeside("data", ("regression",))],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, outputs, n_way, min_std, engine, task_chunk)
        if reads > rows:
            raise ValueError(f"algo.reads={reads} is more than the rows of the memory, algo.rows={rows}")
        self.joins = {"late": delay_labels, "own": label_tokens}[label]
        inputs = self.features + self.targets + (label == "own")  # and what tells queries from images without labels
        self.controller = Controller(inputs, units, rows, size, reads, decay, temperature, self.predicted)

    def read(self, params: Params, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        order = self.draw_order(targets)
        known, asked = self.joins(support[order], targets[order], query)
        predicted: Tensor = call(self.controller, within(params, "controller"), known, asked)
        return predicted


class Memory(NamedTuple):
    """The state of the controller.

    Attributes:
        hidden, cell: of the long short-term memory [1, units].
        rows: the memory [L, size].
        read: what was read last [1, H * size].
        read_weights: by which it was read [H, L].
        usage: of each row [L].
    """

    hidden: Tensor
    cell: Tensor
    rows: Tensor
    read: Tensor
    read_weights: Tensor
    usage: Tensor


class Controller(nn.Module):
    """The network of MANN. Shapes: known [S, inputs], asked [M, inputs] -> [M, outputs]."""

    def __init__(
        self,
        inputs: int,
        units: int,
        rows: int,
        size: int,
        reads: int,
        decay: float,
        temperature: float,
        outputs: int,
    ) -> None:
        super().__init__()
        self.units, self.rows, self.size, self.reads = units, rows, size, reads
        self.decay, self.temperature = decay, temperature
        self.lstm = LSTMCell(inputs, units + reads * size, units)
        self.key = nn.Linear(units, reads * size)
        self.gate = nn.Linear(units, reads)
        self.head = nn.Linear(units + reads * size, outputs)

    def forward(self, known: Tensor, asked: Tensor) -> Tensor:
        memory = self.start(known)
        for x in known[:, None]:  # [1, inputs]
            memory = self.write(memory, x)
        return self.ask(memory, asked)

    def start(self, like: Tensor) -> Memory:
        """Return an empty memory; its rows are small and equal, so that similarities to them are finite."""
        zeros = like.new_zeros
        rows = like.new_full((self.rows, self.size), 1e-6)
        weights = zeros(self.reads, self.rows)
        return Memory(zeros(1, self.units), zeros(1, self.units), rows, zeros(1, self.reads * self.size), weights,
                      zeros(self.rows))  # fmt: skip

    def write(self, memory: Memory, x: Tensor) -> Memory:
        """Take one step with the input x [1, inputs]: write, then read."""
        hidden, cell = self.lstm(x, torch.cat([memory.hidden, memory.read], -1), memory.cell)
        keys = self.key(hidden).tanh().reshape(self.reads, self.size)
        gate = self.gate(hidden).sigmoid().T  # [H, 1]
        least = find_least_used(memory.usage, self.reads)  # [L]
        weights = gate * memory.read_weights + (1 - gate) * least  # equation 7
        rows = memory.rows * (1 - least)[:, None] + weights.T @ keys  # equation 8, after the least used are erased
        read_weights = compare_rows(keys, rows, self.temperature)
        usage = self.decay * memory.usage + read_weights.sum(0) + weights.sum(0)  # equation 5
        read = (read_weights @ rows).reshape(1, -1)  # equation 4
        return Memory(hidden, cell, rows, read, read_weights, usage)

    def ask(self, memory: Memory, x: Tensor) -> Tensor:
        """Predict for the inputs x [M, inputs], each as one more step that only reads."""
        before = torch.cat([memory.hidden, memory.read], -1).expand(len(x), -1)
        hidden, _ = self.lstm(x, before, memory.cell.expand(len(x), -1))
        keys = self.key(hidden).tanh().reshape(-1, self.size)  # [M H, size]
        read = (compare_rows(keys, memory.rows, self.temperature) @ memory.rows).reshape(len(x), -1)
        out: Tensor = self.head(torch.cat([hidden, read], -1))
        return out


def delay_labels(support: Tensor, targets: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Join embeddings with the target before theirs, zeros with the first, the last with queries: [R, D + T] each."""
    late = torch.cat([torch.zeros_like(targets[:1]), targets])
    return torch.cat([support, late[:-1]], -1), torch.cat([query, late[-1:].expand(len(query), -1)], -1)


def compare_rows(keys: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Return the softmax of cosine similarities [R, L] of keys [R, size] to the rows [L, size]: equations 2 and 3."""
    return torch.softmax(find_cosines(keys, rows) / temperature, -1)


def find_least_used(usage: Tensor, n: int) -> Tensor:
    """Return 1 for the `n` rows with the least usage [L], 0 for the others: equation 6."""
    rank = usage.detach().argsort(stable=True).argsort()
    return (rank < n).to(usage.dtype)
