from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from metarun.algos.base.metric import average_classes
from metarun.algos.base.network import with_support
from metarun.algos.base.pretraining import Fit, FitSettings, Pretraining
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, call, one_hot, within


class Tuned(NamedTuple):
    """A task's state: the tuned network with its head, and the support inputs that `bn=support` normalises by."""

    phi: Params
    support_x: Tensor


class FineTune(Pretraining):
    """Learns to tell all training classes apart; the whole network and a new head are fit to each task's support set.

    The head starts at the class means of the normalised embeddings (the paper's support-based initialisation, which
    it puts on top of the old classifier's logits).

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        settings: of the fit of all weights, see FitSettings.
    Reference: Dhillon, Chaudhari, Ravichandran, Soatto. A Baseline for Few-Shot Image Classification. ICLR 2020.
        arXiv:1909.02729, section 3.
    """

    def __init__(self, backbone: nn.Module, train_classes: int, **settings: Unpack[FitSettings]) -> None:
        super().__init__(settings["engine"], settings["task_chunk"])
        self.fit = Fit.of(settings)
        self.backbone = backbone
        self.classifier = nn.Linear(int(backbone.out_features), train_classes)  # type: ignore[arg-type]

    def adapt(self, params: Params, support: Examples, n_way: int) -> Tuned:
        def loss(phi: Params) -> Tensor:
            return cross_entropy(self._logits(phi, support.x), support.y)

        phi = {name: value.detach() for name, value in params.items() if name.startswith("backbone.")}
        embedded = normalize(call(self.backbone, within(phi, "backbone"), support.x), dim=-1)
        weight = average_classes(embedded, one_hot(support.y, n_way, embedded.dtype))
        phi |= {"head.weight": weight, "head.bias": weight.new_zeros(n_way)}
        return Tuned(self.fit(loss, phi), support.x)

    def predict(self, params: Params, state: Tuned, x: Tensor) -> Tensor:
        return with_support(self.backbone, lambda rows: self._logits(state.phi, rows), state.support_x, x)

    def describe(self) -> dict[str, Any]:
        return self.fit.describe()

    def _logits(self, phi: Params, x: Tensor) -> Tensor:
        return linear(call(self.backbone, within(phi, "backbone"), x), phi["head.weight"], phi["head.bias"])
