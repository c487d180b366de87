from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from metarun.algos.continual.fit import BatchFit, BatchFitSettings
from metarun.algos.continual.in_turn import InTurn
from metarun.core.ranges import CountsBeside
from metarun.core.tasks import Examples
from metarun.ops import context
from metarun.ops.functional import Params, call, flatten_name, within


class Columns(NamedTuple):
    """A network for each task so far, with its head and its connections to those before it, and the classes of all."""

    every: tuple[Params, ...]
    n_classes: int


class Progressive(InTurn):
    """Each task gets a network of its own, a column, which also takes what all earlier columns, now frozen, make of it.

    Every layer with weights but the first gets h_k + sum_j A_kj h_j, where h_j is what the same layer of column j gets,
    and A_kj mixes its channels. That is the paper's sum of W_k h_k and U_kj h_j with U_kj = W_k A_kj, as its adapters
    project before a layer; they have a nonlinearity besides. A_kj starts at zero, and all columns at the same weights:
    a column differs from a network that learns its task alone by nothing but what flows from earlier tasks. Since they
    are frozen, nothing that was learned is forgotten where it is known which task a question belongs to.

    The weights that columns start from are trained to tell all training classes apart; `run.steps=0` leaves them as
    they were drawn, as in the paper.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: what a column looks like, from inputs to features [R, D].
        train_classes: classes of the split train.
        lateral: whether columns are connected; false: independent networks.
        settings: of the fit, see BatchFitSettings.
    Reference: Rusu et al. Progressive Neural Networks. 2016. arXiv:1606.04671, equations 1 and 2.
    """

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        lateral: Annotated[bool, CountsBeside("run", ("continual",))],
        **settings: Unpack[BatchFitSettings],
    ) -> None:
        super().__init__("vectorized", settings["task_chunk"])
        self.fit, self.lateral = BatchFit(settings), lateral
        self.backbone = backbone
        self.classifier = nn.Linear(int(backbone.out_features), train_classes)  # type: ignore[arg-type]

    def begin(self, params: Params, n_classes: int) -> Columns:
        return Columns((), n_classes)

    def learn(self, params: Params, known: Columns, examples: Examples, classes: range) -> Columns:
        def loss(batch: Examples, phi: Params) -> Tensor:
            return cross_entropy(self._run(known.every, batch.x, phi)[-1], batch.y - classes.start)

        column = self.fit(loss, self._make_column(params, len(known.every), len(classes)), examples)
        averages = self.find_averages(lambda: self._run(known.every, examples.x, column))
        return Columns((*known.every, column | averages), known.n_classes)

    def answer(self, params: Params, known: Columns, x: Tensor) -> Tensor:
        logits = torch.cat(self._run(known.every, x), 1)
        return nn.functional.pad(logits, (0, known.n_classes - logits.shape[1]), value=-torch.inf)

    def describe(self) -> dict[str, Any]:
        return self.fit.describe()

    def _make_column(self, params: Params, earlier: int, n_way: int) -> Params:
        """Return a column's first weights: a network, a head of n_way classes, and mixtures `JOINT.COLUMN`."""
        weight = params["classifier.weight"]
        column = {name: value for name, value in params.items() if name.startswith("backbone.")}
        column |= {"head.weight": weight.new_zeros(n_way, weight.shape[1]), "head.bias": weight.new_zeros(n_way)}
        widths = {name: layer.weight.shape[1] for name, layer in self._list_joints().items()}
        widths["head"] = weight.shape[1]
        for name, width in widths.items() if self.lateral else ():
            column |= {f"{flatten_name(name)}.{j}": weight.new_zeros(width, width) for j in range(earlier)}
        return column

    def _list_joints(self) -> dict[str, Any]:
        """List the layers of a backbone that take something from earlier columns, by name."""
        weighted = [
            (name, layer)
            for name, layer in self.backbone.named_modules()
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
        ]
        return dict(weighted[1:])

    def _run(self, columns: Sequence[Params], x: Tensor, moving: Params | None = None) -> list[Tensor]:
        """Return the logits [R, N] of each column, at the end those of one that is being fit, if any."""
        seen: list[dict[str, Tensor]] = []
        logits = []
        for column in (*columns, moving) if moving else columns:
            with self._joined(column, seen) as inputs, context.adapting() if column is moving else context.frozen():
                features = call(self.backbone, within(column, "backbone"), x)
            joined = _join(column, "head", features, seen)
            logits.append(linear(joined, column["head.weight"], column["head.bias"]))
            seen.append(inputs | {"head": features})
        return logits

    @contextmanager
    def _joined(self, column: Params, seen: Sequence[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Inside, the backbone's layers get their shares of `seen`; yields what each would get without, by name."""
        inputs: dict[str, Tensor] = {}

        def enter(name: str, layer: nn.Module, got: tuple[Tensor]) -> Tensor:
            inputs[name] = got[0]
            return _join(column, name, got[0], seen)

        hooks = [layer.register_forward_pre_hook(partial(enter, name)) for name, layer in self._list_joints().items()]
        try:
            yield inputs
        finally:
            for hook in hooks:
                hook.remove()


def _join(column: Params, joint: str, own: Tensor, seen: Sequence[dict[str, Tensor]]) -> Tensor:
    """Return what a layer gets: `own` [R, C, ...] and what the column mixes of earlier ones' at the same place."""
    for j, earlier in enumerate(seen):
        mixture = column.get(f"{flatten_name(joint)}.{j}")
        if mixture is not None:
            own = own + torch.einsum("oc,rc...->ro...", mixture, earlier[joint])
    return own
