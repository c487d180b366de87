"""A small image source, and every learner on a tiny network, for all tests."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf.base
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from read_once import read_once
from same_process import Use, finish_runs, using

from metarun.algos.base.learner import Learner
from metarun.algos.base.stages import StageBatch, Staged
from metarun.algos.transfer.multitask import MultiTask
from metarun.core.batches import merge_sides
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples
from metarun.data.images import ImageClasses, ImageTasks
from metarun.settings import names, schema
from metarun.settings.conf import CONF

pytest.register_assert_rewrite("kept_numbers", "drawn")  # a text that is not as it was is shown with what differs
omegaconf.base.parse = functools.lru_cache(4096)(omegaconf.base.parse)  # a fourth of resolving the same settings anew
read_once()
torch.set_num_threads(1)  # tests run side by side, on tiny networks
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and so do the commands that they start
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests run side by side; more threads than cores only slow them down."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test, or W&B in it, puts into the environment ends with the test: the next may be told of it otherwise."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Of images that the tests of all workers decode once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if hasattr(request.config, "workerinput") else own) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the campaigns of tests/faults work, which share the undisturbed run."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def settings(full: Callable[..., DictConfig], cache: Path) -> Callable[..., DictConfig]:
    """Compose settings as the command line does, on tasks few and small enough to take no time.

    What makes them small is left out where the chosen groups do not have it.
    """

    def composed(*overrides: str) -> DictConfig:
        known = full("logger=none", *filter(chooses, overrides))
        small = [o for o in (*SMALL, *NARROW) if has(known, o.partition("=")[0])]
        small += ["backbone.name=test_resnet"] if known.backbone["_target_"].endswith(".Timm") else []
        small += [f"backbone.name={TINY_CLIP}"] if known.backbone["_target_"].endswith(".OpenClip") else []
        return full(*small, f"paths.cache={cache}", "logger=none", *overrides)

    return composed


def has(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    return name in ((OmegaConf.select(config, parent) or {}) if parent else config)


@pytest.fixture(scope="session")
def full() -> Callable[..., DictConfig]:
    """Compose settings as the command line does, at their real size."""

    return compose_quickly


def compose_quickly(*overrides: str) -> DictConfig:
    """Have Hydra choose the files, once for all tests, and put values in then: a thirtieth of the time.

    Raises: as hydra.compose.
    """
    chosen = tuple(word for word in overrides if chooses(word))
    config = deepcopy(_chosen(chosen))
    values = [_parse(word) for word in overrides if word not in chosen]
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return config


@functools.cache
def _parse(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


def chooses(word: str) -> bool:
    """Whether a word of the command line chooses a file of settings, as algo=maml does, or is for Hydra itself."""
    key = word.lstrip("+~").partition("=")[0].partition("@")[0]
    return key.startswith("hydra") or (CONF / key).is_dir()


@functools.cache
def _chosen(words: tuple[str, ...]) -> DictConfig:
    with composing():
        return compose("config", list(words))


@contextmanager
def composing() -> Iterator[None]:
    """Inside, hydra.compose finds our settings."""
    schema.register()
    names.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


ONE_OF_EACH = (
    "maml", "reptile", "protonet", "simpleshot", "baseline", "distill", "oml", "dann", "zero_shot", "learned_optimizer",
    "cnp", "gp_oracle", "rl2", "maml_rl", "thompson",
)  # fmt: skip
"""One method of each base class and each kind of stream. README's command keeps the contract with these, `-m slow` with
all the others, so that a new method adds nothing to the first."""


def one_of_each(cases: Sequence[str | tuple[str, ...]]) -> list[Any]:
    """Parameters of a test: methods, or methods with what comes after them. Those not in ONE_OF_EACH are slow."""
    return quick_if([case for case in cases if (case if isinstance(case, str) else case[0]) in ONE_OF_EACH], cases)


def quick_if(quick: Container[Any], cases: Iterable[Any]) -> list[Any]:
    """Parameters of a test, of which those that are not in `quick` are slow."""

    def slow(case: Any) -> Any:
        return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)

    return [case if case in quick else slow(case) for case in cases]


campaign = pytest.mark.skipif("METARUN_FAULTS" not in os.environ, reason="long or random: METARUN_FAULTS=1")
"""What is tried by chance or at length; scripts/faults.py makes all of it."""

TINY_CLIP = Path(__file__).parent / "data" / "tiny_clip.json"

SMALL = [  # a run of a second
    "data.alphabets=10",
    "data.characters=12",
    "data.train.n_way=5",
    "data.n_query=3",
    "data.train.n_query=3",
    "run.meta_batch_size=3",
    "run.steps=4",
    "run.val_tasks=6",
    "run.test_tasks=12",
    "run.eval_batch_size=4",
    "run.log_every=1",
    "run.checkpoint_every=1",
    "run.val_every=2",
    "device=cpu",
]
NARROW = [
    "backbone.hidden=8",
    "backbone.widths=[8]",
    "backbone.depth=10",
    "backbone.width=1",
    "backbone.name=shufflenet_v2_x0_5",
    "algo.width=8",
    "algo.latent=4",
    "algo.heads=2",
]


@pytest.fixture
def doubles() -> Iterator[None]:
    """float64 as the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


