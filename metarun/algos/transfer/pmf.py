from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner, average_classes, embed_together, find_cosines
from metarun.algos.base.network import check_adaptable
from metarun.algos.base.pretraining import fit_weights
from metarun.core.episodes import draw_bits, scale_to_unit
from metarun.core.ranges import CountsWith, NonNegativeFloat, NonNegativeInt, PositiveFloat
from metarun.core.tasks import Examples
from metarun.ops.functional import Params, within

SHIFT = 8
"""An augmented image is moved by an eighth of its side at most."""


class Tuned(NamedTuple):
    """A task's state: the tuned network, the support set, and a one-hot [S, N] of its labels."""

    phi: Params
    x: Tensor
    classes: Tensor


class PMF(MetricLearner):
    """Learns from tasks by cosines to class means; tests first fine-tune the network on augmented support images.

    These are the last two of the three stages pre-train, meta-train, fine-tune: `backbone.weights` gives the first. A
    step of the fine-tuning asks for the classes of augmented copies of the support images by their cosines to the class
    means of the images themselves. With no rate or no step this is ProtoNet with cosines. The paper's code chooses the
    rate for each test domain on tasks of this domain; `metarun eval RUN algo.inner_lr=0,0.001,0.003,0.01 --choose`
    chooses on validation tasks.

    Copies are mirrored, moved and changed in brightness and contrast by numbers that depend on the image's place in the
    support set and the step alone, so that a task is the same whenever it comes.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: from inputs to embeddings [R, D].
        scale: factor of the cosines, > 0.
        inner_lr: step size of the fine-tuning, >= 0.
        test_inner_steps: its steps, in validation and test.
        augment: how strongly copies are changed, >= 0; 0 leaves the support set as it is.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Hu, Li, Stühmer, Kim, Hospedales. Pushing the Limits of Simple Pipelines for Few-Shot Learning. CVPR
        2022. arXiv:2204.07305, section 3.3.
    """

    def __init__(
        self,
        backbone: nn.Module,
        scale: PositiveFloat,
        inner_lr: NonNegativeFloat,
        test_inner_steps: NonNegativeInt,
        augment: Annotated[NonNegativeFloat, CountsWith("test_inner_steps")],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(backbone, engine, task_chunk)
        if inner_lr and test_inner_steps:
            check_adaptable(backbone, "PMF", "set backbone.frozen=false, or algo.inner_lr=0 for its cosines alone")
        self.scale, self.lr, self.steps, self.augment = scale, inner_lr, test_inner_steps, augment

    def input_encoder(self) -> Any:
        return None if self.lr and self.steps else super().input_encoder()

    def adapt(self, params: Params, support: Examples, n_way: int) -> Any:
        state = super().adapt(params, support, n_way)
        phi = within(params, "backbone")
        if self.training or not (self.lr and self.steps):
            return Tuned(phi, state.x, state.classes)
        for step in range(self.steps):
            copies = change_images(support.x, step, self.augment)

            def loss(now: Params, copies: Tensor = copies) -> Tensor:
                known, asked = embed_together(self.backbone, now, support.x, copies)
                return cross_entropy(self.compare(params, known, state.classes, asked), support.y)

            phi = fit_weights(loss, phi, 1, self.lr, 0.0)
        return Tuned(phi, state.x, state.classes)

    def predict(self, params: Params, state: Any, x: Tensor) -> Tensor:
        tuned = {**params, **{f"backbone.{name}": value for name, value in state.phi.items()}}
        return super().predict(tuned, state, x)

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        return self.scale * find_cosines(query, average_classes(support, classes))

    def describe(self) -> dict[str, Any]:
        return {"inner_steps": {"train": 0, "test": self.steps}, "inner_lr": self.lr}


def change_images(x: Tensor, step: int, strength: float) -> Tensor:
    """Return copies of images [S, C, H, W], mirrored, moved and changed in brightness and contrast.

    The brightness gets up to half a standard deviation of the normalised images more or less, and the contrast a factor
    of 1/2 to 3/2, each times `strength`.
    """
    if not strength:
        return x
    u = torch.from_numpy(scale_to_unit(draw_bits(step, "pmf", torch.arange(len(x)).numpy(), 5)))  # [S, 5]
    u = u.to(x.device, x.dtype)[:, :, None, None, None]  # [S, 5, 1, 1, 1]
    x = torch.where(u[:, 0] < 0.5, x, x.flip(-1))
    side = x.shape[-1]
    most = int(strength * side / SHIFT)
    rows, columns = ((u[:, i].flatten() * (2 * most + 1)).long() for i in (1, 2))  # [S], in 0..2*most
    padded = pad(x, (most, most, most, most))
    place = torch.arange(side, device=x.device)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    x = padded[image, :, (rows[:, None] + place)[:, :, None], (columns[:, None] + place)[:, None, :]]
    x = x.permute(0, 3, 1, 2)  # [S, C, H, W]
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (1 + strength * (u[:, 3] - 0.5)) + mean + strength * (u[:, 4] - 0.5)
