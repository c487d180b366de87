"""Contract: every setting of every YAML changes an outcome, or stands in NO_EFFECT with the reason why it does not.

Settings are found by globbing. Each is given other legal values, and what follows from them is compared with what
follows from its own: scores before and after two outer steps and the weights after them, the tasks of a source, what a
run writes. What is set for tests alone must leave training as it is, what is set for training alone the tests. All
these numbers are held against those of before, too: see kept_numbers.py.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import yaml
from conftest import ONE_OF_EACH, TINY_CLIP, has, quick_if
from kept_numbers import find_moved
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from test_contract import KINDS, PAIRS, acts, parts_of, state_of
from test_control_contract import CONTROL
from test_settings import ANNOTATIONS

from metarun.core.errors import ConfigError
from metarun.core.ranges import CountsWith, show_value
from metarun.core.tasks import ExampleSource
from metarun.run import checkpoint
from metarun.run.interrupt import StopRequest
from metarun.run.parts import Parts
from metarun.settings.advise import advise
from metarun.settings.build import build_parts, build_run, build_source
from metarun.settings.conf import CONF
from metarun.settings.ranges import find_annotations, find_choices, find_conditions
from metarun.settings.resolve import resolve
from metarun.settings.schema import Settings

Numbers = dict[str, Any]
"""Tensors, numbers and lists by name."""

Values = Mapping[str, Any]
"""Values of settings by their whole names."""

KNOWN = ("glyphs", "sinusoid", "gp", "moons", "turned_moons", "described")
"""Data of which the first that goes with a method is what it is tried on."""

ALONE = {"sets": "neural_statistician", "moons": "dann", "turned_moons": "metareg", "described": "zero_shot"}
"""The one method that some data is for."""

SPEED = "is about speed: numbers stay the same but for rounding"
UNTRIED = "is not tried here, as it "
PLACE = "is where files lie: the same ones elsewhere give the same numbers"
TORCHVISION = ("emnist", "fashion_mnist", "mnist", "svhn")

NO_EFFECT: dict[str | tuple[str, str], str] = {
    "algo.engine": SPEED,
    "algo.task_chunk": SPEED,
    **{
        (algo, "algo.min_std"): UNTRIED + "is of functions: see test_memory.py"
        for algo in ("incontext", "mann", "snail")
    },
    **{
        (path.stem, "backbone.weights"): UNTRIED + "starts from another run: see test_start.py"
        for path in (CONF / "backbone").glob("*.yaml")
        if path.stem not in ("none", "torchvision", "timm", "open_clip")
    },
    ("timm", "backbone.weights"): UNTRIED + "needs a file of timm's: see test_timm.py",
    ("open_clip", "backbone.weights"): UNTRIED + "needs a file of open_clip's: see test_open_clip.py",
    ("open_clip", "backbone.name"): UNTRIED + "needs another model as small: see test_open_clip.py",
    ("open_clip", "backbone.text"): UNTRIED + "is for names of classes: see test_open_clip.py",
    "data.templates": UNTRIED + "is for names of classes: see test_open_clip.py",
    ("named", "data.images"): UNTRIED + "needs files: see test_named.py",
    ("named", "data.descriptions"): UNTRIED + "is a file with all classes: see test_named.py",
    "algo.transform": UNTRIED + "is a module of one's own: see test_gradient_family.py",
    "algo.network": UNTRIED + "is for names of classes: see test_open_clip.py",
    **{
        (algo, "algo.task_chunk"): UNTRIED + "draws noise in another order: see test_metagan.py"
        for algo in ("metagan", "metagan_maml")
    },
    ("described", "data.images"): UNTRIED + "wants other descriptions: see test_zero_shot.py",
    ("described", "data.descriptions"): UNTRIED + "is a file with all classes: see test_zero_shot.py",
    ("abml", "algo.noise"): UNTRIED + "is of functions: see test_bayes.py",
    **{
        (path.stem, "bn"): UNTRIED + "is of networks that normalise, and policies do not"
        for path in (CONF / "data").glob("*.yaml")
        if acts("data", path.stem)
    },
    ("finetune_in_turn", "algo.rivals"): UNTRIED + "is about earlier tasks: see test_continual.py",
    ("progressive", "algo.lateral"): UNTRIED + "is about earlier tasks: see test_continual.py",
    "run.proficient": UNTRIED + "is in results.json: see test_online.py",
    "run.score_every": UNTRIED + "is in continual.npz: see test_continual.py",
    "run.on_nan": UNTRIED + "is about gradients that are not finite: see test_finite.py",
    "run.compile": UNTRIED + "records what repeats itself: see test_recorder.py",
    "run.max_time": UNTRIED + "ends by the clock: see test_limits.py",
    "inspect": UNTRIED + "watches a run: see test_limits.py",
    "tags": UNTRIED + "is words to find a run by: see test_limits.py",
    "notes": UNTRIED + "is a sentence beside a run: see test_limits.py",
    "run.processes": UNTRIED + "starts processes: see test_sharing.py",
    "threads": UNTRIED + "is about speed: see the last test of this file",
    "device": UNTRIED + "needs another device",
    "precision": UNTRIED + "rounds on some processors alone: see test_device.py",
    "deterministic": UNTRIED + "chooses among ways of a GPU: see test_device.py",
    "paper": "is printed beside a run's own number",
    "sweep.rerun": UNTRIED + "is about sweeps: see test_sweep.py",
    "paths.data": UNTRIED + "is data.root",
    "paths.cache": UNTRIED + "is data.cache",
    "paths.outputs": UNTRIED + "is where the command writes: see test_command.py",
    "data.encoder": UNTRIED + "needs sentence-transformers: see test_text.py",
    "data.range": UNTRIED + "needs images of more than 8 bits: see test_deep.py",
    "data.root": PLACE,
    "data.cache": PLACE,
}
"""Settings, of every choice or of one, that change no outcome, and why."""

VALUES: dict[str | tuple[str, str], list[Any]] = {
    "data.templates": [["a {}."]],
    "algo.attention": [[[4, 4], [8, 4], [8, 4]], [[8, 4], [8, 2], [8, 4]]],
    ("finetune_in_turn", "algo.batch_size"): [2],
    ("progressive", "algo.batch_size"): [2],
    "algo.beta": [0.1],
    "data.angles": [[5, 15, 25, 35], [0, 10, 20, 30, 40, 61]],
    "algo.chunks": [2],
    "algo.curvature": ["hessian"],
    "algo.factors": ["kronecker"],
    ("promp", "algo.clip"): [1e-4],
    ("rl2", "algo.clip"): [1e-4],
    ("rl2", "algo.minibatches"): [2],
    "algo.decay": [0.05],
    "algo.decoder_std": [0.5],
    "algo.discount": [0.5],
    "algo.first_order_steps": [1],
    "algo.generations": [1],
    "algo.hyperprior": [0.5],
    "algo.inner_clip_norm": [0.01],
    "algo.inner_beta2": [0.5],
    "algo.inner_weight_decay": [5.0],
    "algo.pretraining": [0.2],
    ("abml", "algo.shape"): [300.0],
    ("abml", "algo.rate"): [1e-9],
    "algo.pull_weight": [3.0],
    "algo.report_steps": [[1]],
    "algo.unroll": [1],
    "algo.target": [0.5],
    "algo.test_inner_lr": [0.5],
    "algo.trace": [0.5],
    ("ucb1", "algo.bonus"): [3.0],
    "optim.momentum": [0.3],
    "optim.betas": [[0.5, 0.999], [0.9, 0.5]],
    "optim.clip_norm": [0.01],
    "optim.warmup": [3],
    "optim.parts": [{"net": {"backbone": {"lr": 0.5}}}],
    "optim.eps": [0.1],
    "optim.weight_decay": [0.5],
    "optim.schedule.at": [[1, 3, 4]],
    "optim.schedule.cycles": [1],
    "optim.schedule.factor": [0.5],
    "optim.schedule.start_factor": [0.5],
    "backbone.block_size": [1],
    "backbone.depth": [16],
    "backbone.halvings": [1],
    "backbone.image_size": [40],
    "backbone.layers": [3],
    ("conv6", "backbone.layers"): [5],
    "backbone.name": ["mnasnet0_5"],
    ("timm", "backbone.name"): ["test_efficientnet"],
    "backbone.patch_size": [14],
    "backbone.weights": ["{files}/weights.pt"],
    "backbone.widths": [[4]],
    "run.patience": [1],
    "run.train_tasks": [2],
    "run.ensemble": [2],
    "run.val_every": [2],
    "data.cache": ["{files}/cache"],
    "data.channels": [1, 3],
    "data.dataset": ["KMNIST"],
    "data.fractions": [[0.4, 0.3, 0.3], [0.3, 0.4, 0.3]],
    ("gymnasium", "data.id"): ["CartPole-v1"],
    "data.images": ["cifar_fs"],
    "data.least": [8],
    "data.lengths": [[2, 3], [1, 2]],
    "data.options.split": ["letters"],
    "data.path": ["{files}/mini_imagenet.zip"],
    ("text", "data.path"): ["{files}/other.csv"],
    "data.root": ["{files}/elsewhere"],
    "data.photos": ["fc100"],
    "data.source": ["cifar_fs"],
    "data.target": ["cifar_fs"],
    "data.sources": [["cifar_fs"], ["omniglot", "fc100"]],
    "data.tasks": [[{"g": [1.0, 2.0]}]],
    ("folder", "data.split"): ["{files}/split.txt"],
    ("folder", "data.labels"): ["{files}/labels.csv"],
    ("text", "data.split"): ["{files}/split.txt"],
    ("omniglot", "data.split"): ["lake"],
    **{(choice, "data.split"): ["{files}/digits.txt"] for choice in TORCHVISION},
    ("laplacian_shot", "algo.steps"): [1],
    "algo.transport_steps": [1],
    "paper": [{"value": 98.7, "ci95": None, "source": "Somebody 2020"}],
}
"""Other values of a setting, of every choice or of one, where the rule of `other_values` has none that is legal."""

BESIDE: dict[str | tuple[str, str], Values] = {
    "algo.decay": {"algo.rows": 4, "algo.reads": 2},  # of which there are fewer than images
    "algo.decoder_std": {"algo.likelihood": "gaussian"},
    "algo.fce_steps": {"algo.fce": True},
    ("maml_pp", "algo.first_order"): {"algo.first_order_steps": 0},
    "algo.inner_beta2": {"algo.inner_optimizer": "adam"},
    ("abml", "algo.rate"): {"algo.hyperprior": 0.1},
    ("abml", "algo.shape"): {"algo.hyperprior": 0.1},
    "algo.perturbation": {"algo.estimator": "pes"},
    "algo.nodes": {"data.length_scale": [0.2, 0.9]},
    "algo.adapts": {"algo.inner_lr": 3.0},  # heads of new tasks start at next to nothing
    ("finetune_in_turn", "algo.inner_optimizer"): {"algo.passes": 3},
    "algo.pull_weight": {"algo.pull": "l2sp", "algo.inner_lr": 0.1},
    ("protonet", "algo.temperature"): {"algo.distance": "cosine"},
    ("caml", "algo.task_chunk"): {"optim.eps": 1e-3},
    ("feat", "algo.task_chunk"): {"optim.eps": 1e-3},  # Adam's first step is a sign, of rounding where a gradient is 0
    ("zero_shot", "algo.temperature"): {"algo.distance": "cosine"},
    ("metagan", "algo.temperature"): {"algo.distance": "cosine"},
    "algo.radius": {"algo.outer": "trpo"},
    ("gittins", "algo.discount"): {"data.episodes": 100},
    ("gymnasium", "data.id"): {"data.tasks": []},
    "optim.nesterov": {"optim.momentum": 0.5},
    "backbone.block_size": {"backbone.drop_rate": 0.5},
    "data.channels": {"data.mean": [0.5], "data.std": [0.5]},
    "data.alpha": {"data.query": "dirichlet", "data.n_query": 1},
    "data.query": {"data.n_query": 1},  # classes of seven images hold all queries
    "data.period": {"data.kernel": "periodic"},
}
"""What has to be set beside a setting for it to count."""

TINY: Values = {
    "device": "cpu",
    "algo.batch_size": 5,
    "algo.cg_steps": 2,
    "algo.heads": 2,
    "algo.hidden": 8,
    "algo.inner_batch_size": 3,
    "algo.inner_steps": 2,
    "algo.iterations": 3,
    "algo.latent": 4,
    "algo.layer": 1,
    "algo.n_context": 3,
    "algo.nodes": 2,
    "algo.test_inner_batch_size": 2,
    "algo.test_inner_steps": 3,
    "algo.test_samples": 3,
    "algo.width": 8,
    "algo.widths": [6, 5],
    "backbone.depth": 10,
    "backbone.hidden": 8,
    "backbone.name": "shufflenet_v2_x0_5",
    "backbone.width": 1,
    "backbone.widths": [8],
    "run.checkpoint_every": 3,
    "run.eval_batch_size": 4,
    "run.log_every": 2,
    "run.meta_batch_size": 3,
    "run.hindsight_steps": 1,
    "run.steps": 2,
    "run.updates": 1,
    "run.streams": 3,
    "run.tasks": 2,
    "run.test_tasks": 7,
    "run.val_streams": 2,
    "run.ways": 2,
    "run.val_tasks": 6,
    "data.alphabets": 5,
    "data.characters": 8,
    "data.length": 6,
    "data.image_size": 8,
    "data.n_query": 3,
    "data.n_way": 3,
    "data.train.n_query": 2,
    "data.wide": 4,
}
"""What keeps the work small, where the choices have it; other numbers in training than in tests."""

FEW_STEPS: Values = {"algo.inner_steps": 1, "algo.test_inner_steps": 2}
SMALLER: dict[str, Values] = {
    "abml": FEW_STEPS,
    "imaml": FEW_STEPS,
    "metagan_maml": FEW_STEPS | {"algo.fakes": 4, "algo.filters": 4},
    "snail": {"algo.filters": 8, "algo.attention": [[8, 4], [8, 4], [8, 4]]},
}
"""What does so for methods that take long."""


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def settings_of(group: str, choice: str) -> list[str]:
    """Every setting of a YAML by its whole name, the numbers of a list one by one: data.mean[0]."""
    text = (CONF / group / f"{choice}.yaml").read_text()
    whole = not group or text.startswith("# @package _global_")
    return list(_leaves("" if whole else group.replace("/", "."), choice, yaml.safe_load(text)))


def _leaves(name: str, choice: str, node: Any) -> Iterator[str]:
    if isinstance(node, dict) and (node or found(VALUES, choice, name) is None):  # one without keys may be given some
        for key, value in node.items():
            if key not in ("_target_", "_partial_", "defaults", "hydra"):
                yield from _leaves(f"{name}.{key}".lstrip("."), choice, value)
    elif isinstance(node, list) and node and found(VALUES, choice, name) is None:
        yield from (f"{name}[{place}]" for place in range(len(node)))
    else:
        yield name


def found(table: Mapping[Any, Any], choice: str, key: str) -> Any:
    """What a table says of a setting of a choice, or of the list that it is a number of."""
    whole = key.partition("[")[0]
    return next((table[name] for name in ((choice, key), key, (choice, whole), whole) if name in table), None)


def choices_for(config: DictConfig, key: str) -> tuple[Any, ...] | None:
    """The values that the setting's constructor, or the schema, names one by one."""
    group, _, name = key.rpartition(".")
    node = OmegaConf.select(config, group) if group else None
    annotation = ANNOTATIONS.get(key)
    if annotation is None and OmegaConf.is_config(node) and "_target_" in node:
        annotation = find_annotations(node["_target_"]).get(name)
    return None if annotation is bool else find_choices(annotation)


