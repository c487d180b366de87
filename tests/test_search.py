"""A search through Optuna, which goes on where it stopped."""

from __future__ import annotations

import os
import re
import shlex
import signal
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import optuna
import pytest
from commands import TINY, jobs_of, metarun, results_of, start, wait_for_step
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState
from test_settings import Settings

from metarun.app.sweeps.search import check_search, list_settled, open_study, prepare_sweeper
from metarun.cli import command
from metarun.core.errors import ConfigError
from metarun.report.figures.study import draw_history
from metarun.report.figures.study_page import draw_study, find_untried, list_rows
from metarun.settings import names
from metarun.settings.conf import CONF

pytestmark = pytest.mark.filterwarnings("ignore:.*Distribution has been deprecated:FutureWarning")  # the plugin's


def sweeper(folder: Path, n_trials: int = 6, **params: str) -> DictConfig:
    config = OmegaConf.load(CONF / "hydra" / "sweeper" / "study.yaml")
    own = {"storage": names.make_sqlite_url(f"{folder}/study.db"), "n_trials": n_trials, "n_jobs": 1, "params": params}
    return OmegaConf.merge(config, own)  # type: ignore[return-value]


def ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("lr", 0.0, 1.0)
    return trial


def go_on(config: DictConfig, rerun: str = "interrupted") -> optuna.Study:
    """What a repeated command finds, with the sampler it then has."""
    study = open_study(config, rerun)
    prepare_sweeper(study, config)
    study.sampler = optuna.samplers.TPESampler(seed=config.sampler.seed)
    return study


def study_of(root: Path) -> optuna.Study:
    (path,) = root.glob("outputs/sweeps/*/study.db")
    return optuna.load_study(study_name="study", storage=f"sqlite:///{path}")


def test_a_study_that_stopped_goes_on_with_what_was_running_and_proposes_nothing_twice(tmp_path: Path) -> None:
    """Of 6 trials one is told, one failed and one was running: 4 are left, the running one first among them."""
    folder = tmp_path / "a b#c%20d?e{f}"
    folder.mkdir()
    study = go_on(sweeper(folder))
    first, failed, running = (ask(study) for _ in range(3))
    study.tell(first, 0.5)
    study.tell(failed, state=TrialState.FAIL)
    config = sweeper(folder)
    study = go_on(config)
    assert config.n_trials == 4
    assert (folder / "study.db").is_file()
    again = ask(study)
    assert (again.number, again.params) == (running.number, running.params)
    others = [ask(study) for _ in range(3)]
    assert [trial.number for trial in others] == [3, 4, 5]
    assert len({trial.params["lr"] for trial in study.trials}) == 6


def test_failed_trials_are_tried_again_once_when_asked(tmp_path: Path) -> None:
    study = go_on(sweeper(tmp_path, 2))
    failed = ask(study)
    study.tell(failed, state=TrialState.FAIL)
    study.tell(ask(study), 0.5)
    config = sweeper(tmp_path, 2)
    assert go_on(config).trials[-1].number == 1
    assert config.n_trials == 0
    for _ in range(2):
        config = sweeper(tmp_path, 2)
        study = go_on(config, "failed")
        assert (config.n_trials, len(study.trials)) == (1, 3)
    again = ask(study)
    assert again.params == failed.params
    study.tell(again, 0.7)
    assert [trial.number for trial in list_settled(study)] == [1, 2]
    assert not go_on(sweeper(tmp_path, 2), "all").trials


