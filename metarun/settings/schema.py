"""Types and ranges of the settings. Groups are open (each mirrors its constructor); their common keys are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class Paths:
    data: str = MISSING
    cache: str = MISSING
    outputs: str = MISSING


@dataclass
class Sweep:
    rerun: str = "interrupted"


@dataclass
class Config:
    """The root of the settings; conf/config.yaml says what each key means."""

    seed: int = 0
    device: str = "auto"
    threads: Any = "auto"
    precision: str = "float32"
    bn: str = "transductive"
    paper: Any = None
    sweep: Sweep = field(default_factory=Sweep)
    paths: Paths = field(default_factory=Paths)
    data: Any = MISSING
    backbone: Any = MISSING
    algo: Any = MISSING
    optim: Any = MISSING
    run: Any = MISSING
    logger: Any = MISSING


GROUPS = ("data", "backbone", "algo", "optim", "run", "logger")


@dataclass(frozen=True)
class Number:
    """A number with a least value; `above` excludes it, `whole` wants an int; `optional` allows null, `word` itself.

    `many` asks for a list of such numbers; `span` takes one, or the least and the greatest of a range.
    """

    least: float
    above: bool = False
    whole: bool = True
    optional: bool = False
    many: bool = False
    span: bool = False
    word: str | None = None

    def problem(self, key: str, value: Any) -> str | None:
        """What is wrong with `value`, if anything."""
        if (value is None and self.optional) or value == self.word is not None:
            return None
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        if self.span and listed and len(value) == 2 and all(map(self._fits, value)) and value[0] <= value[1]:
            return None
        if listed == self.many and all(map(self._fits, value if listed else [value])):
            return None
        kind = "a whole number" if self.whole else "a number"
        kind = f"a list, each {kind}" if self.many else kind
        bound = f"{'above' if self.above else 'of at least'} {self.least:g}"
        other = " or null" if self.optional else ", or a range: [3,50]" if self.span else ""
        other = f" or {self.word}" if self.word else other
        return f"{key}={value} must be {kind} {bound}{other}"

    def _fits(self, value: Any) -> bool:
        kinds = (int,) if self.whole else (int, float)
        of_kind = isinstance(value, kinds) and not isinstance(value, bool)
        return of_kind and bool(value > self.least if self.above else value >= self.least)


COUNT = Number(1)
RATE = Number(0, above=True, whole=False)

RANGES = {
    "seed": Number(0),
    "threads": Number(1, word="auto"),
    "data.n_way": Number(2),
    "data.k_shot": COUNT,
    "data.n_query": COUNT,
    "data.train.n_way": Number(2),
    "data.train.k_shot": Number(1, span=True),
    "data.train.n_query": COUNT,
    "data.eval_seed": Number(0),
    "data.wide": Number(2),
    "data.least": COUNT,
    "data.image_size": COUNT,
    "data.noise": Number(0, whole=False),
    "backbone.hidden": COUNT,
    "backbone.layers": COUNT,
    "backbone.halvings": Number(0),
    "backbone.blocks": COUNT,
    "backbone.depth": COUNT,
    "backbone.width": COUNT,
    "backbone.heads": COUNT,
    "backbone.patch_size": Number(1, optional=True),
    "backbone.image_size": Number(1, optional=True),
    "backbone.drop_rate": Number(0, whole=False),
    "backbone.block_size": Number(1, optional=True),
    "algo.inner_lr": RATE,
    "algo.inner_weight_decay": Number(0, whole=False),
    "algo.inner_steps": COUNT,
    "algo.test_inner_steps": Number(0),
    "algo.report_steps": Number(0, many=True),
    "algo.inner_clip_norm": Number(0, above=True, whole=False, optional=True),
    "algo.lam": RATE,
    "algo.cg_steps": COUNT,
    "algo.multi_step": Number(0),
    "algo.first_order_steps": Number(0),
    "algo.n_context": Number(0),
    "algo.layer": COUNT,
    "algo.inner_batch_size": COUNT,
    "algo.test_inner_batch_size": COUNT,
    "algo.temperature": RATE,
    "algo.hidden": COUNT,
    "algo.units": COUNT,
    "algo.fce_steps": COUNT,
    "algo.ridge": RATE,
    "algo.scale": RATE,
    "algo.penalty": RATE,
    "algo.damping": RATE,
    "algo.iterations": COUNT,
    "algo.batch_size": COUNT,
    "algo.task_chunk": Number(0),
    "algo.width": COUNT,
    "algo.layers": COUNT,
    "algo.latent": COUNT,
    "algo.heads": COUNT,
    "algo.min_std": RATE,
    "algo.test_samples": COUNT,
    "algo.nodes": COUNT,
    "algo.generations": COUNT,
    "algo.inverse_decay": RATE,
    "optim.lr": RATE,
    "optim.weight_decay": Number(0, whole=False),
    "optim.clip_norm": Number(0, above=True, whole=False, optional=True),
    "optim.schedule.cycles": COUNT,
    "run.steps": COUNT,
    "run.meta_batch_size": COUNT,
    "run.val_every": Number(1, optional=True),
    "run.val_tasks": Number(2),
    "run.test_tasks": Number(2),
    "run.eval_batch_size": COUNT,
    "run.checkpoint_every": COUNT,
    "run.log_every": COUNT,
    "run.processes": Number(1, word="auto"),
}
"""Checked wherever the key is there."""

CHOICES = {
    "sweep.rerun": ("interrupted", "failed", "all"),
    "precision": ("float32", "tf32", "bf16"),
    "bn": ("transductive", "support", "running", "none"),
    "algo.engine": ("auto", "vectorized", "learn2learn"),
    "algo.inner_optimizer": ("sgd", "momentum", "adam"),
    "algo.distance": ("euclidean", "cosine"),
    "algo.loss": ("mse", "cross_entropy"),
    "algo.features": ("un", "l2n", "cl2n"),
    "backbone.downsample": ("pool", "stride"),
    "backbone.stem": ("auto", "small", "large"),
    "backbone.pool": (True, False),
    "backbone.frozen": (True, False),
    "data.kernel": ("rbf", "matern12", "matern32", "matern52", "periodic"),
    "data.rotation": ("none", "class", "train", "random"),
    "data.interpolation": ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
    "data.augment": ("none", "standard", "randaugment"),
    "data.fit": ("crop", "stretch"),
    "data.trainval": (True, False),
    "data.within_alphabet": (True, False),
    "run.compile": ("auto", True, False, "inductor"),
    "logger.mode": ("auto", "online", "offline", "disabled"),
}
"""Checked wherever the key is there."""


def register() -> None:
    """Make the schema known to Hydra as the config `schema`."""
    ConfigStore.instance().store(name="schema", node=Config)