def other_values(choice: str, key: str, config: DictConfig) -> list[Any]:
    """Legal values of a setting other than that in `config`."""
    value, whole = (OmegaConf.select(config, name) for name in (key, key.partition("[")[0]))
    special, choices = found(VALUES, choice, key), choices_for(config, key)
    if special is not None or choices:
        return [other for other in (special if special is not None else choices or ()) if other != value]
    if isinstance(value, bool):
        return [not value]
    assert isinstance(value, int | float), f"{key} of {choice}: say in VALUES what it may be, but for {value}"
    if key.endswith("[0]") and len(whole) == 2:  # the lower end of a range
        return [value // 2 if isinstance(value, int) else value / 2 or -0.5]
    return [2 * value or (1 if isinstance(value, int) else 0.5)]


class Outcome:
    """What follows from settings, worked out as far as it is asked for."""

    untrained = True
    """Whether `tests` come before any training."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config

    @property
    def training(self) -> Numbers:
        raise NotImplementedError

    @property
    def tests(self) -> Numbers:
        raise NotImplementedError

    @property
    def after(self) -> Numbers:
        """More tests, after training."""
        return {}

    @property
    def all(self) -> dict[str, Numbers]:
        return {what: getattr(self, what) for what in ("tests", "training", "after")}


class Learned(Outcome):
    """The scores of three test tasks, and of two outer steps all metrics and what they leave of the learner."""

    @cached_property
    def settings(self) -> Settings:
        return resolve(self.config)

    @cached_property
    def parts(self) -> Parts:
        return build_parts(self.settings, Path())

    @cached_property
    def tests(self) -> Numbers:
        return self._scores()

    @cached_property
    def training(self) -> Numbers:
        assert self.tests  # come first
        run, learner = build_run(self.settings, self.parts), self.parts.learner.train()
        torch.manual_seed(0)  # of noise
        stream = learner.train_stream(self.parts.source, 0, run.meta_batch_size)
        numbers: Numbers = {"steps of a run": run.steps}
        state = learner.initial_state()
        for step in range(2):
            state, metrics = learner.outer_step(state, next(stream), self.parts.optims)
            numbers |= {f"{name} of step {step}": value for name, value in metrics.items()}
            for schedule in self.parts.schedules:
                schedule.step()
        return numbers | state_of(learner)

    @cached_property
    def after(self) -> Numbers:
        assert self.training  # comes first
        return self._scores()

    def _scores(self) -> Numbers:
        torch.manual_seed(0)
        learner = self.parts.learner.eval()
        return learner.evaluate(next(learner.eval_stream(self.parts.source, "test", 0, 3)))


class Drawn(Outcome):
    """The first tasks and examples of a source, and the steps that a run on it has."""

    @cached_property
    def settings(self) -> Settings:
        return resolve(self.config)

    @cached_property
    def source(self) -> Any:
        return build_source(self.settings, torch.device("cpu"), ("train", "val", "test"))

    @cached_property
    def training(self) -> Numbers:
        source, facts = self.source, Path()
        parts = Parts(torch.nn.Identity(), source, {}, [], torch.device("cpu"), facts)  # type: ignore[arg-type]
        numbers: Numbers = {"steps of a run": build_run(self.settings, parts).steps}
        if isinstance(source, ExampleSource) and source.info.train_classes:
            numbers |= next(source.examples("train", 0, 4))._asdict()
        return numbers | self._tasks("train")

    @cached_property
    def tests(self) -> Numbers:
        return self._tasks("test") | self._tasks("val")

    def _tasks(self, split: str) -> Numbers:
        if hasattr(self.source, "environments"):
            return self._shown(split)
        batch = next(self.source.episodes(split, 0, 3))
        sides = {"support": batch.support, "query": batch.query}
        tensors = {f"{split} {side} {n}": v for side, both in sides.items() for n, v in both._asdict().items()}
        return tensors | {f"{split} ways": batch.n_way}

    def _shown(self, split: str) -> Numbers:
        """What environments show and pay where each action is the first, or as far as it can be to all sides."""
        batch, control = next(self.source.environments(split, 0, 3)), self.source.info.control
        numbers: Numbers = {f"{split} sizes": repr(control), f"{split} start": batch.reset(2, 0), **batch.facts}
        for step in range(control.length):
            action = torch.zeros(3, 2, dtype=torch.int64) if control.discrete else torch.ones(3, 2, control.actions)
            moved = batch.step(action)
            numbers |= {f"{split} {name} {step}": value for name, value in moved._asdict().items()}
        return numbers


class Ran(Outcome):
    """What a run writes, clocks apart, when it saves, and how many tasks it scores at once."""

    untrained = False

    @property
    def training(self) -> Numbers:
        return self._numbers[0]

    @property
    def tests(self) -> Numbers:
        return self._numbers[1]

    @cached_property
    def _numbers(self) -> tuple[Numbers, Numbers]:
        folder, settings = Path(self.config.paths.outputs), resolve(self.config)
        folder.mkdir()
        parts = build_parts(settings, folder)
        at_once, saved = [], {"last.pt": [], "best.pt": []}
        evaluate, save = parts.learner.evaluate, checkpoint.save

        def note_tasks(batch: Any) -> Any:
            at_once.append(batch.n_tasks)
            return evaluate(batch)

        def note_step(path: Path, state: dict[str, Any]) -> None:
            saved[path.name].append(state["step"] if "step" in state else state["progress"]["step"])
            save(path, state)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts.learner, "evaluate", note_tasks)
            patch.setattr(checkpoint, "save", note_step)
            build_run(settings, parts).execute([], StopRequest())
        numbers: dict[str, Numbers] = {"train": {"saved": saved["last.pt"]}, "val": {}, "test": {}}
        for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
            split, step = line.pop("split"), line.pop("step")
            kept = {f"{split} {name} at {step}": value for name, value in line.items() if name not in CLOCKS}
            numbers[split] |= kept
        with np.load(folder / "test_tasks.npz") as scores:
            each = {f"{name} of each task": torch.from_numpy(scores[name]) for name in scores}
        tests = numbers["val"] | numbers["test"] | each
        return numbers["train"], tests | {"at once": at_once, "best": saved["best.pt"]}


CLOCKS = ("seconds", "tasks_per_second")


def alike(one: Numbers, other: Numbers, rtol: float = 1e-5, atol: float = 1e-7) -> bool:
    return one.keys() == other.keys() and all(_near(one[name], other[name], rtol, atol) for name in one)


def _near(one: Any, other: Any, rtol: float, atol: float) -> bool:
    if not isinstance(one, float | torch.Tensor) or not isinstance(other, float | torch.Tensor):
        return bool(one == other)
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (one, other))
    return a.shape == b.shape and torch.allclose(a, b, rtol, atol)


def same(one: Outcome, other: Outcome) -> bool:
    return all(alike(one.all[what], other.all[what]) for what in one.all)


def broken_rules(key: str, reason: str | None, base: Outcome, changed: Outcome) -> list[str]:
    """What a setting has changed that it should not, or has not that it should."""
    exactly = partial(alike, rtol=0, atol=0)
    if reason:
        unmoved = partial(alike, rtol=1e-4, atol=1e-4) if reason == SPEED else exactly
        moved = [what for what in ("tests", "training") if not unmoved(getattr(base, what), getattr(changed, what))]
        return [f"changes {what}, and NO_EFFECT says that it {reason}" for what in moved]
    problems = []
    if key.rpartition(".")[2].startswith(("test_", "report_", "eval_")):
        problems += ["does not change tests"] * alike(base.tests, changed.tests)
        problems += ["changes training"] * (not exactly(base.training, changed.training))
    if key.startswith(("data.train.", "optim.", "run.meta_batch_size")):
        problems += ["does not change training"] * alike(base.training, changed.training)
        problems += ["changes tests"] * (base.untrained and not exactly(base.tests, changed.tests))
    return problems


Matters = Callable[..., None]


@pytest.fixture
def every_setting_matters(full: Callable[..., DictConfig], cache: Path, files: Path, tmp_path: Path) -> Matters:
    """Fail with all settings of a choice that break the contract, by a kind of outcome, beside other choices."""
    runs = itertools.count()

    def check_all(kind: type[Outcome], group: str, choice: str, *others: str, **values: Any) -> None:
        chosen = [f"{group}={choice}"] if group else []
        config = full(*chosen, *others, f"paths.cache={cache}", f"paths.data={files}", "logger=none")
        set_in(config, TINY | values)

        def outcome(kind: type[Outcome], changes: Values) -> Outcome:
            changed = config.copy()
            set_in(changed, {**changes, "paths.outputs": str(tmp_path / str(next(runs)))})
            return kind(changed)

        bases: dict[tuple[type[Outcome], str], Outcome] = {}
        problems: list[str] = []
        for key in settings_of(group, choice):
            reason, beside = found(NO_EFFECT, choice, key), found(BESIDE, choice, key) or {}
            if reason and reason.startswith(UNTRIED):
                continue
            seen_in = Learned if kind is Drawn and not key.startswith("data.") else kind
            if (seen_in, repr(beside)) not in bases:
                bases[seen_in, repr(beside)] = outcome(seen_in, beside)
            base, name = bases[seen_in, repr(beside)], f"{group}={choice}".lstrip("=")
            name += "" if seen_in is kind else f" {seen_in.__name__.lower()}"
            problems += find_moved(name_case(name, beside), base.all)
            tried = [(OmegaConf.select(config, key), base)]
            for other in other_values(choice, key, config):
                value = other.format(files=files) if isinstance(other, str) else other
                changed = outcome(seen_in, {**beside, key: value})
                refused = (ConfigError,) if choices_for(config, key) else ()  # learn2learn has not every method
                with contextlib.suppress(*refused):
                    problems += [f"{key}={other} {what}" for what in broken_rules(key, reason, base, changed)]
                    problems += find_moved(name_case(name, {**beside, key: other}), changed.all)
                    if not reason:  # auto is one of the others
                        twins = [was for was, outcome in tried if was != "auto" and same(outcome, changed)]
                        problems += [f"{key}={other} does what {key}={was} does" for was in twins]
                    tried.append((other, changed))
            if len(tried) == 1:
                problems.append(f"{key} was not changed")
        assert not problems, "\n".join(problems)

    return check_all


def name_case(name: str, values: Values) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in values.items())])


def set_in(config: DictConfig, values: Values) -> None:
    """Set those of the values whose keys there are."""
    for key, value in values.items():
        if has(config, key.partition("[")[0]):
            OmegaConf.update(config, key, value, merge=False)


QUICK = {*ONE_OF_EACH} - {"distill", "learned_optimizer", "maml_rl", "reptile", "rl2", "zero_shot"}  # which take long


@pytest.mark.parametrize("algo", quick_if(QUICK, choices("algo")))
def test_every_setting_of_an_algorithm_changes_an_outcome(every_setting_matters: Matters, algo: str) -> None:
    """On 3-way tasks; in training 4-way ones with 4 shots where the YAML says that they are others than in tests."""
    data = CONTROL[algo] if acts("algo", algo) else next(data for data in KNOWN if (algo, data) in PAIRS)
    own: dict[str, Any] = {k: 4 for k in ("data.train.n_way", "data.train.k_shot") if k in settings_of("algo", algo)}
    own |= SMALLER.get(algo, {})
    if algo in ("oml", "anml", "finetune_in_turn"):  # a step with each image moves little
        own["algo.inner_lr"] = 1.0
    if algo == "anml":  # moves=all is for networks without BatchNorm
        own["bn"] = "none"
    every_setting_matters(Learned, "algo", algo, f"data={data}", **own, **{"backbone.layers": 2})


@pytest.mark.parametrize("optim", quick_if(("adam",), choices("optim")))
def test_every_setting_of_an_optimizer_changes_training(every_setting_matters: Matters, optim: str) -> None:
    every_setting_matters(Learned, "optim", optim, "data=sinusoid", "algo=fomaml")


@pytest.mark.parametrize("schedule", quick_if(("cosine", "milestones"), choices("optim/schedule")))
def test_every_setting_of_a_schedule_changes_a_run(every_setting_matters: Matters, schedule: str) -> None:
    """The rate of each of five steps is among what is written."""
    few = {"run.steps": 5, "run.log_every": 1, "optim.schedule.step_size": 2, "optim.schedule.at": [1, 2, 4]}
    every_setting_matters(Ran, "optim/schedule", schedule, "data=sinusoid", "algo=fomaml", **few)


@pytest.mark.parametrize("backbone", quick_if(("conv4", "mlp"), sorted({*choices("backbone")} - {"none"})))
def test_every_setting_of_a_backbone_changes_an_outcome(every_setting_matters: Matters, backbone: str) -> None:
    own = {"timm": {"backbone.name": "test_resnet"}, "open_clip": {"backbone.name": str(TINY_CLIP)}}.get(backbone, {})
    every_setting_matters(Learned, "backbone", backbone, "algo=baseline", **own)


@pytest.mark.parametrize("run", quick_if(("offline",), choices("run")))
def test_every_setting_of_a_run_changes_what_it_writes(every_setting_matters: Matters, run: str) -> None:
    learned = ["data=glyphs", "algo=oml"] if run == "continual" else ["data=sinusoid", "algo=fomaml"]
    every_setting_matters(Ran, "run", run, *learned, **{"run.steps": 5, "algo.test_inner_lr": 50.0})


@pytest.mark.parametrize("data", quick_if(("glyphs", "sinusoid", "bandits"), choices("data")))
def test_every_setting_of_a_source_changes_its_tasks(
    every_setting_matters: Matters, files: Path, small_sets: None, data: str
) -> None:
    algo = "protonet" if "data.n_way" in settings_of("data", data) else "maml"  # which trains on data.wide ways
    algo = ALONE.get(data, algo)
    algo = "learned_optimizer" if KINDS.get(data) == ("optimisation",) else algo
    algo = "rl2" if acts("data", data) else algo
    if data in ("gymnasium", "half_cheetah_direction"):
        pytest.importorskip("mujoco" if data.startswith("half") else "gymnasium")
    own = {
        "folder": {"data.path": str(files / "cub.zip"), "data.fractions": [0.4, 0.3, 0.3]},
        "text": {"data.path": str(files / "texts.csv"), "data.fractions": [0.4, 0.3, 0.3]},
        "rainbow": {"data.images": "omniglot", "data.k_shot": 2},
        "completion": {"data.images": "omniglot", "data.k_shot": 4, "data.train.k_shot": [3, 6]},
        **{name: {"data.split": "random", "data.rotation": "class", "data.n_way": 2} for name in TORCHVISION},
    }
    steps = {"run.steps": "${data.steps}"}
    every_setting_matters(Drawn, "data", data, f"algo={algo}", **own.get(data, {}), **steps)


@pytest.mark.parametrize(
    ("data", "published"),
    [
        ("omniglot", "16 images a class here, 20 in"),  # its two archives are the same here
        ("cifar_fs", "7 to 8 images a class here, 600 in"),
        ("mini_imagenet", "7 to 8 images a class here, 600 in"),
        ("tiered_imagenet", "191 images here, 779,165 in"),
        ("cub", "191 images here, 11,788 in"),
    ],
)
def test_a_set_is_held_against_the_number_of_images_of_its_paper(
    full: Callable[..., DictConfig], cache: Path, files: Path, small_sets: None, data: str, published: str, caplog: Any
) -> None:
    """The sets of `files` have 24 classes of 8 images, but for one that lacks an image."""
    config = full(f"data={data}", "algo=protonet", f"paths.cache={cache}", f"paths.data={files}")
    set_in(config, TINY)
    build_source(resolve(config), torch.device("cpu"))
    assert f"{data} has {published} the published set" in caplog.text


def test_every_setting_that_is_in_no_group_changes_an_outcome(every_setting_matters: Matters) -> None:
    every_setting_matters(Learned, "", "config", **{"backbone.layers": 2})


@pytest.mark.parametrize("table", [NO_EFFECT, VALUES, BESIDE], ids=["no effect", "values", "beside"])
def test_the_tables_name_settings_that_there_are(table: dict[Any, Any]) -> None:
    groups = ("algo", "optim", "optim/schedule", "backbone", "run", "data")
    there = {("config", key) for key in settings_of("", "config")}
    for group, choice in ((name, choice) for name in groups for choice in choices(name)):
        there |= {(choice, key.partition("[")[0]) for key in settings_of(group, choice)}
    assert [name for name in table if name not in there | {key for _, key in there}] == []


def test_torch_gets_the_threads_that_are_asked_for_and_keeps_its_own_by_auto(full: Callable[..., DictConfig]) -> None:
    try:
        for asked, got in ((3, 3), ("auto", 3), (1, 1)):
            config = full("data=sinusoid", "logger=none", f"threads={asked}")
            set_in(config, TINY)
            parts_of(config)
            assert torch.get_num_threads() == got
    finally:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every data set that is read from files, of 24 classes of eight small images (one has seven); lists that split
    them; and weights."""
    root = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    plain = [f"n{number:08d}" for number in range(24)]
    characters = [f"alphabet{number // 4}/character{number}" for number in range(24)]
    sets = dict.fromkeys(("cifar_fs", "mini_imagenet", "tiered_imagenet", "cub"), plain)
    for name, labels in (sets | dict.fromkeys(("images_background", "images_evaluation"), characters)).items():
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for label, number in itertools.product(labels, range(8)):
                if (label, number) != (plain[3], 7):
                    png = io.BytesIO()
                    Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).save(png, "PNG")
                    archive.writestr(f"{name}/{label}/{number}.png", png.getvalue())
    (root / "splits").mkdir()
    others = {"fc100": plain[4:] + plain[:4], "omniglot_lake": characters[4:] + characters[:4]}
    for name, labels in (sets | others | {"omniglot_vinyals": characters}).items():
        for place, split in enumerate(("train", "val", "test")):
            (root / "splits" / f"{name}_{split}.txt").write_text("\n".join(labels[8 * place : 8 * place + 8]))
    turns = zip(itertools.cycle(("train", "val", "test")), plain, strict=False)
    (root / "split.txt").write_text("".join(f"{split} {label}\n" for split, label in turns))
    parts = zip(itertools.cycle(("train", "val", "test")), range(10), strict=False)
    (root / "digits.txt").write_text("".join(f"{split} {digit}\n" for split, digit in parts))
    rows = (f"{one}/{number}.png,{plain[(c + number) % 24]}" for c, one in enumerate(plain) for number in range(8))
    (root / "labels.csv").write_text("\n".join(["file,label", *rows]))
    for name, words in (("texts", ("ab", "cd", "ef")), ("other", ("gh", "ij", "kl"))):
        lines = [f"{label},{words[row % 3]}{number}{row}" for number, label in enumerate(plain) for row in range(8)]
        few = [line for line in lines if line != lines[8 * 3 + 7]]
        (root / f"{name}.csv").write_text("\n".join(["label,text", *few]))
    (root / "elsewhere").mkdir()
    for file in root.glob("*.zip"):
        (root / "elsewhere" / file.name).symlink_to(file)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.get_model(str(TINY["backbone.name"]))
    torch.save(net.state_dict(), root / "weights.pt")
    return root


