"""A run's folder that somebody else made: what it names is not run, and nothing is written outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from metarun.app.commands.rerun import make_arguments
from metarun.app.commands.resume import resume
from metarun.app.jobs.evaluated import Asked, evaluate_run
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder
from metarun.settings import roles
from metarun.settings.reopen import reopen

RUNS = Path(__file__).parent / "data" / "runs"
PWN = "from pathlib import Path\nPath({!r}).touch()\ndef run(**_): pass\nclass Learner: pass\n"


@pytest.fixture
def pwned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the module `pwn` of the working folder has been imported."""
    made = tmp_path / "pwned"
    (tmp_path / "pwn.py").write_text(PWN.format(str(made)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(RUNS / "interrupted", tmp_path / "run")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return shutil.copytree(RUNS / "maml", tmp_path / "finished")


def put(folder: Path, key: str, value: Any) -> None:
    """Set a key of the run's settings, by hand."""
    file = RunFolder(folder).settings
    settings = yaml.safe_load(file.read_text())
    node = settings
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    file.write_text(yaml.safe_dump(settings))


CALL = {"_target_": "pwn.run"}
FOREIGN = {
    **{f"{group}._target_": "pwn.Learner" for group in ("algo", "data", "backbone", "optim", "run", "logger")},
    "optim.schedule._target_": "pwn.run",
    "optims": {"teacher": CALL},
    "logger": {"_target_": "torch.utils.collect_env.run", "command": "true"},
    "algo.inner_lr": CALL,
    "data.glyph_seed": {"_target_": "torch.utils.collect_env.run", "command": "true"},
    "data.train.n_query": {"_target_": "metarun.run.tracking.sink.NoSink"},
    "algo.report_steps": [CALL],
    "paths.data": CALL,
    "extra": {"deep": [{"er": CALL}]},
    "backbone.widths": "${oc.env:HOME}",
    "paper": {"value": 1, "ci95": None, "source": "see ${oc.env:SECRET}"},
    "logger.project": "${oc.${x}:HOME}",
    "logger.tags": ["${oc.decode:${oc.env:HOME}}"],
    "algo._target_": "${bn}",
    "data.id": "pwn:Env-v0",
    "data.members": {"gymnasium": {"id": "pwn:Env-v0"}},
}


@pytest.mark.parametrize(("key", "value"), FOREIGN.items(), ids=lambda value: str(value)[:40])
def test_what_settings_name_that_is_not_ours_is_neither_made_nor_imported(
    run: Path, pwned: Path, key: str, value: Any
) -> None:
    put(run, key, value)
    with pytest.raises(ConfigError, match=r"config\.yaml: [\s\S]*add --trust"):
        reopen(run)
    with pytest.raises(ConfigError, match=r"add --trust"):
        resume(run, [])
    assert not pwned.exists()


@pytest.mark.parametrize(("key", "value"), list(FOREIGN.items())[:4], ids=lambda value: str(value)[:40])
def test_nor_is_it_in_a_test_of_a_finished_run(finished: Path, pwned: Path, key: str, value: Any) -> None:
    put(finished, key, value)
    with pytest.raises(ConfigError, match=r"add --trust"):
        evaluate_run(finished, Asked(), lambda _: None)
    assert not pwned.exists()


@pytest.mark.parametrize("target", ["torch.optim.gone", "metarun.algos.gone.Gone", "nonsense", ""])
@pytest.mark.parametrize("group", ["optim", "algo", "data"])
def test_a_class_that_is_gone_is_named(
    run: Path, finished: Path, caplog: pytest.LogCaptureFixture, group: str, target: str
) -> None:
    for folder, use in ((run, lambda: resume(run, [])), (finished, lambda: evaluate_run(finished, Asked(), print))):
        put(folder, f"{group}._target_", target)
        try:
            assert use() == 2
            said = caplog.text
        except ConfigError as error:
            said = str(error)
        assert f"{group}._target_={target}" in said


def test_with_a_word_of_ones_own_it_is(run: Path, pwned: Path) -> None:
    put(run, "algo._target_", "pwn.Learner")
    assert reopen(run, trust=True).config.algo._target_ == "pwn.Learner"
    assert not pwned.exists()
    with pytest.raises(ConfigError, match=r"algo\._target_=pwn\.Learner is no Learner"):
        reopen(run, trust=True).resolve()
    assert pwned.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["algo._target_=pwn.Learner"], ["+algo.x._target_=pwn.run"], ["algo.inner_lr={_target_:pwn.run}"],
        ["hydra.callbacks.sweep._target_=pwn.run"], ["+hydra.callbacks.x._target_=pwn.run"], ["hydra/launcher=joblib"],
        ["++hydra.job.env_set.LD_PRELOAD=x"], ["data=gymnasium", "data.id=pwn:Env-v0"],
        ["hydra.searchpath=[pkg://pwn]"], ["~hydra.callbacks"], ["--config-dir=x"],
        ["-m"], ["resume"], ["--config-path=pkg://pwn", "seed=1"], ["algo.inner_lr=${oc.env:HOME}"],
        [5], [["seed=1"]],
    ],
    ids=str,
)  # fmt: skip
def test_the_overrides_in_a_folder_are_settings_and_nothing_else(
    finished: Path, pwned: Path, words: Sequence[Any]
) -> None:
    file = RunFolder(finished).results
    results = json.loads(file.read_text())
    file.write_text(json.dumps({**results, "overrides": [*results["overrides"], *words]}))
    with pytest.raises(ConfigError, match=r"add --trust|is malformed"):
        make_arguments(finished, [])
    assert not pwned.exists()


