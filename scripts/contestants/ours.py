"""metarun, as its commands run it: the engine that `auto` picks, its steps recorded and replayed, or not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contestants.settings import OUTER_LR, Floats, Setting, episodes, weights
from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.gradient.anil import ANIL
from metarun.algos.gradient.maml import MAML
from metarun.algos.metric.protonet import ProtoNet
from metarun.backbones.conv4 import Conv4
from metarun.core import tuning
from metarun.core.objectives import classification
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples
from metarun.data.files.splits import SPLITS
from metarun.data.images import ImageClasses, ImageTasks
from metarun.run.team import Group


class Metarun:
    """One setting.

    Args:
        setting: what to do.
        replayed: as run.compile=auto has it after some steps; else as run.compile=false.
        precision: as the setting of this name.
        group: the processes that share the tasks.
    """

    def __init__(
        self, setting: Setting, replayed: bool = True, group: Group | None = None, precision: str = "float32"
    ) -> None:
        tuning.keep_memory()  # as `build_parts` does
        tuning.set_precision(precision)
        self.setting, self.group, self.precision = setting, group or Group(), precision
        self.n, self.first, self.stream = setting.tasks, 0, stream(setting)
        if setting.algo == "sampling":
            return
        on_gpu = torch.device(setting.device).type == "cuda"
        self.learner = learner(setting).to(setting.device).train(setting.use == "train")
        if replayed:
            self.learner.record("graph" if on_gpu else "replay", after=1)
        self.optims = self.learner.build_optims(partial(torch.optim.Adam, lr=OUTER_LR, fused=on_gpu))
        for optim in self.optims.values():
            self.group.tie(optim)

    def step(self) -> dict[str, Tensor]:
        """One step, as OfflineRun takes it; loss and accuracy, which nobody waits for."""
        batch = next(self.stream)
        if self.setting.algo == "sampling":
            return {}
        if self.setting.use == "train":
            return self.group.outer_step(self.learner, None, batch, self.optims, 0)[1]
        scores = self.learner.evaluate(batch.tasks(*self.group.share(self.n)))
        return {name: self.group.gather(score, self.n).mean() for name, score in scores.items()}

    def error(self) -> float:
        """How far the meta-gradient is from that of float32, relative to its length; nothing is changed."""
        recorder, self.learner.recorder = self.learner.recorder, None  # a graph keeps the precision that it began with
        found = self.check()
        tuning.set_precision("float32")
        exact = self.check()
        tuning.set_precision(self.precision)
        self.learner.recorder = recorder
        names = [name for name in exact if "." in name]
        one, other = (np.concatenate([of[name].ravel() for name in names]).astype("float64") for of in (found, exact))
        return float(np.linalg.norm(one - other) / np.linalg.norm(other))

    def check(self) -> dict[str, Floats]:
        """Loss, accuracy and, in training, the meta-gradient, of this process's share; nothing is changed."""
        if self.setting.algo == "sampling":
            return {}
        batch = next(stream(self.setting)).tasks(*self.group.share(self.n))
        if self.setting.use == "test":
            scores = self.learner.evaluate(batch)
            return {name: score.mean().numpy(force=True) for name, score in scores.items()}
        metrics = self.learner.meta_gradient(batch)
        if self.group.size > 1:  # which would have to be averaged
            return {name: value.numpy(force=True) for name, value in metrics.items()}
        named_parameters = self.learner.named_parameters()
        gradient = {n: p.grad.numpy(force=True).copy() for n, p in named_parameters if p.grad is not None}
        self.learner.zero_grad()
        names = {ours: name for name, ours in named(self.setting).items()}
        scores = {n: m.numpy(force=True) for n, m in metrics.items()}
        return scores | {names[n]: grad for n, grad in gradient.items()}


def learner(setting: Setting) -> EpisodicLearner:
    """As metarun's settings would have it built, with the setting's weights."""
    shape = (setting.channels, setting.size, setting.size)
    backbone = Conv4(shape, "transductive", setting.hidden, setting.downsample)
    made: EpisodicLearner
    if setting.algo == "protonet":
        made = ProtoNet(backbone, "euclidean", 1.0, "auto", setting.chunk or 1)  # conf/algo/protonet.yaml's task_chunk
    else:
        made = (ANIL if setting.algo == "anil" else MAML)(
            backbone,
            setting.n_way,
            classification,
            inner_lr=setting.inner_lr,
            inner_steps=setting.steps,
            test_inner_steps=setting.steps,
            engine="auto",
            task_chunk=setting.chunk,
            report_steps=(),
            first_order=setting.algo == "fomaml",
        )
    parameters, names = dict(made.named_parameters()), named(setting)
    with torch.no_grad():
        for name, value in weights(setting).items():
            parameters[names[name]].copy_(torch.from_numpy(value))
    return made


def named(setting: Setting) -> dict[str, str]:
    """metarun's names of the weights."""
    place, start = 3 if setting.downsample == "stride" else 4, "" if setting.algo == "protonet" else "net."
    kinds = {"conv": 0, "norm": 1}
    names = {}
    for name in weights(setting):
        kind, _, rest = name.partition(".")
        if kind == "head":
            names[name] = f"net.head.{rest}"
        else:
            block = place * int(kind[-1]) + kinds[kind[:-1]]
            names[name] = f"{start}backbone.blocks.{block}.{rest}"
    return names


def stream(setting: Setting) -> Iterator[Batch]:
    """The meta-batches of a setting."""
    if setting.algo == "sampling":
        return noise_source(setting).episodes("train", 0, setting.tasks)
    if setting.data == "omniglot":
        return omniglot(setting).episodes("train", 0, setting.tasks)
    return given(batch(setting))


def batch(setting: Setting) -> Batch:
    drawn, dtype = episodes(setting), torch.get_default_dtype()

    def tensor(x: Floats) -> Tensor:
        return torch.from_numpy(x).to(setting.device, dtype)

    sides = (Examples(tensor(x), torch.from_numpy(y).to(setting.device)) for x, y in (drawn[:2], drawn[2:]))
    return Batch(*sides, setting.n_way)


def given(tasks: Batch) -> Iterator[Batch]:
    while True:
        yield tasks


def shape(setting: Setting) -> EpisodeShape:
    return EpisodeShape(setting.n_way, setting.k_shot, setting.n_query)


def noise_source(setting: Setting) -> ImageTasks:
    """1,100 classes of 20 images, as many as Omniglot has for training."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1160 * 20, 1, 28, 28), dtype=np.uint8))
    data = ImageClasses(pixels, np.arange(1161, dtype=np.int64) * 20, [f"c{i}" for i in range(1160)])
    split = dict(zip(SPLITS, (data.names[:1100], data.names[1100:1130], data.names[1130:]), strict=True))
    plan = EpisodePlan(shape(setting), shape(setting), 0, 0)
    return ImageTasks(data, split, plan, "none", torch.device(setting.device))


def omniglot(setting: Setting) -> Any:
    """Omniglot as data=omniglot opens it, from METARUN_DATA and METARUN_CACHE."""
    from metarun.settings.build import build_source
    from metarun.settings.compose import compose
    from metarun.settings.resolve import resolve

    tasks = [f"data.{key}={getattr(setting, key)}" for key in ("n_way", "k_shot", "n_query")]
    tasks.append(f"data.train.n_query={setting.n_query}")
    return build_source(resolve(compose(["data=omniglot", *tasks])), torch.device(setting.device))
