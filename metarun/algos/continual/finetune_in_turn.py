from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Unpack

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from metarun.algos.continual.fit import BatchFit, BatchFitSettings
from metarun.algos.continual.in_turn import InTurn
from metarun.core.ranges import CountsBeside
from metarun.core.tasks import Examples
from metarun.ops import context
from metarun.ops.functional import Params, call, within


class Moved(NamedTuple):
    """What the tasks so far have moved, a head of all classes and the network with it unless it is frozen, and the
    averages of what the last task put through it."""

    phi: Params
    averages: Params


class FineTuneInTurn(InTurn):
    """Learns to tell all training classes apart; then one network, or its head alone, is fit to task after task.

    Nothing keeps it from forgetting: it is what continual learners are held against. With `run.steps=0` the network
    starts as it was drawn, from scratch. The head of a stream's classes starts at zero.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to features [R, D].
        train_classes: classes of the split train.
        moves: `all`, the network and the head; `head`.
        rivals: the classes that a task's own are told from when it is learned: `all` of the stream, or those of the
            `task`, as where each task has a head.
        settings: of the fit, see BatchFitSettings.
    """

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        moves: Literal["all", "head"],
        rivals: Annotated[Literal["all", "task"], CountsBeside("run", ("continual",))],
        **settings: Unpack[BatchFitSettings],
    ) -> None:
        super().__init__("vectorized", settings["task_chunk"])
        self.fit, self.moves, self.rivals = BatchFit(settings), moves, rivals
        self.backbone = backbone
        self.classifier = nn.Linear(int(backbone.out_features), train_classes)  # type: ignore[arg-type]

    def begin(self, params: Params, n_classes: int) -> Moved:
        weight = params["classifier.weight"]
        head = weight.new_zeros(n_classes, weight.shape[1])
        net = {name: value for name, value in params.items() if name.startswith("backbone.") and self.moves == "all"}
        return Moved(net | {"head.weight": head, "head.bias": head[:, 0].clone()}, {})

    def learn(self, params: Params, known: Moved, examples: Examples, classes: range) -> Moved:
        if self.moves == "head":
            with context.frozen():
                examples = Examples(self._represent(params, examples.x), examples.y)
        own = slice(classes.start, classes.stop)
        rivals = own if self.rivals == "task" else slice(None)

        def loss(batch: Examples, phi: Params) -> Tensor:
            features = batch.x if self.moves == "head" else self._represent(phi, batch.x)
            logits = linear(features, phi["head.weight"], phi["head.bias"])
            return cross_entropy(logits[:, rivals], batch.y - (rivals.start or 0))

        with context.adapting():
            phi = self.fit(loss, known.phi, examples)
        if self.moves == "head":
            return Moved(phi, {})
        return Moved(phi, self.find_averages(lambda: self._represent(phi, examples.x)))

    def answer(self, params: Params, known: Moved, x: Tensor) -> Tensor:
        features = self._represent(params | known.phi | known.averages, x)
        return linear(features, known.phi["head.weight"], known.phi["head.bias"])

    def describe(self) -> dict[str, Any]:
        return self.fit.describe()

    def _represent(self, params: Params, x: Tensor) -> Tensor:
        features: Tensor = call(self.backbone, within(params, "backbone"), x)
        return features