def test_a_default_of_then_that_names_code_is_refused_too(finished: Path, pwned: Path) -> None:
    """rerun holds today's settings to what they were then."""
    put(finished, "algo._target_", "pwn.Learner")
    with pytest.raises(ConfigError, match=r"algo\._target_=pwn\.Learner is code .*[\s\S]*add --trust"):
        make_arguments(finished, [])
    assert not pwned.exists()
    assert "algo._target_='pwn.Learner'" in make_arguments(finished, [], trust=True)[0]


def test_folders_of_yaml_files_that_a_run_names_want_the_word_as_well(finished: Path, tmp_path: Path) -> None:
    file = RunFolder(finished).hydra
    hydra = yaml.safe_load(file.read_text())
    (tmp_path / "mine").mkdir()
    hydra["hydra"]["runtime"]["config_sources"].append(
        {"path": str(tmp_path / "mine"), "schema": "file", "provider": "command-line"}
    )
    file.write_text(yaml.safe_dump(hydra))
    with pytest.raises(ConfigError, match=r"settings of its own in .*mine[\s\S]*add --trust"):
        make_arguments(finished, [])
    assert make_arguments(finished, [], trust=True)[0][0] == f"--config-dir={tmp_path / 'mine'}"


@pytest.mark.parametrize("name", ["interrupted", "maml", "protonet", "cnp", "evaluated"])
def test_a_run_of_ours_wants_no_word(name: str) -> None:
    reopen(RUNS / name)


@pytest.mark.parametrize(("kind", "target", "said"), [
    ("algo", "metarun.algos.base.learner.Learner", "is abstract"),
    ("algo", "torch.nn.Linear", "is no Learner"),
    ("data", "metarun.algos.gradient.maml.MAML", "is no source of tasks"),
    ("backbone", "torch.nn.functional.relu", "is no torch.nn.Module"),
    ("backbone", "torch.nn.modules.module.torch.jit.ScriptModule", "is no class of torch"),
    ("optim", "torch.nn.Linear", "is no torch.optim.Optimizer"),
    ("optim.schedule", "torch.optim.Adam", "is no schedule"),
    ("optim.schedule", "metarun.core.seeding.derive_seed", "is no schedule"),
    ("run", "metarun.data.glyphs.Glyphs", "is no Run"),
    ("logger", "metarun.run.tracking.sink.Sink", "is abstract"),
    ("logger", "metarun.run.processes.subprocess.run", "is no Sink"),
    ("logger", "metarun.nothing.Sink", "cannot be used"),
    ("logger", "", "cannot be used"),
    ("logger", 5, "must be the name of a class"),
    ("optim", "torch.optim.RMSprop", None),
    ("optim.schedule", "metarun.ops.schedules.milestones", None),
    ("backbone", "torch.nn.Identity", None),
    ("data", "metarun.data.union.Union", None),
])  # fmt: skip
def test_a_class_is_of_the_role_of_its_group(kind: str, target: Any, said: str | None) -> None:
    found = roles.find_problem(kind, f"{kind}._target_", target)
    assert found is None if said is None else said in str(found)


def link_file(outside: Path, inside: Path) -> None:
    inside.unlink(missing_ok=True)
    inside.symlink_to(outside)


LINKED = [
    "metrics.jsonl",
    "run.log",
    "results.json",
    "episodes.png",
    ".hydra/lock",
    "checkpoints/last.pt",
    "evals/x.json",
]


@pytest.mark.parametrize(
    ("how", "name"),
    [("resume", name) for name in LINKED] + [("eval", name) for name in LINKED if name != "results.json"],
)
def test_nothing_is_written_through_a_link(run: Path, finished: Path, tmp_path: Path, how: str, name: str) -> None:
    folder = run if how == "resume" else finished
    outside = tmp_path / "precious"
    outside.write_text("words" * 9999)
    (folder / name).parent.mkdir(exist_ok=True)
    link_file(outside, folder / name)
    goes_on: dict[str, Callable[[], Any]] = {
        "resume": lambda: resume(run, []),
        "eval": lambda: evaluate_run(finished, Asked(), lambda _: None),
    }
    with pytest.raises(ConfigError, match=r"is a link to .*precious, outside the run's folder"):
        goes_on[how]()
    assert outside.read_text() == "words" * 9999


@pytest.mark.parametrize("name", ["checkpoints", "evals", "wandb", "tensorboard"])
def test_nor_into_a_folder_that_is_one(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"is a link to .*elsewhere"):
        resume(run, [])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_within_the_folder_and_to_the_folder_are_no_matter(run: Path, tmp_path: Path) -> None:
    (run / "latest").symlink_to("checkpoints")
    (tmp_path / "alias").symlink_to(run)
    RunFolder(tmp_path / "alias").check_links()
