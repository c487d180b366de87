from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from metarun.algos.base.network import Network
from metarun.algos.generative.generator import Adversarial, GeneratorSettings, Look, tell_fake
from metarun.algos.gradient.maml import MAML, Adapted, MAMLSettings
from metarun.core.objectives import classification
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, call, within


class MetaGANSettings(MAMLSettings, GeneratorSettings):
    """Settings of MAML and of a generator."""


class MetaGANMAML(Adversarial, MAML):
    """MAML whose network also learns, in the inner loop too, to tell generated images of a task from its real ones.

    The head has N + 1 logits. The inner loop descends the support set's loss and `fake_weight` times that of generated
    images, which are constants there; the outer loop does so on the queries, and the generator learns to pass before
    the adapted network. At `fake_weight=0`, with the last logit at minus infinity, this is MAML.

    Unlike the paper: see MetaGAN; the encoding is made from embeddings before the inner loop.

    Shapes: as MAML.
    Args:
        backbone, outputs: see MAML.
        input_shape, normalisation: of the source.
        settings: see MAMLSettings and GeneratorSettings.
    Reference: as MetaGAN, section 4.2.
    """

    kinds = ("classification",)

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        input_shape: tuple[int, ...],
        normalisation: Look,
        **settings: Unpack[MetaGANSettings],
    ) -> None:
        own: MAMLSettings = {key: settings[key] for key in MAMLSettings.__annotations__ if key in settings}  # type: ignore[assignment, literal-required]
        MAML.__init__(self, backbone, outputs, classification, **own)
        self.add_generator(int(backbone.out_features), input_shape, normalisation, settings)  # type: ignore[arg-type]

    def network(self, backbone: nn.Module, outputs: int) -> Network:
        return Network(backbone, outputs + 1)

    def adapt_from(self, net: Params, support: Examples, params: Params) -> Adapted:
        if not self.fake_weight:
            return super().adapt_from(net, support, params)
        plain, made = self.support_loss(net, support), self.make(params, support.x).detach()

        def loss(phi: Params) -> Tensor:
            return plain(phi) + self.fake_weight * tell_fake(call(self.net, net | phi, made))

        phi, after = self.descend(loss, self.select_adapted(net), params)
        return Adapted(net | phi, support, {steps: net | moved for steps, moved in after.items()})

    def find_features(self, params: Params, x: Tensor) -> Tensor:
        features: Tensor = call(self.net.backbone, within(params, "net.backbone"), x)
        return features

    def tell_apart(self, params: Params, state: Adapted, x: Tensor) -> Tensor:
        return MAML.predict(self, params, state, x)

    def support_of(self, state: Adapted) -> Tensor:
        return state.support.x

    def freeze(self, state: Adapted) -> Adapted:
        return state._replace(phi={name: value.detach() for name, value in state.phi.items()})
