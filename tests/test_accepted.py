"""Every job of a sweep is checked before the first one starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import TINY, metarun, results_of

from metarun.cli import command

SINUSOID = ["data=sinusoid", "backbone=mlp_small", "run.steps=1", "run.val_tasks=2", "run.test_tasks=4", "logger=none"]
LR = "must be a number above 0"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines of the one message of a sweep that is refused."""
    code = command(["-m", *words])
    out = capsys.readouterr()
    assert code == 2, out
    assert out.err.count("metarun: ") == 1, out
    return out.err.strip().splitlines()


def test_each_wrong_job_of_a_grid_is_named_and_none_is_started(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(capsys, *SINUSOID, "algo=maml,fomaml", "optim.lr=0.1,bad")
    assert said == [
        "metarun: 2 of 4 jobs cannot run, and none is started:",
        f"algo=maml optim.lr=bad: optim.lr=bad {LR}",
        f"algo=fomaml optim.lr=bad: optim.lr=bad {LR}",
    ]
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_what_is_wrong_with_all_jobs_is_said_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refuse(capsys, *SINUSOID, "algo=maml,fomaml", "optim.lr=bad") == [f"metarun: optim.lr=bad {LR}"]
    assert list(here.iterdir()) == []


LIST = "- algo=maml\n- algo=protonet\n- algo=anil algo.inner_steps=0\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["algo=maml,protonet"], ["algo=protonet: ProtoNet is for classification"]),
        (["algo=maml,fomaml", "+algo.nothing=1"], ["there is no setting algo.nothing"]),
        (["algo=maml", "data.k_shot=5,0,-1", "hydra/launcher=joblib"], ["data.k_shot=0: ", "data.k_shot=-1: "]),
        (["runs=runs.yaml"], ["2 of 3 jobs", "algo=protonet: ", "algo=anil algo.inner_steps=0: "]),
        (["search=maml", "optim.lr=choice(0.1,-1)"], ["1 of 3 settings tried", f"optim.lr=-1 {LR}"]),
        (
            ["algo=maml", "seed=range(0,3)", "optim.lr=0.1,bad"],
            ["1 of 4 jobs", f"seed=0 optim.lr=bad: optim.lr=bad {LR}"],
        ),
    ],
)
def test_so_is_one_by_its_algo_of_a_launcher_of_a_list_of_a_search_and_of_a_large_grid(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    named: list[str],
) -> None:
    monkeypatch.setattr("metarun.app.sweeps.accepted.MOST_COMPOSED", 5)
    (here / "runs.yaml").write_text(LIST)
    text = "\n".join(refuse(capsys, *SINUSOID, *words))
    assert all(part in text for part in named), text
    assert [path.name for path in here.iterdir()] == ["runs.yaml"]


@pytest.mark.slow
def test_a_job_s_number_is_a_setting_like_others_and_the_run_keeps_it(tmp_path: Path, cache: Path) -> None:
    """It was a traceback; and the runs of such sweeps were opened by nobody afterwards."""
    words = ["-m", *TINY, "algo=maml,fomaml", "seed=${hydra:job.num}", "notes='at ${now:%Y}'", "hydra.sweep.dir=s"]
    code, out, error = metarun(*words, cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    folders = sorted(path for path in (tmp_path / "s").iterdir() if path.is_dir())
    assert sorted(results_of(folder)["seed"] for folder in folders) == [0, 1]
    code, out, error = metarun("eval", folders[0], cwd=tmp_path, cache=cache)
    assert code == 0, out + error
