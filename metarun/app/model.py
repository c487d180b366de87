"""A trained model in use: `Model.load` opens a run, `adapt` takes a support set, and its result answers queries."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metarun.algos.base.abilities import AdaptsToTask, Predicting
from metarun.algos.base.learner import Learner
from metarun.algos.base.metric import MetricLearner
from metarun.app.adapted import Classifier, Function, Support
from metarun.app.descriptions import take_descriptions
from metarun.app.jobs.calibrated import Calibration, find_calibration
from metarun.app.jobs.reopened import Trained, open_trained
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.tasks import Examples
from metarun.data.augment import Look
from metarun.data.files.decode import Range, read_pixels
from metarun.data.given import find_scale, take_images
from metarun.ops import norm
from metarun.run import checkpoint
from metarun.settings.check import has_head
from metarun.settings.conf import list_parts, list_shipped, read_shipped
from metarun.settings.reopen import SavedSettings
from metarun.settings.resolve import find_target

KEYS, UNDER = ("threads", "data.path", "data.range"), ("algo.test_", "paths.")
"""Settings, and beginnings of settings, that a model may be used with in place of the run's."""

log = logging.getLogger(__name__)


class Model:
    """A trained run's network with all that belongs to its use: weights, test settings, device, look of its inputs.

        model = Model.load("outputs/RUN")
        few = model.adapt({"fox": ["a.jpg", "b.jpg"], "owl": ["c.jpg"]})
        few.predict(["d.jpg"])                  # ["owl"]

    Images are paths, Pillow images, arrays [H, W] or [H, W, C], or tensors [H, W] or [C, H, W]; they are scaled and
    normalised as the run's own. Nothing here changes the weights, or the global random states.

    Attributes:
        bn: the BatchNorm mode in use.
        n_way: the number of classes that it takes; None if it takes any, 0 if it was trained on functions.
    """

    def __init__(self, run: Trained, saved: SavedSettings, learner: Learner) -> None:
        self.run, self.saved, self.learner = run, saved, learner
        self.info, self.settings = run.source.info, saved.resolve()
        self.bn: str = self.settings.bn
        fixed = has_head(self.settings.algo["_target_"])
        self.n_way = self.info.n_way if fixed or not self.info.n_way else None
        self._calibration: Calibration | None = None
        self._held = ExitStack()

    @classmethod
    def load(
        cls,
        run: str | Path,
        bn: str | None = None,
        device: str | None = None,
        settings: Mapping[str, Any] | None = None,
        trust: bool = False,
    ) -> Model:
        """Open a finished run by its folder; its training data is not needed.

        Args:
            run: the run's folder.
            bn: a BatchNorm mode; by default the run's, but `support` in place of `transductive`.
            device: in place of the run's.
            settings: others in place of the run's, by key, as {"algo.test_inner_steps": 10}.
            trust: whether the run's settings may name code that does not come with metarun.
        Raises: ConfigError, a ValueError, if there is no such run, or it cannot be used in this way.
        """
        asked = dict(settings or {})
        if wrong := [key for key in asked if key not in KEYS and not key.startswith(UNDER)]:
            raise ConfigError(
                f"{wrong[0]} is not for the use of a model, which takes bn=, device=, {'=, '.join(KEYS)}=, "
                f"{'KEY=, '.join(UNDER)}KEY="
            )
        machine = {"device": device} if device else {}
        machine |= {"threads": asked.pop("threads")} if "threads" in asked else {}
        random = checkpoint.get_random_states()
        with ExitStack() as held:
            opened = held.enter_context(open_trained(Path(run), asked, machine, trust))
            saved = opened.saved.change({**asked, "bn": _choose_mode(opened, bn)})
            learner = opened.make_learner(saved.resolve()).eval()
            checkpoint.restore_random(random)
            model = cls(opened, saved, learner)
            model._held = held.pop_all()
        return model

    @property
    def calibration(self) -> Calibration:
        """The temperature of its probabilities, from the run's folder, or fitted now if the run's data is at hand."""
        if self._calibration is None:
            assert isinstance(self.learner, AdaptsToTask)
            self._calibration = find_calibration(self.run, self.saved, self.learner)
        return self._calibration

    def find_temperature(self) -> float:
        """Return what divides the logits."""
        return self.calibration.temperature

    def adapt(self, support: Any) -> Any:
        """Adapt to a support set.

        Args:
            support: images by class, of any number each, as {"fox": ["a.jpg"], "owl": [...]}; for a model that tells
                classes by descriptions, a vector [D] or several [P, D] for each, or their names alone, as
                ["fox", "owl"]; for a model of functions, a pair of x [S, D_in] and y [S, D_out].
        Returns: a Classifier, or a Function.
        """
        return self.adapt_to_points(*support) if not self.info.n_way else self.adapt_to_classes(support)

    def adapt_to_classes(self, support: Mapping[str, Any]) -> Classifier:
        """Adapt to images by class, or, if the run tells classes by descriptions, to what is said of each."""
        if not self.info.n_way:
            raise ConfigError(f"the run learned functions (data={self.settings.choices['data']}), and no classes")
        if not isinstance(self.learner, AdaptsToTask):
            raise ConfigError(
                f"{type(self.learner).__name__} does not tell its answers: it needs a method adapt_to, which every "
                "EpisodicLearner has"
            )
        if self.info.support_shape:
            classes, told = take_descriptions(support, self.settings.data, self.info)
            self._check_ways(len(classes))
            examples = Examples(*(side.to(self.run.device) for side in told))
            unseen = torch.empty(0, *self.info.input_shape, dtype=torch.uint8)
            return Classifier(self, Support(classes, unseen, told.y, None), examples)
        if not isinstance(support, Mapping):
            raise ConfigError('a support set is images by class, as {"fox": ["a.jpg"], "owl": ["b.jpg", "c.jpg"]}')
        self._check_ways(len(support))
        with wrong_input():
            given = {label: take_images(own) for label, own in support.items()}
        images = [image for own in given.values() for image in own]
        pixels, limits = self.read_pixels(images, "the support set")
        counts = torch.tensor([len(images) for images in given.values()])
        y = torch.arange(len(given)).repeat_interleave(counts)
        x = self.make_inputs(pixels)
        return Classifier(self, Support(list(given), pixels, y, limits), Examples(x, y.to(x.device)))

    def adapt_to_points(self, x: Any, y: Any) -> Function:
        """Adapt to points x [S, D_in], y [S, D_out] of a function."""
        if self.info.n_way:
            raise ConfigError(f"the run learned classes (data={self.settings.choices['data']}), and no functions")
        if not isinstance(self.learner, Predicting):
            raise ConfigError(f"{type(self.learner).__name__} does not tell its predictions: it needs `predictions`")
        sides = [torch.as_tensor(side, dtype=torch.get_default_dtype(), device=self.run.device) for side in (x, y)]
        shapes, wanted = [tuple(side.shape) for side in sides], (*self.info.input_shape, self.info.outputs)
        if not len(sides[0]) or shapes != [(len(sides[0]), wanted[0]), (len(sides[0]), wanted[-1])]:
            raise ConfigError(f"points are x [S, {wanted[0]}] and y [S, {wanted[-1]}]; these are {shapes}")
        return Function(self.learner, Examples(*sides))

    def embed(self, images: Any) -> Tensor:
        """Return the embeddings [R, ...] of images, if the learner compares embeddings.

        With bn=support and bn=transductive the images of a call normalise each other, which a warning says;
        `Classifier.embed` has no such effect.
        """
        backbone, pixels = self.find_backbone(), self.read_pixels(images)[0]
        if not norm.normalises_rows_alone(backbone):
            log.warning("bn=%s: the embedding of an image depends on the others that are embedded with it", self.bn)
        with torch.no_grad():
            embedded: Tensor = backbone(self.make_inputs(pixels))
        return embedded.cpu()

    def find_backbone(self) -> nn.Module:
        """Return the network that embeds. Raises: ConfigError if no network is the same for all tasks."""
        if not isinstance(self.learner, MetricLearner):
            raise ConfigError(
                f"{type(self.learner).__name__} has no embedding that is the same for every task; methods by "
                "comparison have one, as algo=protonet"
            )
        return self.learner.backbone

    def read_pixels(
        self, images: Any, name: str = "those given", limits: Range | None = None
    ) -> tuple[Tensor, Range | None]:
        """Read images as the network sees them: pixels [R, C, H, W] uint8, on the CPU, and their range.

        Args:
            images: what is to be read.
            name: what messages call them.
            limits: the range of gray images of more than 8 bits where the run has none; None guesses it.
        Raises: ConfigError that names images which cannot be read.
        """
        with wrong_input():
            parts = list_parts(self.settings.as_dict(), self.settings.own)
            scale = find_scale(parts[0] if len(parts) == 1 else self.settings.data, self.info.input_shape)
            scale = replace(scale, range=scale.range or limits)
            pixels, limits = read_pixels(take_images(images), scale, name)
        return torch.from_numpy(pixels), limits

    def tell_classes(self, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Return what the run's data says of classes by their names, as in the `side` of its tasks."""
        tell = getattr(find_target(self.settings.data), "tell_classes", None)
        with wrong_input():
            told = tell(names, self.settings.data) if tell else {}
        return {name: fact.to(self.run.device) for name, fact in told.items()}

    def make_inputs(self, pixels: Tensor) -> Tensor:
        """Make inputs [R, C, H, W] of the network, on its device, of pixels [R, C, H, W] uint8."""
        normalisation = self.run.source.look or self.info.normalisation
        if normalisation is None:
            raise ConfigError("the run was trained on images that are not all normalised alike: yours would fit none")
        return Look(*normalisation)(pixels.to(self.run.device), None)

    def _check_ways(self, n_way: int) -> None:
        """Raise ConfigError if the learner does not take so many classes."""
        if n_way < 2:
            raise ConfigError(f"a support set has two classes at least; this one has {n_way}")
        if self.n_way not in (None, n_way):
            first, *others = [one for one in list_shipped("algo") if _takes_any(one)]
            raise ConfigError(
                f"this {type(self.learner).__name__} has a head for {self.n_way} classes, and the support set has "
                f"{n_way}: give it {self.n_way}, or train a method that takes any number: algo={first}, "
                f"{', '.join(others)}"
            )


def _takes_any(algo: str) -> bool:
    """Return whether a shipped algorithm classifies among any number of classes."""
    node = read_shipped(algo, "algo")
    return "classification" in find_target(node).kinds and not has_head(node["_target_"])


def _choose_mode(run: Trained, asked: str | None) -> str:
    """Choose the BatchNorm mode: the run's own, but where that is transductive, the statistics of the support set."""
    own, *others = run.modes
    if asked is None:
        return "support" if own == "transductive" and others else own
    if asked not in run.modes:
        raise ConfigError(
            f"bn={asked}: the run was trained with bn={own}; it can be used with bn={','.join(run.modes)}"
        )
    return asked