def test_a_study_of_another_space_or_direction_is_refused(tmp_path: Path) -> None:
    open_study(sweeper(tmp_path, lr="interval(0, 1)"), "interrupted")
    with pytest.raises(ValueError, match=r"has lr: interval\(0, 1\), not interval\(0, 2\); set hydra.sweep.dir"):
        open_study(sweeper(tmp_path, lr="interval(0, 2)"), "interrupted")
    config = OmegaConf.merge(sweeper(tmp_path, lr="interval(0, 1)"), {"direction": "minimize"})
    with pytest.raises(ValueError, match="has direction: maximize, not minimize"):
        open_study(config, "interrupted")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_killed_search_repeated_ends_with_all_its_trials_and_the_best_ones_command(
    tmp_path: Path, cache: Path, full: Settings
) -> None:
    """kill -9 in the second of three trials."""
    quick = ["algo.inner_steps=1", "algo.test_inner_steps=1", "run.steps=30", "run.val_every=15"]
    typed = ["-m", "search=maml", *TINY, *quick, "hydra.sweeper.n_trials=3"]
    process = start(*typed, cwd=tmp_path, cache=cache)
    while len(jobs_of(tmp_path)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    second = max(jobs_of(tmp_path), key=lambda folder: (folder / ".hydra").stat().st_mtime)
    wait_for_step(second, 5, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [trial.state.name for trial in study_of(tmp_path).trials] == ["COMPLETE", "RUNNING"]
    code, out, error = metarun(*typed, cwd=tmp_path, cache=cache)
    assert (code, error) == (0, "")
    assert "1 of 3 trials are done" in out
    assert "3 of 3 done" in out
    study = study_of(tmp_path)
    scores = {results_of(folder)["val"]["accuracy"] for folder in jobs_of(tmp_path)}
    assert {trial.value for trial in study.trials} == scores
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    shown = re.search(r"run it again +(metarun .*?)its folder +(\S+)", out, re.S)
    assert shown
    again = full(*(word for word in shlex.split(shown[1])[1:]), f"paths.cache={cache}")
    assert Path(shown[2]).name.endswith(names.make_key(again))
    assert results_of(tmp_path / shown[2])["val"]["accuracy"] == max(scores)
    for name in ("study.html", "history.png", "importance.png", "slices.png"):
        assert (tmp_path / shown[2]).parent.joinpath(name).stat().st_size > 5000
    written = {folder: (folder / "results.json").stat().st_mtime_ns for folder in jobs_of(tmp_path)}
    assert metarun(*typed, cwd=tmp_path, cache=cache)[0] == 0
    assert written == {folder: (folder / "results.json").stat().st_mtime_ns for folder in jobs_of(tmp_path)}


@pytest.mark.slow
def test_failed_trials_are_recorded_and_the_search_goes_on_also_in_processes_of_their_own(
    tmp_path: Path, cache: Path
) -> None:
    """A rate of 1e30 diverges; the plain SGD of the other choice does not."""
    rates = ["optim=sgd", "optim.lr=choice(0.01,1e30)", "run.steps=6", "algo.inner_steps=1", "algo.test_inner_steps=1"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_trials=4"]
    code, out, error = metarun("-m", "search=maml", *TINY, *rates, *launcher, cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    trials = study_of(tmp_path).trials
    states = {trial.state.name: trial.params["optim.lr"] for trial in trials}
    assert states == {"COMPLETE": 0.01, "FAIL": 1e30}
    assert len(trials) == 4
    assert "Diverged" in out and "optim.lr=0.01" in out  # noqa: PT018


@pytest.mark.slow
def test_a_search_without_one_finished_trial_exits_1_and_one_for_the_opposite_2(tmp_path: Path, cache: Path) -> None:
    one = ["-m", "search=protonet", *TINY, "hydra.sweeper.n_trials=1"]
    code, out, error = metarun(*one, "data.train.n_way=500", cwd=tmp_path, cache=cache)
    assert (code, error) == (1, "")
    assert "needs 500 classes" in out
    assert "no trial of the search finished" in out
    code, _, error = metarun(*one, "data.train.n_way=5", "hydra.sweeper.direction=minimize", cwd=tmp_path, cache=cache)
    assert (code, "chosen by their accuracy: set hydra.sweeper.direction=maximize" in error) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search=maml"], "search=maml is a search over many runs: metarun -m search=maml ..."),
        (["-m", "search=maml,protonet"], "each is a command of its own"),
        (["--optim.lr=0.1"], "there is no flag --optim.lr; settings are typed without --: optim.lr=0.1"),
        (["--multrun"], "there is no flag --multrun\n"),
    ],
)
def test_what_cannot_be_searched_is_said_in_a_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(arguments) == 2
    assert said in capsys.readouterr().err


def test_without_optuna_or_with_an_old_one_a_search_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"hydra-optuna-sweeper": "1.3.0", "optuna": "2.10.1"}.__getitem__)
    with pytest.raises(ConfigError, match=r"needs Optuna 4.9 or later, and 2.10.1 is installed: uv sync"):
        check_search("search=maml", True)

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"needs Optuna: uv sync, or: pip install 'optuna>=4.9,<6' && pip install"):
        check_search("search=maml", True)


def test_the_trials_of_a_study_stand_in_a_table_the_best_first_with_what_was_never_tried() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.enqueue_trial({"kind": "a", "lr": 0.5})
    study.enqueue_trial({"kind": "b", "lr": 0.25})
    study.enqueue_trial({"kind": "c", "lr": 0.75})

    def accuracy(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["a", "b", "c", "d"]) == "c":
            raise ValueError
        return 1 - trial.suggest_float("lr", 0, 1)

    study.optimize(accuracy, 3, catch=ValueError)
    rows = list_rows(study, "accuracy")
    assert [row["cells"] for row in rows] == [
        ["1", "75.00 %", "b", "0.25", "finished"], ["0", "50.00 %", "a", "0.5", "finished"], ["2", "", "c", "", "fail"],
    ]  # fmt: skip
    assert [row["mark"] for row in rows] == ["best", "", ""]
    assert find_untried(study) == ["kind=c", "kind=d"]
    values = [row["value"] for rows in draw_history(study, "accuracy").to_dict()["datasets"].values() for row in rows]
    assert {50.0, 75.0} <= set(values)


def test_pictures_of_a_study_need_no_network_and_show_its_failures(tmp_path: Path) -> None:
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=0))

    def loss(trial: optuna.Trial) -> float:
        rate, kind = trial.suggest_float("lr", 1e-4, 1.0, log=True), trial.suggest_categorical("kind", ["a", "b"])
        if rate > 0.1:
            raise ValueError
        return rate * trial.suggest_int("steps", 1, 4) + (kind == "a")

    study.optimize(loss, 12, catch=ValueError)
    assert {path.name for path in draw_study(study, tmp_path, "loss", ["-m", "search=maml"])} == {
        "study.html", "history.png", "importance.png", "slices.png"
    }  # fmt: skip
    page = (tmp_path / "study.html").read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    assert "<title>Search of 12 trials by validation loss</title>" in page
    assert "<code>metarun -m search=maml</code>" in page
    assert '<meta name="viewport" content="width=device-width' in page
    assert page.partition("<script")[0].count("<tr") == 1 + 12
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    rows = [row for rows in draw_history(study).to_dict()["datasets"].values() for row in rows]
    values = [row["value"] for row in rows if "best" in row]
    assert values[0] > min(values)
    assert [row["best"] for row in rows if "best" in row] == np.minimum.accumulate(values).tolist()
    failed = [trial.number for trial in study.trials if trial.state == TrialState.FAIL]
    assert failed
    assert [row["trial"] for row in rows if "best" not in row] == failed
