"""From settings to objects: the one place that instantiates, and the end of configuration."""

from __future__ import annotations

import inspect
from collections.abc import Set
from functools import partial
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metarun.algos.learner import Learner
from metarun.check import BUILD_KEYS
from metarun.errors import ConfigError, wrong_input
from metarun.report.sinks import RunFacts, Sink
from metarun.run.offline import OfflineRun, Parts
from metarun.seeding import seed_everything
from metarun.types import EpisodePlan, EpisodeShape, OptimFactory, TaskSource


def build_parts(config: DictConfig, facts: RunFacts) -> Parts:
    """Source, learner and optimizers of checked settings.

    Raises: ConfigError if the parts do not go together, or data is missing.
    """
    device = choose_device(config.device)
    source = build_source(config, device)
    learner = build_learner(config, source).to(device)
    optims = learner.build_optims(_optim_factory(config.optim))
    for optim in optims.values():
        if config.optim.clip_norm is not None:
            optim.register_step_pre_hook(partial(_clip, float(config.optim.clip_norm)))
    schedules: list[LRScheduler] = [_construct(config.optim.schedule)(optim) for optim in optims.values()]
    return Parts(learner, source, optims, schedules, device, facts)


def build_source(config: DictConfig, device: torch.device) -> TaskSource:
    """The task source of `config.data`."""
    data = config.data
    train = EpisodeShape(data.train.n_way, data.train.k_shot, data.train.n_query)
    test = EpisodeShape(data.n_way, data.k_shot, data.n_query)
    plan = EpisodePlan(train, test, config.seed, data.eval_seed)
    source: TaskSource = _construct(data, BUILD_KEYS["data"], plan=plan, device=device)
    return source


def build_learner(config: DictConfig, source: TaskSource) -> Learner:
    """The learner of `config.algo` on `config.backbone`, its weights drawn from the run's seed."""
    seed_everything(config.seed, "weights")
    backbone = _construct(config.backbone, input_shape=source.info.input_shape, bn=config.bn)
    learner: Learner = _construct(config.algo, backbone=backbone, n_way=source.info.n_way)
    seed_everything(config.seed, "training")
    return learner


def build_run(config: DictConfig, parts: Parts) -> OfflineRun:
    """The protocol of `config.run` over the parts."""
    run: OfflineRun = _construct(config.run, parts=parts)
    return run


def build_logger(config: DictConfig, facts: RunFacts) -> Sink:
    """The sink of `config.logger`."""
    sink: Sink = _construct(config.logger, facts=facts)
    return sink


def choose_device(name: str) -> torch.device:
    """The torch device of `device=name`; `auto` takes a GPU if there is one.

    Raises: ConfigError if it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        have = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ConfigError(f"device={name} cannot be used here; there is {', '.join(['auto', 'cpu', *have])}") from error
    return device


def _construct(node: DictConfig, without: Set[str] = frozenset(), **facts: Any) -> Any:
    """What `node` describes, handed those of the runtime facts that its constructor asks for."""
    asked = inspect.signature(get_object(node["_target_"])).parameters
    kept = OmegaConf.masked_copy(node, [str(key) for key in node if key not in without])
    factory = instantiate(kept, _convert_="all", _partial_=True)
    if node.get("_partial_"):
        return factory
    with wrong_input():
        return factory(**{name: fact for name, fact in facts.items() if name in asked})


def _optim_factory(node: DictConfig) -> OptimFactory:
    factory: OptimFactory = _construct(node, BUILD_KEYS["optim"])
    return factory


def _clip(norm: float, optim: Optimizer, args: Any, kwargs: Any) -> None:
    clip_grad_norm_([p for group in optim.param_groups for p in group["params"]], norm)
