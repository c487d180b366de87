from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.generative.decoder import make_decoder
from metarun.algos.generative.pictures import draw_rows
from metarun.algos.processes.cnp import make_mlp
from metarun.core import objectives
from metarun.core.ranges import NonNegativeFloat, PositiveInt
from metarun.core.scores import Directions
from metarun.core.tasks import Batch, Examples, OptimFactory
from metarun.ops.functional import Params, call, within

Look = tuple[Sequence[float], Sequence[float]] | None
SHOWN, MOST_ROWS = 5, 16
"""In a picture: support images of a task at most, and tasks at most."""


class GeneratorSettings(TypedDict):
    """Settings of MetaGAN's generator.

    Keys:
        fake_weight: of the classifier's term for generated images (lambda), >= 0.
        fakes: generated images of a task and step.
        latent: size of the noise.
        width: size of a task's encoding, and units of its hidden layer.
        filters: of the decoder, see ImageDecoder.
    """

    fake_weight: NonNegativeFloat
    fakes: PositiveInt
    latent: PositiveInt
    width: PositiveInt
    filters: PositiveInt


class Generator(nn.Module):
    """Makes inputs from noise [F, Z], for the task whose support images have these features [S, D]: [F, *shape].

    Args:
        features: D.
        shape: of one input.
        look: mean and std that the source's images are normalised with; None if inputs are no images.
    """

    def __init__(self, features: int, shape: tuple[int, ...], look: Look, settings: GeneratorSettings) -> None:
        super().__init__()
        width = settings["width"]
        self.encoder = make_mlp(features, width, 1, width)
        self.decoder = make_decoder(settings["latent"] + width, shape, 1, width, 1, settings["filters"])
        self.is_image = look is not None
        self.mean: Tensor
        self.std: Tensor
        for name, values in zip(("mean", "std"), look or ((0.0,), (1.0,)), strict=True):
            self.register_buffer(name, torch.tensor(list(values))[:, None, None], persistent=False)

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        code = self.encoder(features).mean(0).expand(noise.shape[0], -1)
        made: Tensor = self.decoder(torch.cat([noise, code], 1))[:, 0]
        return (made.sigmoid() - self.mean) / self.std if self.is_image else made

    def to_pixels(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean


class Adversarial(EpisodicLearner):
    """A classifier of N + 1 classes, of which the last are generated images, and their generator, each with its loss.

    It stands before the base that classifies. In training `predict` gives N + 1 logits, in tests N. Both players move
    at once: the classifier descends L_D with the images as constants, the generator L_G with the classifier as one.
    """

    goal = "both"
    directions: ClassVar[Directions] = {"fake_on_real": "lower", "fake_on_made": "higher", "generator_loss": "lower"}
    generator: Generator
    fake_weight: float
    noise: Tensor

    def add_generator(self, features: int, shape: tuple[int, ...], look: Look, settings: GeneratorSettings) -> None:
        self.generator = Generator(features, shape, look, settings)
        self.fake_weight = settings["fake_weight"]
        numbers = torch.Generator().manual_seed(0)
        noise = torch.randn(settings["fakes"], settings["latent"], generator=numbers)
        self.register_buffer("noise", noise.to(torch.get_default_dtype()), persistent=False)  # of tests

    def build_optims(self, optim: OptimFactory) -> dict[str, Optimizer]:
        theirs = set(self.generator.parameters())
        rest = [parameter for parameter in self.parameters() if parameter not in theirs]
        return {"outer": optim(rest), "generator": optim(self.generator.parameters(), "generator")}

    @abstractmethod
    def find_features(self, params: Params, x: Tensor) -> Tensor:
        """Return the backbone's features of support images, [S, D]."""

    @abstractmethod
    def tell_apart(self, params: Params, state: Any, x: Tensor) -> Tensor:
        """Return all N + 1 logits for inputs x [M, ...]."""

    @abstractmethod
    def support_of(self, state: Any) -> Tensor:
        """Return the support images that a state was made from."""

    def freeze(self, state: Any) -> Any:
        """Return the state as a constant."""
        return state

    def make(self, params: Params, support_x: Tensor) -> Tensor:
        """Make fake inputs [F, ...] of a task; in tests from the same noise for each."""
        noise = torch.randn_like(self.noise) if self.training else self.noise
        features = self.find_features(params, support_x).detach()
        made: Tensor = call(self.generator, within(params, "generator"), features, noise)
        return made

    def predict(self, params: Params, state: Any, x: Tensor) -> Tensor:
        logits = self.tell_apart(params, state, x)
        return logits if self.training else logits[:, :-1]

    def score(self, params: Params, state: Any, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        if not self.training:
            return super().score(params, state, output, y)
        made = self.make(params, self.support_of(state))
        loss = F.cross_entropy(output, y)  # -log p(y | x, y <= N) - log p(y <= N | x)
        if self.fake_weight:
            loss = loss + self.fake_weight * tell_fake(self.tell_apart(params, state, made.detach()))
        frozen = {name: value.detach() for name, value in params.items()}
        generator_loss = pass_as_real(self.tell_apart(frozen, self.freeze(state), made))
        accuracy = objectives.classification(output[:, :-1], y)["accuracy"]
        both = {"both": loss + generator_loss, "generator_loss": generator_loss.detach()}
        return {"loss": loss.detach(), "accuracy": accuracy, **both}

    def extra_scores(self, params: Params, state: Any, query: Examples) -> dict[str, Tensor]:
        scores = super().extra_scores(params, state, query)
        if self.training:
            return scores
        made = self.make(params, self.support_of(state))
        sides = {"fake_on_real": query.x, "fake_on_made": made}
        return scores | {name: self.tell_apart(params, state, x).softmax(1)[:, -1].mean() for name, x in sides.items()}

    @torch.no_grad()
    def draw(self, batch: Batch) -> Mapping[str, Any]:
        """Draw what is generated for each task, behind its first support images."""
        if not self.generator.is_image:
            return {}
        rows, shown = [], min(SHOWN, batch.support.x.shape[1])
        for support_x in batch.support.x[:MOST_ROWS]:
            made = self.make(self.theta(), support_x)
            rows.append(self.generator.to_pixels(torch.cat([support_x[:shown], made])))
        return {"generated": draw_rows(torch.stack(rows), given=shown)}


def tell_fake(logits: Tensor) -> Tensor:
    """Return -E log p(N + 1 | x) of logits [M, N + 1]."""
    return -logits.log_softmax(1)[:, -1].mean()


def pass_as_real(logits: Tensor) -> Tensor:
    """Return -E log p(y <= N | x) of logits [M, N + 1]."""
    return -logits.log_softmax(1)[:, :-1].logsumexp(1).mean()
