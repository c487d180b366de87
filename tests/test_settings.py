"""Every shipped YAML composes, mirrors its constructor, and says what it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import noise_tasks
from hydra.utils import get_class
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from test_contract import acts
from test_control_contract import CONTROL

from metarun.core.errors import ConfigError
from metarun.core.tasks import EpisodeShape
from metarun.settings import build, names
from metarun.settings.check import FACTS, check
from metarun.settings.conf import CONF, GROUPS, list_shipped
from metarun.settings.explain import find_title
from metarun.settings.ranges import describe_problem, find_parameters
from metarun.settings.resolve import resolve
from metarun.settings.schema import BUILD_ANNOTATIONS, BUILD_KEYS, OWN_ANNOTATIONS, Config, Settings

FILES = [path for depth in ("*", "*/schedule", "*/quick") for path in sorted(CONF.glob(f"{depth}/*.yaml"))]
Compose = Callable[..., DictConfig]
ANNOTATIONS = {
    f"{prefix}.{name}".lstrip("."): annotation
    for prefix, annotations in {**OWN_ANNOTATIONS, **BUILD_ANNOTATIONS}.items()
    for name, annotation in annotations.items()
}

GOES_WITH = {  # what does not go with the default data or algorithm
    **{f"algo={name}": ["data=gp"] for name in ("cnp", "np", "anp", "gp_oracle")},
    **{f"algo={algo}": [f"data={data}"] for algo, data in CONTROL.items()},
    **{f"data={name}": ["algo=rl2"] for name in list_shipped("data") if acts("data", name)},
    "algo=hsml": ["data=mixture"],
    "algo=dann": ["data=moons"],
    "data=moons": ["algo=dann"],
    "algo=metareg": ["data=turned_moons"],
    "data=turned_moons": ["algo=metareg"],
    "algo=zero_shot": ["data=described"],
    "data=described": ["algo=zero_shot"],
    "algo=learned_optimizer": ["data=quadratics"],
    **{f"data={name}": ["algo=learned_optimizer"] for name in ("quadratics", "logistic")},
    "backbone=none": ["algo=cnp", "data=gp"],
    "data=sets": ["algo=neural_statistician", "algo.likelihood=gaussian", "backbone=mlp"],
}


def choice(file: Path) -> str:
    group = file.parent.relative_to(CONF).as_posix()
    if group.startswith("experiment"):
        return f"+experiment={file.relative_to(CONF / 'experiment').with_suffix('')}"
    return f"+debug='{file.stem}'" if group == "debug" else f"{group}={file.stem}"


def typed(file: Path) -> list[str]:
    """The words that choose a file."""
    data, _, algo = file.stem.partition("-")
    if file.parent.name == "tuned":
        return [f"data={data}", f"algo={algo}"]
    return [choice(file), *GOES_WITH.get(choice(file), [])]


@pytest.mark.parametrize("file", FILES, ids=choice)
def test_it_composes_passes_the_checks_and_has_a_meaning(file: Path, full: Compose) -> None:
    config = full(*typed(file))
    check(config)
    OmegaConf.to_container(config, resolve=True)
    assert 10 <= len(find_title(file)) <= 110 or find_title(file) == "Adam"


@pytest.mark.parametrize("file", FILES, ids=choice)
def test_it_gives_every_argument_of_its_constructor_in_order(file: Path, full: Compose) -> None:
    group = file.parent.relative_to(CONF).as_posix().replace("/", ".")
    if group.partition(".")[0] in ("experiment", "tuned", "search", "debug"):
        return
    node = OmegaConf.select(full(*typed(file)), group)  # the settings that the test before composed
    arguments = [name for name in find_parameters(node["_target_"]) if name not in FACTS[group]]
    outside = FACTS[group] | BUILD_KEYS.get(group, set()) - {*arguments}  # torchvision's networks take weights
    given = [key for key in map(str, node) if not key.startswith("_") and key not in outside]
    if node["_target_"].startswith("metarun."):
        assert given == arguments
    else:  # torch's own have many more
        assert [name for name in arguments if name in given] == given


@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_experiment_names_its_command_and_its_papers_number(file: Path, full: Compose) -> None:
    text, paper = file.read_text(), full(f"+experiment={file.stem}").paper
    assert f"metarun +experiment={file.stem}" in text
    if paper is None:
        assert "It has no number" in text
    else:
        assert 0 < paper.value < 1
        assert paper.source


@pytest.mark.parametrize("file", sorted((CONF / "experiment" / "quick").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_quick_experiment_names_its_command(file: Path) -> None:
    assert f"metarun -m +experiment=quick/{file.stem}" in file.read_text()


def test_all_problems_come_in_one_report(full: Compose) -> None:
    config = full("run.steps=-1", "optim.lr=0", "bn=x", "logger=wandb", "logger.mode=sometimes")
    with pytest.raises(ConfigError) as error:
        check(config)
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize("group", [*GROUPS, "optim.schedule"])
def test_every_group_is_checked_the_schedule_too(full: Compose, group: str) -> None:
    config = full("backbone=conv4", "optim/schedule=cosine")
    with open_dict(config):
        OmegaConf.update(config, f"{group}.hinge", 1, force_add=True)
    with pytest.raises(ConfigError, match=f"there is no setting {group}.hinge"):
        check(config)


@pytest.mark.parametrize("file", sorted((CONF / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_benchmark_that_is_chosen_by_its_name_is_that_one(file: Path) -> None:
    data = yaml.safe_load(file.read_text())
    name = data.get("data", data).get("name", file.stem)
    assert name == file.stem


@pytest.mark.parametrize(("word", "said"), [
    ("~algo.inner_lr", "algo.inner_lr is missing: MAML has no default for it"),
    ("~optim.weight_decay", None),
])  # fmt: skip
def test_a_setting_that_is_missing_is_told_unless_the_constructor_has_a_default(
    full: Compose, word: str, said: str | None
) -> None:
    config = full(word)
    if said is None:
        check(config)
    else:
        with pytest.raises(ConfigError, match=said):
            check(config)


def test_a_setting_without_effect_warns(full: Compose, caplog: pytest.LogCaptureFixture) -> None:
    check(full("algo.engine=learn2learn", "algo.task_chunk=4", "run.steps=10", "run.val_every=20", "run.test_tasks=9"))
    assert [line.split()[0] for line in caplog.messages] == ["algo.task_chunk", "run.val_every", "run.test_tasks=9"]


QUIET = ("run.test_tasks=600", "run.steps=10")


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        ((), []),
        (("run.val_every=10",), []),
        (("run.val_every=11",), ["run.val_every is above run.steps: the run is validated once, at its end"]),
        (("run.test_tasks=599",), ["run.test_tasks=599 is few for a number to believe; papers use 600 or more"]),
        *[(("algo.engine=learn2learn", f"algo.task_chunk={chunk}"), []) for chunk in (0, 1)],
        (("algo.engine=vectorized", "algo.task_chunk=2"), []),
        (
            ("algo.engine=learn2learn", "algo.task_chunk=2"),
            ["algo.task_chunk has no effect with algo.engine=learn2learn, which loops over tasks"],
        ),
        (("data=cifar_fs", "data.trainval=false"), []),
    ],
)
def test_a_warning_begins_where_it_is_true(
    full: Compose, caplog: pytest.LogCaptureFixture, words: tuple[str, ...], warned: list[str]
) -> None:
    check(full(*QUIET, *words))
    assert caplog.messages == warned


SPECIAL = {  # what else a setting of schema.ANNOTATIONS may be
    "threads": ["auto"], "run.processes": ["auto"], "optim.clip_norm": [None], "paper.ci95": [None],
    "data.train.k_shot": [[3, 50], [4, 4], "by_size"], "data.k_shot": ["by_size"],
    **{key: [[3, 50], [4, 4]] for key in ("data.n_way", "data.train.n_way", "data.wide")},
}  # fmt: skip
NEVER = [True, False, "x", "", float("nan"), [], [3], [1, 2, 3], [50, 3], {"a": 1}]
LEAST = {
    "seed": 0, "threads": 1, "data.n_way": 2, "data.k_shot": 1, "data.n_query": 1, "data.train.n_way": 2,
    "data.train.k_shot": 1, "data.train.n_query": 1, "data.eval_seed": 0, "data.steps": 1, "data.wide": 2,
    "run.processes": 1, "paper.ci95": 0, "optim.warmup": 0,
}  # fmt: skip
ABOVE = ("optim.clip_norm", "data.alpha")
"""Settings that are above 0; of the others the least that they may be."""


@pytest.mark.parametrize("key", [*LEAST, *ABOVE])
def test_each_setting_that_stands_on_no_constructor_of_ours_has_a_range(key: str) -> None:
    """It may be its least or more, in whole numbers but for the optimizer's, and null, a word or a range where one of
    them is said to be allowed."""
    annotation, whole = (
        ANNOTATIONS[key],
        key == "optim.warmup" or not key.startswith(("optim.", "paper.", "data.alpha")),
    )
    least = LEAST.get(key, 0)
    fit = [least + 1, least + 1000, *SPECIAL.get(key, []), *([] if whole else [least + 0.5])]
    fit += [] if key in ABOVE else [least]
    wrong = [value for value in (None, "auto", [3, 50], [4, 4]) if value not in SPECIAL.get(key, [])]
    wrong += [least - 1, *NEVER, *([least + 0.5, [1.5, 2], [0, 2], [True, 2]] if whole else [])]
    wrong += [least] if key in ABOVE else []
    assert [value for value in fit if describe_problem(key, value, annotation)] == []
    assert [value for value in wrong if not describe_problem(key, value, annotation)] == []
    bound = f"{'above' if key in ABOVE else 'of at least'} {least}"
    said = str(describe_problem(key, least - 1, annotation))
    assert said.startswith(f"{key}={least - 1} must be a {'whole ' * whole}number {bound}")


def test_no_other_of_them_has_a_range() -> None:
    assert {key for key, annotation in ANNOTATIONS.items() if "Ge(" in str(annotation) or "Gt(" in str(annotation)} == {
        *LEAST, *ABOVE,
    }  # fmt: skip


def test_settings_of_the_root_are_those_that_hydra_composes_and_a_run_has_a_choice_of_each_group() -> None:
    composed = Config.__dataclass_fields__
    assert composed.keys() - Settings.__dataclass_fields__.keys() == {"sweep"}
    assert Settings.__dataclass_fields__.keys() - composed.keys() == {"choices", "own"}
    assert tuple(name for name, field in composed.items() if field.default == MISSING) == GROUPS


def test_ranges_and_choices_of_the_root_are_told_with_what_else_there_is(full: Compose) -> None:
    words = ["threads=0", "optim.clip_norm=0", "data.train.k_shot=[3,2]", "run.compile=yes", "precision=float31"]
    words += ["data.train.n_query=5"]
    config = full("data=sinusoid", *words)
    config.bn = "transductiv"
    with pytest.raises(ConfigError) as error:
        check(config)
    assert str(error.value).splitlines() == [
        "threads=0 must be a whole number of at least 1 and of at most 4096 or auto",
        "precision=float31 is not one of float32, tf32, bf16; did you mean float32?",
        "bn=transductiv is not one of transductive, support, running, layer, none; did you mean transductive?",
        "data.train.k_shot=[3, 2] must be a whole number of at least 1 or a range, as [3,50] or by_size",
        "optim.clip_norm=0 must be a number above 0 or null",
        "run.compile=yes is not one of auto, True, False, inductor",
    ]


class Recordable:
    recordable = True

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def record(self, *how: object) -> None:
        self.told.append(how)


class Unrecordable(Recordable):
    recordable = False


@pytest.mark.parametrize(
    ("device", "compile", "told", "refused"),
    [
        ("cpu", "auto", [("replay", 100)], False),
        ("cuda", "auto", [("graph", 10)], False),
        ("cpu", True, [("replay",)], True),
        ("cuda", True, [("graph",)], True),
        ("cuda", "inductor", [("inductor",)], True),
        ("cpu", False, [], False),
    ],
)
def test_run_compile_says_what_is_recorded_and_auto_only_of_what_can_be_once_it_repeats(
    device: str, compile: bool | str, told: list[tuple[object, ...]], refused: bool
) -> None:
    learner = Recordable()
    build._record(learner, compile, torch.device(device))
    assert learner.told == told
    for other in (Unrecordable(), SimpleNamespace()):
        with (
            pytest.raises(ValueError, match=r"cannot be recorded; set run\.compile=false") if refused else nullcontext()
        ):
            build._record(other, compile, torch.device(device))
        assert getattr(other, "told", []) == []


@pytest.mark.parametrize(("typed", "threads"), [("2", 2), ("auto", 3)])
def test_torch_has_as_many_threads_as_are_asked_for_or_is_left_alone(
    settings: Compose, tmp_path: Path, typed: str, threads: int
) -> None:
    config, before = settings("data=sinusoid", f"threads={typed}"), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        build.build_parts(resolve(config), tmp_path)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("typed", [["algo=cnp", "data=gp"], ["backbone=vit"]])
def test_a_normalisation_that_nothing_uses_warns(
    full: Compose, caplog: pytest.LogCaptureFixture, typed: list[str]
) -> None:
    check(full(*typed))
    check(full(*typed, "bn=none"))
    check(full("bn=support"))
    assert not caplog.messages
    check(full(*typed, "bn=support"))
    assert [line.split(":")[0] for line in caplog.messages] == ["bn=support has no effect"]


def test_settings_that_are_resolved_for_a_run_warn_and_those_for_a_test_of_it_do_not(
    full: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    config = full("backbone=vit", "bn=support")
    resolve(config, warn=False)
    assert not caplog.messages
    resolve(config)
    assert [line.split(":")[0] for line in caplog.messages] == ["bn=support has no effect"]


def test_training_on_train_and_val_warns_and_is_in_the_name(full: Compose, caplog: pytest.LogCaptureFixture) -> None:
    config = full("data=cifar_fs", "data.trainval=true")
    check(config)
    assert [line.split()[0] for line in caplog.messages] == ["data.trainval=true:"]
    choices = OmegaConf.create({"algo": "maml", "data": "cifar_fs"})
    assert "-trainval-" in names.name_run(choices, config.data, config.bn, 0)
    assert "trainval" not in names.name_run(choices, full("data=cifar_fs").data, config.bn, 0)


def test_jobs_with_other_settings_have_other_names_and_none_is_too_long(full: Compose) -> None:
    keys = {names.make_key(full(*o)) for o in ([], ["seed=1"], ["algo.inner_lr=0.1"], ["data.eval_seed=3"])}
    assert len(keys) == 4
    assert names.make_key(full("paths.outputs=elsewhere")) == names.make_key(full("paths.outputs=here"))
    caches = {names.make_key(full(f"paths.cache={name}", "data=omniglot")) for name in ("here", "there")}
    assert len(caches) == 1
    long = OmegaConf.create({"algo": "a" * 300, "data": "my/own"})
    name = names.name_run(long, full().data, "support", 0)
    assert len(name) <= names.LONGEST
    assert "/" not in name


@pytest.mark.parametrize("file", sorted((CONF / "tuned").glob("*.yaml")), ids=lambda file: file.stem)
def test_what_is_tuned_for_a_pair_comes_with_it_and_yields_to_what_is_typed(file: Path, full: Compose) -> None:
    (group, values), *_ = OmegaConf.load(file).items()
    (key, tuned), *_ = values.items()
    assert OmegaConf.select(full(*typed(file)), f"{group}.{key}") == tuned
    assert OmegaConf.select(full(f"{group}.{key}=77", *typed(file)), f"{group}.{key}") == 77


def test_methods_with_a_rate_of_an_inner_loop_have_another_for_sine_waves(full: Compose) -> None:
    """The rates in algo/ are for the mean loss of classes; squared errors fall apart with them."""
    rated = [path.stem for path in (CONF / "algo").glob("*.yaml") if "inner_lr" in OmegaConf.load(path).algo]
    both = {"classification", "regression"}
    functions = [name for name in rated if both <= {*get_class(full(f"algo={name}").algo._target_).kinds}]
    assert len(functions) > 10
    lacking = [name for name in sorted(functions) if not (CONF / "tuned" / f"sinusoid-{name}.yaml").exists()]
    assert lacking == []


def test_a_backbone_that_nothing_uses_is_refused_as_is_none_where_one_is_needed(full: Compose) -> None:
    assert full("data=gp", "algo=cnp").backbone._target_ == "torch.nn.Identity"
    with pytest.raises(ConfigError, match=r"CNP has no use for a backbone.*set backbone=none"):
        check(full("data=gp", "algo=cnp", "backbone=mlp"))
    with pytest.raises(ConfigError, match="MAML needs a network: choose another backbone than none"):
        check(full("backbone=none"))


def test_where_the_backbone_does_not_go_with_the_method_its_settings_are_not_told_beside(full: Compose) -> None:
    """Quadratics set the widths of a network that they have none of if another backbone is typed."""
    with pytest.raises(ConfigError) as told:
        check(full("data=quadratics", "algo=learned_optimizer", "backbone=none", "algo.unroll=0"))
    first, *others = str(told.value).splitlines()
    assert first == "LearnedOptimizer needs a network: choose another backbone than none"
    assert others == ["algo.unroll=0 must be a whole number of at least 1"]


def test_a_range_of_shots_is_for_training_on_functions(full: Compose) -> None:
    check(full("data=sinusoid", "data.train.k_shot=[3,8]", "data.train.n_query=5"))
    for wrong in ("[8,3]", "[0,3]", "[1,2,3]", "few"):
        with pytest.raises(ConfigError, match=r"data.train.k_shot=.* or a range, as \[3,50\]"):
            check(full("data=gp", f"data.train.k_shot={wrong}"))
    with pytest.raises(ConfigError, match="must be one number where tasks have classes"):
        check(full("data.train.k_shot=[1,5]"))


def test_data_brings_its_network_unless_another_is_typed(full: Compose) -> None:
    assert (full("data=sinusoid").backbone.widths, full("data=sinusoid").bn) == ([40, 40], "none")
    typed = full("data=sinusoid", "backbone=mlp", "bn=support")
    assert (len(typed.backbone.widths), typed.bn) == (4, "support")
    choices = {"algo": "maml", "data": "sinusoid"}
    assert names.name_run(choices, full("data=sinusoid").data, "none", 0) == "maml-sinusoid-k5-s0"


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_experiment_takes_an_outer_step(
    settings: Compose, full: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    """A narrow network and random images, of as many ways and shots, stand in for the real one and its data."""
    config = settings(f"+experiment={file.stem}", "run.steps=3")
    if "n_way" in config.data:
        config.data.train.n_way = full(f"+experiment={file.stem}").data.train.n_way  # a head is for as many as in tests
        train, test = (EpisodeShape(side.n_way, side.k_shot, 2) for side in (config.data.train, config.data))
        source = noise_tasks(train, test, classes=max(train.n_way, test.n_way))
        monkeypatch.setattr(build, "build_source", lambda *_: source)
    parts = build.build_parts(resolve(config), tmp_path)
    before = {name: value.clone() for name, value in parts.learner.named_parameters()}
    batch = next(parts.learner.train_stream(parts.source, 0, config.run.meta_batch_size))
    metrics = parts.learner.meta_step(batch, parts.optims)
    assert all(bool(torch.isfinite(torch.as_tensor(value))) for value in metrics.values())
    assert any(not torch.equal(before[name], value) for name, value in parts.learner.named_parameters())
