"""A run whose backbone has the weights of another run's: backbone.weights=RUN."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from omegaconf import DictConfig, OmegaConf
from run_folders import finished
from same_process import Use, using
from test_contract import parts_of

from metarun.app.typed_runs import name_folders
from metarun.cli import command
from metarun.core.errors import ConfigError
from metarun.core.known_source import know_source
from metarun.core.whole import hash_file
from metarun.ops import context
from metarun.report.groups import find_varied
from metarun.report.runs import find_runs
from metarun.run import checkpoint
from metarun.settings.build import build_parts
from metarun.settings.names import make_key
from metarun.settings.reopen import reopen
from metarun.settings.resolve import resolve
from metarun.settings.start import Start, check_start, open_start

Settings = Callable[..., DictConfig]


@pytest.fixture
def use(capsys: pytest.CaptureFixture[str], cache: Path) -> Iterator[Use]:
    with using(capsys, cache, 200) as used:
        yield used


def network_of(parts: object) -> torch.nn.Module:
    return next(m for n, m in parts.learner.named_modules() if n.endswith("backbone") and hasattr(m, "blocks"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("algo", ["baseline", "distill", "maml", "meta_curvature", "relationnet", "snail"])
def test_a_runs_backbone_is_found_wherever_its_algorithm_has_it(settings: Settings, tmp_path: Path, algo: str) -> None:
    """Under one name or another, with copies of it and tensors for each of its weights beside it."""
    trained = parts_of(settings(f"algo={algo}", "run.steps=4", "seed=1"))
    own = network_of(trained)
    fresh = network_of(parts_of(settings("algo=baseline", f"backbone={backbone_of(algo)}")))
    assert not all(map(torch.equal, fresh.state_dict().values(), own.state_dict().values()))
    Start(tmp_path, trained.learner.state_dict(), {}).load_into(fresh, {})
    assert all(map(torch.equal, fresh.state_dict().values(), own.state_dict().values()))


def backbone_of(algo: str) -> str:
    defaults = (Path("conf/algo") / f"{algo}.yaml").read_text()
    return next((w.split(":")[1].strip() for w in defaults.splitlines() if "override /backbone:" in w), "conv4_strided")


def test_another_network_is_refused_with_what_differs(settings: Settings, tmp_path: Path) -> None:
    config = settings("algo=baseline")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(config))
    start = Start(tmp_path, parts_of(config).learner.state_dict(), {})
    for word in ("backbone.hidden=6", "backbone.layers=3"):
        other = settings("algo=baseline", word)
        with pytest.raises(ConfigError, match=rf"the network there is not this one .*{word.partition('.')[2][:6]}"):
            start.load_into(network_of(parts_of(other)), OmegaConf.to_container(other.backbone))  # type: ignore[arg-type]


def test_a_network_with_a_normalisation_for_each_inner_step_is_none_that_others_start_from(
    settings: Settings, tmp_path: Path
) -> None:
    trained = parts_of(settings("algo=maml_pp"))
    with pytest.raises(ConfigError, match="the network there is not this one"):
        Start(tmp_path, trained.learner.state_dict(), {}).load_into(network_of(parts_of(settings("algo=maml"))), {})


@pytest.mark.parametrize("there", ["running", "transductive"])
def test_averages_of_batchnorm_come_along_where_both_runs_have_them(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, there: str
) -> None:
    caplog.set_level(logging.WARNING)
    trained = parts_of(settings("algo=baseline", f"bn={there}"))
    state = {name: value + 3 for name, value in trained.learner.state_dict().items()}
    network = network_of(parts_of(settings("algo=protonet", "backbone=conv4", "bn=running")))
    Start(tmp_path, state, {}).load_into(network, {})
    mean = dict(network.named_buffers())["blocks.1.running_mean"]
    assert mean.unique().tolist() == ([3.0] if there == "running" else [0.0])
    assert ("starts afresh" in caplog.text) == (there == "transductive")


def test_classes_that_the_other_run_was_trained_on_are_told(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its training classes are this one's test classes, and one of those for validation."""
    caplog.set_level(logging.WARNING)
    known = know_source(parts_of(settings("algo=protonet")).source).classes
    same = Start(tmp_path, {}, known)
    assert same.describe(known)["start"]["seen"] == []
    seen = [*known["test"], known["val"][0]]
    start = Start(tmp_path, {}, {"train": [*seen, "elsewhere/a"]})
    assert start.describe(known)["start"]["seen"] == sorted(seen)
    assert f"was trained on {len(seen)} classes that this run takes for unseen ones" in caplog.text


