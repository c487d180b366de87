"""From settings to objects: the one place that instantiates, and the end of configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from metarun.algos.base.abilities import HoldsNetwork, Recordable
from metarun.algos.base.learner import Learner
from metarun.core import tuning
from metarun.core.errors import ConfigError, suggest, wrong_input
from metarun.core.known_source import KnownSource, know_source
from metarun.core.ranges import BY_SIZE
from metarun.core.seeding import seed_everything
from metarun.core.tasks import EpisodePlan, EpisodeShape, TaskSource
from metarun.core.whole import describe_os_error
from metarun.data.files.splits import SPLITS
from metarun.ops import context
from metarun.ops.layer_norm import make_exact
from metarun.ops.replay import CALLS_BEFORE_RECORDING
from metarun.run.device import choose_device
from metarun.run.parts import Parts
from metarun.run.protocol import Run
from metarun.run.team import Group
from metarun.run.tracking.guarded import GuardedSink
from metarun.run.tracking.sink import RunInfo, Sink
from metarun.settings.conf import list_shipped, read_shipped, read_source
from metarun.settings.optims import Optims, is_held
from metarun.settings.own_backbone import check_backbone, explain_lack
from metarun.settings.ranges import find_parameters
from metarun.settings.schema import BUILD_KEYS, Node, Settings
from metarun.settings.start import Start, open_start

STREAMS = ("episodes", "examples", "environments", "pairs")
"""What sources of metarun yield, by the names of their methods."""


def build_parts(settings: Settings, folder: Path, group: Group | None = None) -> Parts:
    """Build source, learner and optimizers for a run in `folder` that the processes of `group` share.

    torch gets `settings.threads`; `auto` leaves them to it, and to a launcher, which sets OMP_NUM_THREADS.

    Raises: ConfigError if the parts do not go together, or data is missing.
    """
    tuning.keep_memory()
    if settings.threads != "auto":
        torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    set_numerics(settings, device)
    source = build_source(settings, device)
    start = find_start(settings)
    learner = build_learner(settings, source, start).to(device)
    group = group or Group()
    factories = Optims(settings, group, device, _make_factory, learner.named_parameters())
    if isinstance(learner, HoldsNetwork) and is_held(settings.optim, "backbone"):
        learner.hold_network()
    with wrong_input():
        _record(learner, settings.run.get("compile", False), device)
        optims = {} if settings.run.get("steps") == 0 else learner.build_optims(factories)
    if unknown := [name for name in settings.optims if name not in factories.made]:
        raise ConfigError(
            f"optims.{unknown[0]}: {type(learner).__name__} has the optimizers {', '.join(factories.made)}"
        )
    facts = start.describe(know_source(source).classes) if start else {}
    return Parts(learner, source, optims, factories.schedules, device, folder, group, facts)


def set_numerics(settings: Settings, device: torch.device) -> None:
    """Set how this process computes on `device`, as the settings say.

    Raises: ConfigError if the device has no such precision.
    """
    if settings.precision == "bf16" and device.type == "cuda":
        raise ConfigError(
            f"precision=bf16 would change nothing on {device}, and is for CPUs: set precision=float32 or "
            "precision=tf32, or device=cpu"
        )
    tuning.set_precision(settings.precision)
    tuning.repeat_exactly(settings.deterministic)


def build_source(settings: Settings, device: torch.device, splits: tuple[str, ...] = SPLITS) -> TaskSource:
    """Build the task source of `settings.data`; tasks are drawn from `splits`."""
    data = settings.data
    train, test = _make_shape(data.get("train", data)), _make_shape(data)
    plan = EpisodePlan(train, test, settings.seed, data.get("eval_seed", 0), splits)

    def open_source(name: str, plan: EpisodePlan = plan, values: Node | None = None) -> TaskSource:
        node = read_source(settings.as_dict(), name, settings.own)
        if unknown := sorted((values or {}).keys() - node.keys()):
            raise ConfigError(f"data={name} has no setting {unknown[0]}{suggest(unknown[0], list(node))}")
        node |= values or {}
        return _construct(node, BUILD_KEYS["data"], plan=plan, device=device, open_source=open_source)  # type: ignore[no-any-return]

    try:
        source: TaskSource = _construct(data, BUILD_KEYS["data"], plan=plan, device=device, open_source=open_source)
    except FileNotFoundError as error:
        raise ConfigError(f"{data['_target_'].rpartition('.')[2]}: {describe_os_error(error)}") from error
    return source


def find_start(settings: Settings) -> Start | None:
    """Open the run that the backbone's weights come from; None if they are drawn, or come from elsewhere.

    They come from the run's own checkpoint where it goes on, and from a file where the network loads them itself.

    Raises: ConfigError if `backbone.weights` names nothing.
    """
    weights = settings.backbone.get("weights")
    if context.now.restoring or "weights" in _find_parameters(settings.backbone):
        return None
    start = open_start(weights)
    if weights is not None and start is None:
        raise ConfigError(f"backbone.weights={weights} is not the folder of a run, nor its id or the end of its name")
    return start


def build_learner(settings: Settings, source: TaskSource | KnownSource, start: Start | None = None) -> Learner:
    """Build the learner of `settings.algo` on `settings.backbone`, with weights drawn from the run's seed.

    The backbone's come from `start`, if there is one.
    """
    seed_everything(settings.seed, "weights")
    info = source.info
    shape, normalisation = info.input_shape, info.normalisation
    own = BUILD_KEYS["backbone"] - _find_parameters(settings.backbone)
    backbone = _construct(settings.backbone, own, bn=settings.bn, input_shape=shape, normalisation=normalisation)
    check_backbone(backbone, shape)
    if start:
        start.load_into(backbone, settings.backbone)
    if info.train_classes is None and "train_classes" in _find_parameters(settings.algo):
        raise ConfigError(
            f"{settings.algo['_target_'].rpartition('.')[2]} trains on single labelled examples, and the chosen data "
            "has none; choose another algo or data"
        )
    if not isinstance(source, KnownSource):
        check_needs(settings.algo["_target_"], source)
    known = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    facts = {"backbone": backbone, "bn": settings.bn, **known}
    try:
        learner: Learner = _construct(settings.algo, **facts)
    except AttributeError as error:
        raise explain_lack(error, backbone) or error from error
    make_exact(learner)
    seed_everything(settings.seed, "training")
    return learner


def check_needs(algo: str, source: TaskSource) -> None:
    """Raise ConfigError if the algorithm's class `algo` asks for streams that the source does not have."""
    lacking = [need for need in get_object(algo).needs if not hasattr(source, need)]
    if lacking:
        have = [
            name for name in list_shipped("data") if hasattr(get_object(read_shipped(name)["_target_"]), lacking[0])
        ]
        raise ConfigError(
            f"{algo.rpartition('.')[2]} learns from {' and '.join(lacking)}, and {type(source).__name__} has none; "
            + (f"data that has: {', '.join(have)}" if have else "no shipped data has: it wants a source of its own")
            + suggest(lacking[0], STREAMS)
        )


