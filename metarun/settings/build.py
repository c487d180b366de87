"""From settings to objects: the one place that instantiates, and the end of configuration."""

from __future__ import annotations

import inspect
from collections.abc import Set
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metarun.algos.base.learner import Learner
from metarun.core import tuning
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.seeding import seed_everything
from metarun.core.tasks import EpisodePlan, EpisodeShape, OptimFactory, TaskSource
from metarun.data.images import SPLITS
from metarun.ops.replay import REPEATED
from metarun.run.device import choose_device
from metarun.run.offline import OfflineRun
from metarun.run.parts import Parts
from metarun.run.team import Group
from metarun.run.tracking.sink import RunInfo, Sink
from metarun.settings.check import BUILD_KEYS
from metarun.settings.conf import shipped, shipped_choices, shipped_source


def build_parts(config: DictConfig, folder: Path, group: Group | None = None) -> Parts:
    """Source, learner and optimizers of checked settings, for a run in `folder` that the processes of `group` share.

    torch gets `config.threads`; `auto` leaves them to it, and to a launcher, which sets OMP_NUM_THREADS.

    Raises: ConfigError if the parts do not go together, or data is missing.
    """
    tuning.keep_memory()
    tuning.multiply_in(config.precision)
    if config.threads != "auto":
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    source = build_source(config, device)
    learner = build_learner(config, source).to(device)
    with wrong_input():
        _record(learner, config.run.compile)
        optims = learner.build_optims(_optim_factory(config.optim))
    group = group or Group()
    for optim in optims.values():
        group.tie(optim)
        if config.optim.clip_norm is not None:
            optim.register_step_pre_hook(partial(_clip, float(config.optim.clip_norm)))
    schedules: list[LRScheduler] = [_construct(config.optim.schedule)(optim) for optim in optims.values()]
    return Parts(learner, source, optims, schedules, device, folder, group)


def build_source(config: DictConfig, device: torch.device, splits: tuple[str, ...] = SPLITS) -> TaskSource:
    """The task source of `config.data`, to draw tasks of `splits` from."""
    data = config.data
    plan = EpisodePlan(_shape(data.train), _shape(data), config.seed, data.eval_seed, splits)

    def open_source(name: str, plan: EpisodePlan = plan) -> TaskSource:
        return _construct(shipped_source(config, name), BUILD_KEYS["data"], plan=plan, device=device)  # type: ignore[no-any-return]

    source: TaskSource = _construct(data, BUILD_KEYS["data"], plan=plan, device=device, open_source=open_source)
    return source


def build_learner(config: DictConfig, source: TaskSource) -> Learner:
    """The learner of `config.algo` on `config.backbone`, its weights drawn from the run's seed."""
    seed_everything(config.seed, "weights")
    info = source.info
    backbone = _construct(config.backbone, bn=config.bn, input_shape=info.input_shape, normalisation=info.normalisation)
    if info.train_classes is None and "train_classes" in _asked(config.algo):
        raise ConfigError(
            f"{config.algo['_target_'].rpartition('.')[2]} trains on single labelled examples, and the chosen data "
            "has none; choose another algo or data"
        )
    check_needs(config.algo["_target_"], source)
    told = ("input_shape", "n_way", "outputs", "objective", "train_classes", "prior")
    facts = {"backbone": backbone, "bn": config.bn, **{name: getattr(info, name) for name in told}}
    learner: Learner = _construct(config.algo, **facts)
    seed_everything(config.seed, "training")
    return learner


def check_needs(algo: str, source: TaskSource) -> None:
    """Raise ConfigError if the algorithm's class `algo` asks for streams that the source does not have."""
    lacking = [need for need in get_object(algo).needs if not hasattr(source, need)]
    if lacking:
        have = [name for name in shipped_choices("data") if hasattr(get_object(shipped(name)["_target_"]), lacking[0])]
        raise ConfigError(
            f"{algo.rpartition('.')[2]} learns from {' and '.join(lacking)}, and {type(source).__name__} has none; "
            + (f"data that has: {', '.join(have)}" if have else "no shipped data has: it wants a source of its own")
        )


def build_run(config: DictConfig, parts: Parts) -> OfflineRun:
    """The protocol of `config.run` over the parts."""
    run: OfflineRun = _construct(config.run, BUILD_KEYS["run"], parts=parts)
    return run


def build_logger(config: DictConfig, info: RunInfo) -> Sink:
    """The sink of `config.logger`."""
    sink: Sink = _construct(config.logger, info=info)
    return sink


def _construct(node: DictConfig, without: Set[str] = frozenset(), **facts: Any) -> Any:
    """What `node` describes, handed those of the runtime facts that its constructor asks for."""
    kept = OmegaConf.masked_copy(node, [str(key) for key in node if key not in without])
    factory = instantiate(kept, _convert_="all", _partial_=True)
    if node.get("_partial_"):
        return factory
    with wrong_input():
        return factory(**{name: fact for name, fact in facts.items() if name in _asked(node)})


def _asked(node: DictConfig) -> Set[str]:
    return inspect.signature(get_object(node["_target_"])).parameters.keys()


def _shape(node: DictConfig) -> EpisodeShape:
    n_way = node.n_way if "n_way" in node else 0
    if OmegaConf.is_list(node.k_shot):
        least, most = node.k_shot
        return EpisodeShape(n_way, least, node.n_query, most)
    return EpisodeShape(n_way, node.k_shot, node.n_query)


def _optim_factory(node: DictConfig) -> OptimFactory:
    factory: OptimFactory = _construct(node, BUILD_KEYS["optim"])
    return factory


def _record(learner: Learner, compile: bool | str) -> None:
    """As run.compile says. Raises: ValueError if it says so of a method that cannot be recorded."""
    if compile == "auto" and learner.recordable:
        learner.record("replay", REPEATED)
    elif compile in (True, "inductor"):
        learner.record("inductor" if compile == "inductor" else "replay")


def _clip(norm: float, optim: Optimizer, args: Any, kwargs: Any) -> None:
    clip_grad_norm_([p for group in optim.param_groups for p in group["params"]], norm)
