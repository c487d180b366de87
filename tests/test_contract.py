"""Contract tests: every algorithm's YAML, found by globbing, keeps what metarun/algos/base/learner.py promises."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from conftest import ONE_OF_EACH, one_of_each, quick_if
from hydra.utils import get_object
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from metarun.core.errors import ConfigError
from metarun.core.scores import choose_score
from metarun.core.tasks import Batch, Examples, Metrics
from metarun.data.files.splits import read_split
from metarun.run.parts import Parts
from metarun.settings.build import build_parts
from metarun.settings.check import check
from metarun.settings.conf import CONF
from metarun.settings.resolve import resolve

Settings = Callable[..., DictConfig]
State = dict[str, Any]


@functools.cache
def choices(group: str) -> dict[str, dict[str, Any]]:
    """Each choice of a group, and what its YAML says of the group itself."""
    files = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / group).glob("*.yaml"))}
    return {name: values.get(group, values) for name, values in files.items()}


def acts(group: str, name: str) -> bool:
    """Whether it is for environments, which have a contract of their own: see test_control_contract.py."""
    return "control" in getattr(get_object(choices(group)[name]["_target_"]), "kinds", ()) or (
        group == "algo" and "environments" in get_object(choices(group)[name]["_target_"]).needs
    )


KINDS = {  # of data that the program makes
    name: getattr(get_object(values["_target_"]), "kinds", ("classification" if "n_way" in values else "regression",))
    for name, values in choices("data").items()
    if not {"root", "path", "sources", "source", "photos"} & values.keys()
    and name != "named"
    and not acts("data", name)
}
FILED = [  # of images
    name
    for name, values in choices("data").items()
    if name not in KINDS and not acts("data", name) and "dataset" not in values and "encoder" not in values
]
PAIRS = [
    (algo, data)
    for algo, values in choices("algo").items()
    for data, kinds in KINDS.items()
    if set(kinds) & set(get_object(values["_target_"]).kinds)
]
ALGOS = [algo for algo, data in PAIRS if data == "glyphs"]  # for images
FEWER_STEPS = {  # two inner steps where there would be more: each repeats the one before
    algo: [f"algo.{name}=2" for name in ("inner_steps", "test_inner_steps") if values.get(name, 0) > 2]
    for algo, values in choices("algo").items()
}
WITHOUT_NETWORK = ("bpl",)
"""Methods for images that have no backbone; their parameters start as they are, whatever the seed."""
NETWORKS = [algo for algo in ALGOS if algo not in WITHOUT_NETWORK]
FAMILIES = ("maml", "reptile", "protonet", "baseline", "cnp", "gp_oracle")
"""One method of each base class; what depends on the base class and the data alone is tested with these."""
CASES = [  # every method on images and on functions; one of each base class on all data and in all modes of BatchNorm
    (algo, data, bn)
    for algo, data in PAIRS
    for bn in (["transductive", "support", "running"] if data == "glyphs" else ["none"])
    if (data, bn) in {("glyphs", "transductive"), ("sinusoid", "none")}
    or (algo in FAMILIES and (data != "rainbow" or algo == "maml"))  # which is glyphs in colours
]
SMALLER = {"completion": ["data.k_shot=20", "data.train.k_shot=12"]}


def parts_of(config: DictConfig) -> Parts:
    return build_parts(resolve(config), Path())


def meta_step(parts: Parts, step: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(step)  # a run takes its random state along, see metarun/run/checkpoint.py
    batch = next(parts.learner.train().train_stream(parts.source, step, 3))
    return parts.learner.meta_step(batch, parts.optims)


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Trajectory(NamedTuple):
    """What a run of four outer steps shows in its steps 0, 1 and 3; in 3 a method of stages is in its last stage."""

    parts: Parts
    states: list[State]  # before, after steps 0 and 1, after the last
    metrics: list[Metrics]  # of these three steps
    optims: State  # of each optimizer by name, after step 0
    again: Callable[..., Parts]  # builds its parts anew, with other settings


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, id="-".join(case), marks=() if case[0] in ONE_OF_EACH else pytest.mark.slow)
        for case in CASES
    ],
)
def trajectory(request: pytest.FixtureRequest, settings: Settings) -> Trajectory:
    algo, data, bn = request.param
    few = FEWER_STEPS[algo] if data == "glyphs" else SMALLER.get(data, [])
    words = [f"algo={algo}", f"data={data}", f"bn={bn}", "run.steps=4", *few]

    def build(*overrides: str) -> Parts:
        return parts_of(settings(*words, *overrides))

    parts = build()
    states, metrics, optims = [state_of(parts.learner)], [], {}
    for step in (0, 1, 3):
        metrics.append(meta_step(parts, step))
        states.append(state_of(parts.learner))
        optims = optims or {name: deepcopy(optim.state_dict()) for name, optim in parts.optims.items()}
    return Trajectory(parts, states, metrics, optims, build)


def test_the_first_and_the_last_outer_step_change_theta_and_report_finite_numbers(trajectory: Trajectory) -> None:
    """Both, since a method may train in stages, on parameters of their own."""
    for metrics in trajectory.metrics:
        assert {"loss", choose_score(metrics)} <= metrics.keys()
        assert all(value.dim() == 0 and torch.isfinite(value) and not value.requires_grad for value in metrics.values())
    names = [name for name, _ in trajectory.parts.learner.named_parameters()]
    before, first, second, last = trajectory.states
    changed = {n for n in names if not torch.equal(before[n], first[n]) or not torch.equal(second[n], last[n])}
    assert changed == set(names)
    assert not names or not same(before, first)
    assert not names or not same(second, last)


def test_evaluate_gives_one_number_a_task_and_leaves_no_trace(trajectory: Trajectory) -> None:
    parts = trajectory.parts
    parts.learner.zero_grad()
    before = state_of(parts.learner)
    scores = parts.learner.eval().evaluate(next(parts.source.episodes("val", 0, 4)))
    assert all(score.shape == (4,) and not score.requires_grad for score in scores.values())
    assert all((values >= 0).all() for name, values in scores.items() if "mse" in name or "accuracy" in name)
    assert all((values <= 1).all() for name, values in scores.items() if "accuracy" in name)
    assert same(before, state_of(parts.learner))
    assert all(value.grad is None for value in parts.learner.parameters())


def test_permuting_the_tasks_permutes_the_scores(trajectory: Trajectory) -> None:
    parts = trajectory.parts
    batch, order = next(parts.source.episodes("val", 0, 4)), torch.tensor([2, 0, 3, 1])
    permuted = Batch(*(Examples(side.x[order], side.y[order]) for side in (batch.support, batch.query)), batch.n_way)
    scores, permuted_scores = (parts.learner.eval().evaluate(b) for b in (batch, permuted))
    assert len(set(scores["loss"].tolist())) == 4
    assert torch.allclose(scores["loss"][order], permuted_scores["loss"], atol=1e-5)


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(trajectory: Trajectory) -> None:
    """And one step saved, loaded into what another seed made, and one more are two steps bit for bit."""
    again, other = trajectory.again(), trajectory.again("seed=9")
    before, first, second, _ = trajectory.states
    assert same(state_of(again.learner), before)
    fixed = before and other.learner.__class__.__name__.lower() in WITHOUT_NETWORK
    assert not before or fixed or not same(state_of(other.learner), before)
    meta_step(again, 0)
    assert same(state_of(again.learner), first)
    other.learner.load_state_dict(first)
    for name, optim in other.optims.items():
        optim.load_state_dict(trajectory.optims[name])
    other.source = trajectory.parts.source
    meta_step(other, 1)
    assert same(state_of(other.learner), second)


@pytest.mark.parametrize("bn", quick_if(("running",), ("support", "running", "layer")))
@pytest.mark.parametrize("algo", one_of_each(NETWORKS))
def test_a_query_is_scored_alone_as_among_others_unless_bn_is_transductive_or_the_learner_says_that_they_matter(
    settings: Settings, algo: str, bn: str
) -> None:
    parts = parts_of(settings(f"algo={algo}", f"bn={bn}", "data.n_query=1", "algo.task_chunk=1", *FEWER_STEPS[algo]))
    meta_step(parts, 0)
    learner = parts.learner.eval()
    batch = next(parts.source.episodes("val", 0, 3))
    alone = []
    for i in range(batch.query.y.shape[1]):
        one = Batch(batch.support, Examples(batch.query.x[:, i : i + 1], batch.query.y[:, i : i + 1]), batch.n_way)
        alone.append(learner.evaluate(one)["loss"])
    same_score = torch.allclose(torch.stack(alone).mean(0), learner.evaluate(batch)["loss"], atol=1e-4)
    assert same_score == (learner.answers == "alone")


@pytest.mark.parametrize("backbone", quick_if(("conv4",), ("conv4", "mlp")))  # conv4_strided is what all others run on
@pytest.mark.parametrize("algo", one_of_each(NETWORKS))
def test_every_algorithm_trains_the_whole_of_another_backbone(settings: Settings, algo: str, backbone: str) -> None:
    deeper = ["backbone.widths=[8,6]"] if backbone == "mlp" else []
    parts = parts_of(settings(f"algo={algo}", f"backbone={backbone}", *deeper, *FEWER_STEPS[algo]))
    before = state_of(parts.learner)
    assert torch.isfinite(meta_step(parts, 0)["loss"])
    trained = {name: value for name, value in parts.learner.named_parameters() if value.grad is not None}
    assert len(trained) >= 6  # of two layers or four: weight, and factor and summand of the normalisation
    assert not [name for name, value in trained.items() if torch.equal(before[name], value)]


@pytest.mark.parametrize("algo", [name for name, values in choices("algo").items() if "test_inner_steps" in values])
def test_beside_the_scores_stand_the_inner_steps_of_training_and_those_of_tests(settings: Settings, algo: str) -> None:
    """What never adapts in training, as a method that pre-trains, takes none there."""
    data = "navigation" if acts("algo", algo) else next(data for name, data in PAIRS if name == algo)
    trained = {"algo.inner_steps": 3} if "inner_steps" in choices("algo")[algo] else {}
    words = [f"{key}={value}" for key, value in {**trained, "algo.test_inner_steps": 7}.items()]
    told = parts_of(settings(f"algo={algo}", f"data={data}", *words)).learner.describe()
    assert told["inner_steps"] == {"train": 3 if trained else 0, "test": 7}


@pytest.mark.parametrize(
    "algo", one_of_each(sorted({*choices("algo")} - {algo for algo, data in PAIRS if data == "sinusoid"}))
)
def test_an_algorithm_for_other_tasks_refuses_sine_waves(settings: Settings, algo: str) -> None:
    with pytest.raises(
        ConfigError,
        match=r"is for (classification( and sets)?|described|domains|domain generalisation|gaussian process|control|"
        r"bandits|mdp); the tasks of Sinusoid are regression: choose another",
    ):
        check(settings(f"algo={algo}", "data=sinusoid"))


@pytest.mark.parametrize("data", ["sinusoid", "moons", "described"])
def test_what_does_not_fit_is_told_before_settings_that_the_data_does_not_have(full: Settings, data: str) -> None:
    """protonet trains on `data.wide` ways."""
    with pytest.raises(ConfigError, match=r"ProtoNet is for classification; the tasks of \w+ are"):
        check(full("algo=protonet", f"data={data}", "logger=none"))


def test_clipping_bounds_the_outer_step(settings: Settings) -> None:
    parts = parts_of(settings("optim=sgd", "optim.lr=1", "optim.clip_norm=0.01"))
    before = state_of(parts.learner)
    meta_step(parts, 0)
    moved = sum(((value - before[name]) ** 2).sum().item() for name, value in parts.learner.state_dict().items())
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)


def test_a_part_has_rates_of_its_own_and_a_rate_of_0_freezes_it(settings: Settings) -> None:
    """With SGD a weight moves by its rate times its gradient; the longest of the names that fit counts."""

    def move(*words: str) -> dict[str, Tensor]:
        parts = parts_of(settings("algo=protonet", "optim=sgd", "optim.lr=1", *words))
        before = state_of(parts.learner)
        meta_step(parts, 0)
        return {name: value - before[name] for name, value in parts.learner.state_dict().items()}

    plain, first = move(), "backbone.blocks.0"
    assert any(name.startswith(f"{first}.") for name in plain)
    for name, moved in move("+optim.parts.backbone.lr=0.5", "+optim.parts.backbone.blocks.0.lr=0").items():
        share = 0.0 if name.startswith(f"{first}.") else 0.5
        assert torch.allclose(moved, share * plain[name], atol=1e-7), name
        assert share or not moved.any()
    for wrong, said in (
        ("backbon.lr=1", "optim.parts.backbon: no weights are called so; did you mean backbone"),
        ("backbone.momentum=1", "optim.parts.backbone.momentum=1: it may be lr or weight_decay, 0 or more"),
        ("backbone.lr=-1", "optim.parts.backbone.lr=-1: it may be lr or weight_decay, 0 or more"),
    ):
        with pytest.raises(ConfigError, match=said):
            parts_of(settings("algo=protonet", f"+optim.parts.{wrong}"))


def test_a_network_whose_rate_is_0_is_as_in_tests_where_methods_compare_its_embeddings(settings: Settings) -> None:
    """Its averages stay, and training images are embedded once; a part of it that has a rate learns."""
    words, held = ["algo=feat", "data=glyphs", "bn=running"], "+optim.parts.backbone.lr=0"
    parts = parts_of(settings(*words, held))
    before = state_of(parts.learner)
    batch = next(parts.learner.train().train_stream(parts.source, 0, 2))
    assert batch.support.x.ndim == 3
    parts.learner.meta_step(batch, parts.optims)
    moved = {name for name, value in parts.learner.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("attention.") for name in moved)
    for others in (["bn=transductive"], ["+optim.parts.backbone.blocks.0.lr=1"]):
        assert list(parts_of(settings(*words, held, *others)).learner.backbone.parameters())


def test_a_warm_up_raises_the_rate_of_the_schedule_and_goes_on_where_a_checkpoint_was(settings: Settings) -> None:
    """SGD with a rate that would fall by 1/4 a step, and is warmed up in two: 1/2, 3/4, 2/4 of it, and so on."""
    words = ["algo=protonet", "optim=sgd", "optim.lr=1", "optim/schedule=linear", "run.steps=4", "optim.warmup=2"]
    parts, steps = parts_of(settings(*words)), []
    for step in range(3):
        if step == 1:  # as if a run was resumed
            state, parts = parts.state_dict(), parts_of(settings(*words))
            parts.load_state_dict(state)
        (optim,) = parts.optims.values()
        optim.zero_grad()
        weight = next(one for one in parts.learner.parameters() if one.requires_grad)
        before, weight.grad = weight.detach().clone(), torch.ones_like(weight)
        optim.step()
        parts.schedules[0].step()
        steps.append(float((before - weight.detach()).mean()))
    assert steps == pytest.approx([0.5, 0.75, 0.5])
    assert parts.rates() == {"lr_outer": pytest.approx(0.25)}


@pytest.mark.parametrize("optim", quick_if(("sgd",), ("adam", "adamw", "sgd")))
@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [1, 1]), ("linear", [0.75, 0.5]), ("cosine", [0.854, 0.5]), ("cosine_restarts", [0.5, 1])],
)
def test_every_optimizer_follows_every_schedule(
    settings: Settings, optim: str, schedule: str, factors: list[float]
) -> None:
    parts = parts_of(settings(f"optim={optim}", f"optim/schedule={schedule}", "optim.lr=0.1"))
    rates = []
    for step in range(2):
        meta_step(parts, step)
        parts.schedules[0].step()
        rates.append(parts.optims["outer"].param_groups[0]["lr"] / 0.1)
    assert rates == pytest.approx(factors, abs=1e-3)


@pytest.fixture(scope="session")
def filed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every data set that is read from files: all its classes, with three random images each."""
    root = tmp_path_factory.mktemp("filed")
    rng = np.random.default_rng(0)
    images = []
    for _ in range(3):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(file, "PNG")
        images.append(file.getvalue())
    for name in ("cifar_fs", "mini_imagenet", "tiered_imagenet", "cub"):
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for label in (label for labels in read_split(name).values() for label in labels):
                for i, image in enumerate(images):
                    archive.writestr(f"{label}/{i}.png", image)
    lake = read_split("omniglot_lake")
    for part, labels in (("images_background", lake["train"] + lake["val"]), ("images_evaluation", lake["test"])):
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            for label in labels:
                for i, image in enumerate(images):
                    archive.writestr(f"{part}/{label}/{i}.png", image)
    return root


@pytest.mark.parametrize("data", FILED)
def test_every_source_of_files_gives_tasks_that_can_be_learned_from(
    settings: Settings, filed: Path, tmp_path: Path, data: str
) -> None:
    own = {"folder": [f"data.path={filed / 'cub.zip'}", f"data.split={tmp_path / 'split.txt'}"]}
    few = ["data.n_query=2", "data.train.n_query=2", f"paths.data={filed}", "backbone=conv4_strided"]
    config = settings("algo=protonet", f"data={data}", *few, *own.get(data, []), "data.train.n_way=5")
    parts = parts_of(config)
    one, again = (next(parts.source.episodes("train", 3, 2)) for _ in range(2))
    assert torch.equal(one.query.x, again.query.x)
    assert one.support.x.shape == (2, 5, *parts.source.info.input_shape)
    assert one.query.y.shape == (2, 10)
    assert parts.source.fingerprint("test", 4) != parts.source.fingerprint("val", 4)
    assert torch.isfinite(meta_step(parts, 0)["loss"])
    assert len(parts.source.labels("train", 0)) == 5