def build_run(settings: Settings, parts: Parts) -> Run:
    """Build the protocol of `settings.run` over the parts."""
    run: Run = _construct(settings.run, BUILD_KEYS["run"], parts=parts)
    return run


def check_logger(node: Node) -> None:
    """Raises: ConfigError where the sink of the settings `logger` would refuse them."""
    with wrong_input():
        getattr(get_object(node["_target_"]), "check_settings", lambda node: None)(node)


def build_logger(node: Node, info: RunInfo) -> Sink:
    """Build the sink of the settings `logger`; if it fails, the run continues without it."""
    return GuardedSink(lambda: _construct(node, info=info), info)


def _construct(node: Node, without: Set[str] = frozenset(), **facts: Any) -> Any:
    """Construct what `node` describes, from its settings and the runtime facts that its constructor asks for."""
    with wrong_input():
        return _make_factory(node, without)(
            **{name: fact for name, fact in facts.items() if name in _find_parameters(node)}
        )


def _make_factory(node: Node, without: Set[str] = frozenset()) -> Callable[..., Any]:
    """Return a factory of what `node` describes, which takes the runtime facts."""
    kept = {key: value for key, value in node.items() if key not in {*without, "_partial_", "_recursive_"}}
    try:
        made: Callable[..., Any] = instantiate(kept, _convert_="all", _partial_=True)
    except InstantiationException as error:  # of a class among its settings
        words = " ".join(str(error).split())
        advice = ". If it is to be handed more than its settings, add _partial_: true" if "missing" in words else ""
        raise ConfigError(f"{node['_target_'].rpartition('.')[2]}: {words}{advice}") from error
    return made


def _find_parameters(node: Node) -> Set[str]:
    return find_parameters(node["_target_"]).keys()


def _make_shape(node: Node) -> EpisodeShape:
    """Make the shape of tasks; its numbers are 0 if tasks have no support and query sets."""
    n_way, k_shot, n_query = (node.get(key, 0) for key in ("n_way", "k_shot", "n_query"))
    if isinstance(k_shot, list):
        least, most = k_shot
        return EpisodeShape(n_way, least, n_query, most)
    least_ways, most_ways = n_way if isinstance(n_way, list) else (n_way, None)
    by_size, alpha = k_shot == BY_SIZE, node["alpha"] if node.get("query") == "dirichlet" else None
    shots = 1 if by_size else k_shot
    return EpisodeShape(least_ways, shots, n_query, alpha=alpha, most_ways=most_ways, by_size=by_size)


def _record(learner: Learner, compile: bool | str, device: torch.device) -> None:
    """Record the learner's steps as run.compile says. Raises: ValueError if the method cannot be recorded."""
    backend = "graph" if device.type == "cuda" else "replay"
    if compile is False:
        return
    if not (isinstance(learner, Recordable) and learner.recordable):
        if compile != "auto":
            raise ValueError(
                f"run.compile: what {type(learner).__name__} does changes along the way, or runs through learn2learn, "
                "and cannot be recorded; set run.compile=false"
            )
    elif compile == "auto":
        learner.record(backend, CALLS_BEFORE_RECORDING[backend])
    else:
        learner.record("inductor" if compile == "inductor" else backend)