@pytest.fixture
def small_sets(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of `files` in the place of those that are shipped, small sets in the place of torchvision's, and every
    split of a folder drawn anew."""
    monkeypatch.setattr("metarun.data.files.splits.FOLDER", files / "splits")
    for source in ("folder", "text"):
        monkeypatch.setattr(f"metarun.data.{source}.write_split_file", lambda path, split: None)
    for name in ("EMNIST", "FashionMNIST", "MNIST", "SVHN", "KMNIST"):
        monkeypatch.setattr(torchvision.datasets, name, partial(Pictures, name))


class Pictures:
    """A set of torchvision, of ten classes of nine images, drawn from its name and options."""

    def __init__(self, name: str, root: str, download: bool = False, **options: Any) -> None:
        rng = np.random.default_rng(list(repr((name, options)).encode()))
        self.targets = np.repeat(np.arange(10), 9)
        self.pixels = rng.integers(0, 256, (90, 10, 12, 3), np.uint8)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[row]), int(self.targets[row])


def conditions() -> list[Any]:
    """Every setting that says of itself that it counts only with certain values of another one."""
    found = []
    for group, choice in [(kind, name) for kind in ("algo", "backbone", "data") for name in choices(kind)]:
        node = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())
        target = node.get(group, node).get("_target_")
        for name, condition in find_conditions(target).items() if target else ():
            if choice == "named":  # whose only one, `templates`, needs a file of all classes: see described
                continue
            quick = name == "fce_steps"
            found.append(pytest.param(group, choice, name, condition, marks=[] if quick else [pytest.mark.slow]))
    return found


@pytest.mark.parametrize(("group", "choice", "name", "condition"), conditions())
def test_a_setting_that_counts_only_with_another_one_has_no_effect_without_it_and_is_told(
    full: Callable[..., DictConfig], cache: Path, caplog: Any, group: str, choice: str, name: str, condition: CountsWith
) -> None:
    """Of the values that the other setting may have, those with which it does not count."""
    learned = [f"algo={ALONE.get(choice, 'maml')}", "backbone=mlp_small"]
    beside = {"algo": [], "backbone": ["algo=baseline"], "data": learned}[group]
    if group == "algo":
        beside = [f"data={next(d for d in KNOWN if (choice, d) in PAIRS)}"] if choice not in CONTROL else []
        beside += [f"data={CONTROL[choice]}"] if choice in CONTROL else []
    config = full(f"{group}={choice}", *beside, f"paths.cache={cache}", "logger=none")
    set_in(config, TINY)
    other = f"{group}.{condition.other}"
    if not has(config, other):
        pytest.skip(f"{choice} has no {other}")
    now = OmegaConf.select(config, other)
    nothing = (False, True) if isinstance(now, bool) else (None if now is None else type(now)(),)
    nothing = ({"_target_": "torch.nn.Identity", "_partial_": True},) if other == "algo.transform" else nothing
    tried = choices_for(config, other) or nothing
    without = next(value for value in tried if not condition.counts(value))
    changed = [2.0, 3.0] if name == "period" else other_values(choice, f"{group}.{name}", config)[0]
    outcomes = []
    for values in ({other: without}, {other: without, f"{group}.{name}": changed}):
        told = config.copy()
        set_in(told, values)
        outcomes.append((Drawn if group == "data" else Learned)(told))
        caplog.clear()
        advise(told, {group: choice}, ())
        said = f"{group}.{name}={show_value(changed)} has no effect with {other}={show_value(without)}: it counts with"
        assert (said in caplog.text) == (len(outcomes) == 2), caplog.text
    assert same(*outcomes)