TRAIN, TEST = EpisodeShape(5, 1, 2), EpisodeShape(5, 1, 3)


def inner_settings(lr: float, steps: int, engine: str, task_chunk: int, **more: Any) -> dict[str, Any]:
    """Settings of a method with an inner loop of as many steps in training as in test."""
    counts = {"inner_steps": steps, "test_inner_steps": steps}
    return {"inner_lr": lr, **counts, "engine": engine, "task_chunk": task_chunk, **more}


def maml_settings(lr: float, steps: int, engine: str, task_chunk: int, **more: Any) -> dict[str, Any]:
    """Settings of MAML and what changes it, of second order unless said."""
    return inner_settings(lr, steps, engine, task_chunk, report_steps=[]) | {"first_order": False} | more


def as_drawn(learner: Learner, drawn: Batch | Examples) -> Any:
    """What the learner's stream would yield for such tasks or images: of the stage that takes them, if it has any."""
    if isinstance(learner, MultiTask) and isinstance(drawn, Batch):
        return merge_sides(drawn)._replace(side={"task": torch.arange(drawn.n_tasks)})
    return StageBatch(drawn, int(isinstance(drawn, Batch)), False) if isinstance(learner, Staged) else drawn


def noise_tasks(
    train: EpisodeShape = TRAIN,
    test: EpisodeShape = TEST,
    rotation: str = "none",
    size: int = 28,
    classes: int = 12,
    seed: int = 0,
) -> ImageTasks:
    """Classes of random images: a class is a random picture, its images noisy copies."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (3 * classes, 1, 1, size, size))
    pixels = np.clip(centres + rng.normal(0, 40, (3 * classes, 20, 1, size, size)), 0, 255).astype(np.uint8)
    data = ImageClasses(
        torch.from_numpy(pixels.reshape(-1, 1, size, size)),
        np.arange(3 * classes + 1, dtype=np.int64) * 20,
        [f"c{i}" for i in range(3 * classes)],
    )
    split = {s: data.names[i * classes : (i + 1) * classes] for i, s in enumerate(("train", "val", "test"))}
    return ImageTasks(data, split, EpisodePlan(train, test, seed, 0), rotation, torch.device("cpu"))


@pytest.fixture(scope="session")
def used_runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with a finished run of each kind of `used_runs.RUNS`."""
    from used_runs import RUNS

    return finish_runs(tmp_path_factory.mktemp("runs"), RUNS, cache)


@pytest.fixture
def use(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Use]:
    """Exit code, standard output and standard error of `metarun` with these words; few tasks fit a temperature."""
    from metarun.app.jobs import calibrated

    monkeypatch.setattr(calibrated, "LEAST_TASKS", 4)
    monkeypatch.setattr(calibrated, "MOST_TASKS", 4)
    with using(capsys, cache, 100) as used:
        yield used