def test_two_runs_of_the_same_settings_are_the_same_start(settings: Settings, tmp_path: Path) -> None:
    """Whatever they are called, and wherever their files lie: `compare` puts what starts from them in one group."""
    told = {}
    for name, *words in (
        ("plain",),
        ("noted", "notes=a", "tags=[b]", "inspect=profile", "seed=1", "paths.data=elsewhere"),
        ("other", "optim.lr=0.5"),
    ):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        OmegaConf.save(settings("algo=baseline", *words), tmp_path / name / ".hydra" / "config.yaml")
        told[name] = Start(tmp_path / name, {}, {}).describe({})["backbone.weights"]
    assert told["plain"] == told["noted"] != told["other"]


def test_a_start_from_a_run_that_is_not_finished_is_told(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of one that was killed: it is another start than the same run to its end."""
    caplog.set_level(logging.WARNING)
    known = {}
    for status in ("finished", "interrupted", "killed"):
        (tmp_path / status / ".hydra").mkdir(parents=True)
        OmegaConf.save(settings("algo=baseline"), tmp_path / status / ".hydra" / "config.yaml")
        choices = {"hydra": {"runtime": {"choices": {"algo": "baseline", "data": "glyphs"}}}}
        (tmp_path / status / ".hydra" / "hydra.yaml").write_text(json.dumps(choices))
        if status != "killed":
            results = {"status": status, "algo": "baseline", "data": "glyphs"}
            (tmp_path / status / "results.json").write_text(json.dumps(results))
        known[status] = Start(tmp_path / status, {}, {}, 4).describe({})
    words = {status: facts["backbone.weights"] for status, facts in known.items()}
    assert words["killed"] == words["interrupted"] == f"{words['finished']}, not finished"
    assert known["killed"]["start"]["best_step"] == 4
    said = [
        f"{tmp_path / status} is not finished: its network is taken as the best checkpoint has it so far, of step 4; "
        f"to finish it: metarun resume {tmp_path / status}"
        for status in ("interrupted", "killed")
    ]
    assert [record.getMessage() for record in caplog.records] == said


def test_what_goes_on_needs_no_start_and_keeps_what_its_checkpoint_says_of_it(settings: Settings) -> None:
    gone = resolve(settings("algo=maml", "backbone.weights=gone"))
    with pytest.raises(ConfigError, match=r"backbone\.weights=gone is not the folder of a run"):
        build_parts(gone, Path())
    with context.restoring():
        parts = build_parts(gone, Path())
    state = parts.state_dict()
    parts.load_state_dict({name: value for name, value in state.items() if name != "facts"})  # of an older one
    assert parts.facts == {}
    told = {"start": {"folder": "gone", "sha256": "a"}}
    parts.load_state_dict(state | {"facts": told})
    assert parts.facts == parts.state_dict()["facts"] == told
    check_start(told, told)
    check_start({}, told)  # as the checkpoint of an older run
    for now in ({"start": {"sha256": "b"}}, {}):
        with pytest.raises(ConfigError, match="the run began with weights of gone, and those there are others now"):
            check_start(told, now)


@pytest.mark.slow
def test_a_run_that_began_goes_on_and_names_its_start_though_that_is_gone_or_another_by_then(
    tmp_path: Path, use: Use
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    words = [
        "data=sinusoid",
        "algo=maml",
        "backbone=mlp_small",
        "run.steps=2",
        "run.meta_batch_size=2",
        "run.val_tasks=2",
    ]
    words += [
        "run.test_tasks=2",
        "run.checkpoint_every=1",
        "run.compile=false",
        "threads=1",
        "device=cpu",
        "logger=none",
    ]
    assert use(*words, f"hydra.run.dir={first}")[0] == 0
    assert use(*words, f"backbone.weights={first}", f"hydra.run.dir={second}")[0] == 0
    then = json.loads((second / "results.json").read_text())
    assert then["start"]["sha256"] == hash_file(first / "checkpoints" / "best.pt")

    def take_back() -> None:
        (second / "results.json").unlink()
        shutil.copy(second / "checkpoints" / "previous.pt", second / "checkpoints" / "last.pt")

    best = checkpoint.load(first / "checkpoints" / "best.pt")
    (first / "results.json").unlink()
    checkpoint.save(first / "checkpoints" / "best.pt", best | {"step": 7})
    for ready in (lambda: None, partial(shutil.rmtree, first)):
        take_back()
        ready()
        code, _, error = use("resume", second)
        assert code == 0, error
        now = json.loads((second / "results.json").read_text())
        assert {key: now[key] for key in ("start", "backbone.weights", "test")} == {
            key: then[key] for key in ("start", "backbone.weights", "test")
        }
        code, _, error = use("replay", second, "--step", "1")
        assert (code, f"{first}" in error) == (2, True)  # for its first weights are there no more
    code, _, error = use("eval", second, "run.test_tasks=2")
    assert code == 0, error  # its own are


def test_what_a_run_starts_from_is_typed_as_runs_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("one-70a8", "two-70b9", "lr=1-70c0")
    one, two, three = (finished(tmp_path / "outputs" / name, [0.4, 0.5]) for name in names)
    newest = max((one, two, three), key=lambda folder: (folder / ".hydra" / "config.yaml").stat().st_mtime)
    for typed, several, became in (
        ("backbone.weights=70a8", False, f"backbone.weights={one}"),
        ("+backbone.weights=outputs/one-70a8", False, f"+backbone.weights={one}"),
        ("backbone.weights=70a8,two-70b9,null", True, f"backbone.weights={one},{two},null"),
        ("backbone.weights=lr=1-70c0", False, f"backbone.weights={three}"),
        ("backbone.weights=last", False, f"backbone.weights={newest}"),
        ("backbone.weights=DEFAULT", False, "backbone.weights=DEFAULT"),
        ("backbone.name=70a8", False, "backbone.name=70a8"),
    ):
        assert name_folders(typed, several) == became


def test_what_is_no_run_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.weights=nowhere is not the folder of a run"):
        parts_of(settings("algo=maml", "backbone.weights=nowhere"))


def test_a_run_from_the_start_is_the_same_job_as_before_there_was_the_setting(settings: Settings) -> None:
    config = settings("algo=maml").copy()
    key = make_key(config)
    OmegaConf.set_struct(config, False)
    del config.backbone.weights
    assert make_key(config) == key
    config.backbone.weights = "somewhere"
    assert make_key(config) != key


def test_a_run_starts_from_the_last_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """Two seeds of a pre-training, and a run from each: their first weights are the other's best ones, and they are
    one group to `compare`, apart from runs that start at random."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["metarun"])
    words = [*SMALL, "backbone=conv4_strided", "backbone.hidden=4", "logger=none", f"paths.cache={cache}"]
    for seed in (0, 1):
        first, second = f"outputs/first{seed}", f"outputs/second{seed}"
        assert command([*words, "algo=simpleshot", f"seed={seed}", f"hydra.run.dir={first}"]) == 0
        assert (
            command([*words, "algo=protonet", f"seed={seed}", "backbone.weights=last", f"hydra.run.dir={second}"]) == 0
        )
        parts = build_parts(reopen(Path(second)).resolve(), tmp_path)
        best = torch.load(f"{first}/checkpoints/best.pt")["learner"]
        assert all(torch.equal(v, best[f"backbone.{n}"]) for n, v in network_of(parts).state_dict().items())
        start, known = open_start(first), know_source(parts.source).classes
        assert start is not None
        assert known["train"]
        assert start.classes == known  # by which it is told what the run was trained on
        results = json.loads(Path(second, "results.json").read_text())
        assert results["start"]["folder"] == str(tmp_path / first)
        assert results["start"]["seed"] == seed
        assert results["backbone.weights"].startswith("simpleshot on glyphs ")
    assert command([*words, "algo=protonet", "hydra.run.dir=outputs/alone"]) == 0
    seconds = [run for run in find_runs([Path("outputs")]) if "second" in run.folder.name]
    assert find_varied(seconds, ["seed"]) == []
    alone = find_runs([Path("outputs/alone")])
    assert find_varied([*seconds, *alone], ["seed"]) == ["backbone.weights"]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [(("a", "1"), ("a", "1"), True), (("a", "1"), ("b", "1"), True), (("a", "1"), ("a", "2"), False),
     (("a", "1"), None, False), (None, ("a", "1"), True), (("a", None), ("a", "2"), True), (None, None, True)],
)  # fmt: skip
def test_a_run_begins_anew_from_the_same_weights_wherever_they_lie_and_from_no_others(
    before: tuple[str, str | None] | None, after: tuple[str, str | None] | None, same: bool
) -> None:
    then, now = ({"start": one and {"folder": one[0], "sha256": one[1]}} for one in (before, after))
    with nullcontext() if same else pytest.raises(ConfigError, match="the run began with weights of a, and those"):
        check_start(then, now)
