from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from metarun.algos.base.metric import average_classes
from metarun.algos.base.network import with_support
from metarun.algos.base.pretraining import Fit, Pretraining, PretrainingSettings
from metarun.core.ranges import CountsWith, NonNegativeFloat
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

    A pull keeps the network near the one that all tasks start from, its source: the fit descends the cross-entropy plus
    `pull_weight` times a squared distance to the source, of the backbone's weights (`l2sp`: the sum over all of them;
    the paper's alpha / 2) or of the support set's embeddings (`features`: the mean over images of the sum over
    dimensions). What is pulled to its source is not pulled to zero too: the weight decay is then the head's alone.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        train_classes: classes of the split train.
        pull: `none`, `l2sp` or `features`.
        pull_weight: lambda, >= 0; the fit is stable while 2 lambda inner_lr < 2.
        settings: of the classifier's training and the fit of all weights, see PretrainingSettings.
    Reference: Dhillon, Chaudhari, Ravichandran, Soatto. A Baseline for Few-Shot Image Classification. ICLR 2020.
        arXiv:1909.02729, section 3. l2sp: Li, Grandvalet, Davoine. Explicit Inductive Bias for Transfer Learning with
        Convolutional Networks. ICML 2018. arXiv:1802.01483, equation 3. features, without their attention: Li et al.
        DELTA. ICLR 2019. arXiv:1901.09229.
    """

    def __init__(
        self,
        backbone: nn.Module,
        train_classes: int,
        pull: Literal["none", "l2sp", "features"],
        pull_weight: Annotated[NonNegativeFloat, CountsWith("pull", ("l2sp", "features"))],
        **settings: Unpack[PretrainingSettings],
    ) -> None:
        super().__init__(settings["engine"], settings["task_chunk"])
        self.fit, self.label_smoothing = Fit.of(settings), settings.get("label_smoothing", 0.0)
        self.pull, self.pull_weight = pull, pull_weight
        self.backbone = backbone
        self.classifier = nn.Linear(int(backbone.out_features), train_classes)  # type: ignore[arg-type]

    def adapt(self, params: Params, support: Examples, n_way: int) -> Tuned:
        source = {name: value.detach() for name, value in params.items() if name.startswith("backbone.")}
        at_source = self._embed(source, support.x).detach()

        def loss(phi: Params) -> Tensor:
            embedded = self._embed(phi, support.x)
            lost = cross_entropy(linear(embedded, phi["head.weight"], phi["head.bias"]), support.y)
            if self.pull == "l2sp":
                apart = torch.stack([(phi[name] - value).square().sum() for name, value in source.items()]).sum()
                return lost + self.pull_weight * apart
            if self.pull == "features":
                return lost + self.pull_weight * (embedded - at_source).square().sum(-1).mean()
            return lost

        weight = average_classes(normalize(at_source, dim=-1), one_hot(support.y, n_way, at_source.dtype))
        phi = source | {"head.weight": weight, "head.bias": weight.new_zeros(n_way)}
        return Tuned(self.fit(loss, phi, kept=() if self.pull == "none" else source), support.x)

    def predict(self, params: Params, state: Tuned, x: Tensor) -> Tensor:
        return with_support(self.backbone, lambda rows: self._logits(state.phi, rows), state.support_x, x)

    def describe(self) -> dict[str, Any]:
        return self.fit.describe()

    def _embed(self, phi: Params, x: Tensor) -> Tensor:
        embedded: Tensor = call(self.backbone, within(phi, "backbone"), x)
        return embedded

    def _logits(self, phi: Params, x: Tensor) -> Tensor:
        return linear(self._embed(phi, x), phi["head.weight"], phi["head.bias"])
