"""A finished run, opened again: its weights, for its own source or for another."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from metarun.algos.base.learner import Learner
from metarun.app.jobs.fitted_weights import fit_weights
from metarun.app.jobs.retest_settings import SHAPE
from metarun.app.jobs.tested_weights import Checkpoint, choose_weights
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.known_source import KnownSource, know_source, recall_source
from metarun.core.run_folder import RunFolder
from metarun.core.tasks import TaskSource
from metarun.core.words import describe_state
from metarun.data.augment import Look
from metarun.data.resize import Resized, describe_fitting, members
from metarun.ops import context, norm
from metarun.report.runs import open_run
from metarun.run.checkpoint import check_split
from metarun.run.device import hold_device
from metarun.run.features import Features
from metarun.run.folder import load_best
from metarun.settings.build import build_learner, build_source, set_numerics
from metarun.settings.conf import read_shipped
from metarun.settings.places import ROOTS, check_places, find_places
from metarun.settings.reopen import SavedSettings, reopen
from metarun.settings.schema import Settings

SHAPES = tuple(f"data.{key}" for key in SHAPE)
"""Settings of the data that do not change its split."""

log = logging.getLogger(__name__)


@dataclass
class Trained:
    """A finished run that was opened again.

    Attributes:
        folder, results: where it is, and its results.json.
        saved: its settings; those of data and paths alone are not resolved.
        source: what is known of its own; its data may be elsewhere.
        state: the weights that it was tested with, the best by validation.
        modes: BatchNorm modes that it can be tested in, its own and then the others.
        features: what its network has made of images.
        best_step, split: the step of these weights, and of which tasks it is tested on, `test` or `val`.
        others: further weights that it is tested with, as an ensemble.
        asked: what is asked beside settings, by name, for results: the tasks, the checkpoint.
    """

    folder: Path
    results: Mapping[str, Any]
    saved: SavedSettings
    source: KnownSource
    state: Mapping[str, torch.Tensor]
    modes: Sequence[str]
    device: torch.device
    features: Features
    best_step: int | None = None
    split: Literal["val", "test"] = "test"
    others: Sequence[Mapping[str, torch.Tensor]] = ()
    asked: Mapping[str, str] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def open_source(self, settings: Settings, values: Mapping[str, Any]) -> TaskSource:
        """Open the source of a test, with images as the run's network expects them unless `values` say otherwise."""
        name, own = settings.choices["data"], self.saved.choices["data"]
        source = build_source(settings, self.device, (self.split,))
        shape, wanted = source.info.input_shape, self.source.info.input_shape
        images = len(shape) == len(wanted) == 3
        if not images and shape != wanted:
            raise ConfigError(f"data={name} has inputs of shape {shape}; the run's network takes {wanted}")
        if images and (name != own or shape != wanted):
            theirs = any(key in values for key in ("data.mean", "data.std")) or not hasattr(members(source)[0], "look")
            look = Look(*self.source.look) if self.source.look and not theirs else None
            node: Mapping[str, Any] = self.saved.node("data") if name == own else read_shipped(name, own=settings.own)
            size = node.get("image_size", shape[-1])
            said = describe_fitting(name, size, shape, wanted, own if look else None)
            if said not in self.said:
                self.said.add(said)
                log.info("%s", said)
            source = Resized(source, wanted, look)
        return source

    def open_checked(self, test: SavedSettings, settings: Settings, values: Mapping[str, Any]) -> TaskSource:
        """Open it likewise. Raises: ConfigError if it is the run's own data, and its split has changed since."""
        same = settings.choices["data"] == self.saved.choices["data"]
        if self.split == "val" and same and self.results.get("trainval"):
            raise ConfigError("the run was trained on its validation classes (data.trainval=true): they test nothing")
        if same:
            check_places(test.config, ["data"], test.own)
        with wrong_input():
            source = self.open_source(settings, values)
            if same and not any(key.startswith("data.") and key not in SHAPES for key in values):
                check_split(self.folder, source.info.split_sha256, self.results["split_sha256"])
        return source

    def make_learner(self, settings: Settings) -> Learner:
        """Make the learner as the run tested it, changed by `settings`. Raises: ConfigError if it lacks weights."""
        with context.restoring():
            learner = build_learner(settings, self.source).to(self.device)
        if settings.algo["_target_"] != self.saved.node("algo")["_target_"]:
            fit_weights(learner, self.state, settings.choices["algo"], self.saved.choices["algo"])
            return learner
        known = learner.state_dict()
        learner.load_state_dict({k: v for k, v in self.state.items() if k in known or not k.endswith(norm.AVERAGES)})
        return learner


@contextmanager
def open_trained(
    folder: Path,
    values: Mapping[str, Any],
    machine: Mapping[str, Any],
    trust: bool = False,
    own: Sequence[str] = (),
    checkpoint: Checkpoint = "best",
) -> Iterator[Trained]:
    """Open the run in `folder` on the machine that was asked for, with the paths among `values`. See `reopen`.

    Args:
        checkpoint: which of its weights are taken.
    """
    run, files = open_run(folder), RunFolder(folder)
    if run.state != "finished":
        told = f"{folder} {describe_state(run.state)}, and only a finished run can be tested or used"
        raise ConfigError(f"{told}: {files.make_command('resume')}")
    files.check_links()
    best = load_best(files)
    # What a test changes of the data is to change nothing else, as run.steps.
    saved = reopen(folder, trust, own).settle("data", "paths")
    # An older checkpoint does not say all of its data: that is opened too, wherever it is now.
    places = [*ROOTS, *(find_places(saved.config, saved.own) if "data" not in values else ())]
    moved = saved.change({key: value for key, value in values.items() if key in places})
    settings, here = moved.resolve(), moved.change(machine).resolve()
    if here.threads != "auto":
        torch.set_num_threads(here.threads)
    with hold_device(here.device) as device:
        set_numerics(settings, device)
        if best.get("source"):
            source = recall_source(best["source"])
        else:
            with wrong_input():
                source = know_source(build_source(settings, device))
                check_split(folder, source.info.split_sha256, run.results["split_sha256"])
        with context.restoring():
            normalised = norm.has_batch_norm(build_learner(settings, source))
        images = ("transductive",) if source.info.support_shape else ("transductive", "support")  # of the support set
        modes = list(dict.fromkeys([settings.bn, *(images if normalised else ())]))
        kind = f"{settings.backbone} {settings.precision} {device.type}"
        features = Features(Path(settings.paths["cache"]).expanduser(), kind)
        (state, *others), (step, *_), asked = choose_weights(files, best, run.results.get("best_step"), checkpoint)
        yield Trained(
            folder, run.results, saved, source, state, modes, device, features, step, others=others, asked=asked
        )
