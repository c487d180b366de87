"""The command line as a person uses it, each command a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY, lines_of, metarun, results_of, start, wait_for_step
from conftest import SMALL

from metarun.cli import command


@pytest.mark.parametrize(
    ("typed", "spins"), [({}, "30000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_threads_wait_briefly_unless_the_user_said_how(
    monkeypatch: pytest.MonkeyPatch, typed: dict[str, str], spins: str | None
) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    monkeypatch.setattr(os, "environ", kept | typed)
    assert command(["--version"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_imports_are_never_looked_through_for_garbage_and_what_comes_after_is() -> None:
    told = """if True:
        import gc
        from metarun.core import tuning
        with tuning.frozen_imports():
            assert not gc.isenabled()
            made = [[] for _ in range(10_000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() > 10_000
        frozen = gc.get_freeze_count()
        count, gc.get_freeze_count = gc.get_freeze_count, None  # it goes through all that is frozen
        with tuning.frozen_imports():
            more = [[] for _ in range(10_000)]
        assert count() == frozen
    """
    subprocess.run([sys.executable, "-c", told], check=True, timeout=60)


def test_a_run_leaves_every_file_and_says_where(tmp_path: Path, cache: Path) -> None:
    code, out, error = metarun(*TINY, cwd=tmp_path, cache=cache, fresh=True)
    assert (code, error) == (0, "")
    (folder,) = tmp_path.glob("outputs/*/*-maml-glyphs-5w1s-transductive-s0-*")
    for name in (
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        "run.log",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
    ):
        assert (folder / name).is_file()
    results = results_of(folder)
    assert results["status"] == "finished"
    assert results["engine"] == "vectorized"
    assert results["inner_steps"] == {"train": 1, "test": 3}
    tasks = np.load(folder / "test_tasks.npz")
    assert len(tasks["accuracy"]) == results["test"]["accuracy"]["n_tasks"] == 12
    assert results["test"]["accuracy"]["mean"] == pytest.approx(tasks["accuracy"].mean())
    assert [line["step"] for line in lines_of(folder) if line["split"] == "val"] == [2, 4]
    assert "metarun" in out and "seed=1" in out and "± " in out and str(folder.relative_to(tmp_path)) in out  # noqa: PT018


@pytest.mark.slow
def test_a_run_on_functions_is_known_by_its_squared_error(tmp_path: Path, cache: Path) -> None:
    small = [word for word in SMALL if not word.startswith(("data.al", "data.ch", "data.train.n_way"))]
    sines = [*small, "data=sinusoid", "logger=none"]
    code, out, error = metarun(*sines, cwd=tmp_path, cache=cache)
    assert (code, error) == (0, "")
    (folder,) = tmp_path.glob("outputs/*/*-maml-sinusoid-k5-s0-*")
    assert "maml on sinusoid, 5-shot, mlp_small, bn=none, seed 0" in out
    results = results_of(folder)
    assert (results["n_way"], results["k_shot"], results["train"]["n_query"]) == (None, 5, 3)
    assert list(results["test"]) == ["loss", "mse", "mse@0", "mse@1", "mse@5", "mse@10"]
    assert (
        results["best_step"]
        == min((line["mse"], line["step"]) for line in lines_of(folder) if line["split"] == "val")[1]
    )
    mean = results["test"]["mse"]["mean"]
    assert np.load(folder / "test_tasks.npz")["mse"].mean() == pytest.approx(mean)
    assert f"test mse {mean:.4f}" in metarun("list", cwd=tmp_path, cache=cache)[1]
    code, out, error = metarun("-m", *sines, "seed=0,1", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert f"mse {mean:.4f}" in out
    assert "sinusoid, 5-shot, 3 queries" in out


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers_bit_for_bit(tmp_path: Path, cache: Path) -> None:
    for name in ("a", "b"):
        assert metarun(*TINY, f"hydra.run.dir={name}", cwd=tmp_path, cache=cache)[0] == 0
    assert lines_of(tmp_path / "a") == lines_of(tmp_path / "b")
    assert results_of(tmp_path / "a")["test"] == results_of(tmp_path / "b")["test"]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_numbers_bit_for_bit(tmp_path: Path, cache: Path) -> None:
    """kill -9 at three moments in turn, whatever is being written then, against a run left alone.
    39 steps, logged every 4 and saved every 3, so that checkpoints fall inside a logging window."""
    long = [*TINY, "run.steps=39", "run.log_every=4", "run.checkpoint_every=3", "run.val_every=5", "bn=running"]
    assert metarun(*long, "hydra.run.dir=whole", cwd=tmp_path, cache=cache)[0] == 0
    process = start(*long, "hydra.run.dir=killed", cwd=tmp_path, cache=cache)
    for step in (4, 17, 30):
        wait_for_step(tmp_path / "killed", step, process)
        process.kill()
        process.communicate()
        assert not (tmp_path / "killed" / "results.json").exists()
        process = start("resume", "killed", cwd=tmp_path, cache=cache)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, out + error
    assert "going on from step" in out
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "killed")
    assert results_of(tmp_path / "whole")["test"] == results_of(tmp_path / "killed")["test"]
    whole, killed = (torch.load(tmp_path / name / "checkpoints" / "last.pt")["learner"] for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_first_and_names_the_command_to_go_on(
    tmp_path: Path, cache: Path, signum: signal.Signals, code: int
) -> None:
    process = start(*TINY, "run.steps=5000", "run.checkpoint_every=1000", "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    wait_for_step(tmp_path / "r", 3, process)
    process.send_signal(signum)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "metarun resume r" in out
    results = results_of(tmp_path / "r")
    assert results["status"] == "interrupted"
    assert torch.load(tmp_path / "r" / "checkpoints" / "last.pt")["progress"]["step"] == results["steps"]


def test_a_loss_that_is_not_a_number_ends_the_run_with_its_checkpoint_kept(tmp_path: Path, cache: Path) -> None:
    blown = [*TINY, "run.steps=200", "optim=sgd", "optim.lr=1e30", "hydra.run.dir=r"]
    code, out, error = metarun(*blown, cwd=tmp_path, cache=cache)
    assert code == 1
    assert "Diverged" in out and "smaller optim.lr" in out and "Traceback" not in out + error  # noqa: PT018
    assert "Traceback" in (tmp_path / "r" / "run.log").read_text()
    assert results_of(tmp_path / "r")["status"] == "failed"


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(tmp_path: Path, cache: Path) -> None:
    assert metarun(*TINY, "hydra.run.dir=r", cwd=tmp_path, cache=cache)[0] == 0
    written = (tmp_path / "r" / "results.json").stat().st_mtime_ns
    code, out, _ = metarun("resume", "r", cwd=tmp_path, cache=cache)
    assert code == 0
    assert "finished already" in out
    code, out, error = metarun("resume", "r", "run.steps=9", cwd=tmp_path, cache=cache)
    assert (code, "run.steps=9 would make it another run" in error) == (2, True)
    code, out, error = metarun(*TINY, "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    assert code == 2
    assert "already holds a run" in out + error
    assert (tmp_path / "r" / "results.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["algo=mamml"], "there is no algo=mamml; did you mean maml? metarun help algo lists all "),
        (["run.stepps=3"], "there is no setting run.stepps; did you mean run.steps?"),
        (["data.path=photos"], "there is no setting data.path with this data; it is one of data=folder, text\n"),
        (["backbone=resnet12", "backbone.hidden=8"], "it is one of backbone=conv4, conv4_hyper, conv4_map and "),
        (["deterministic=maybe"], "deterministic=maybe is not one of True, False\n"),
        (["optim.parts={head:{lr:1}}"], "optim.parts takes new keys one by one: +optim.parts.KEY=VALUE"),
        (["sed=3"], "there is no setting sed; did you mean seed?"),
        (["inner_lr=3"], "there is no setting inner_lr; did you mean algo.inner_lr?"),
        (["algo.lr=3"], "there is no setting algo.lr; did you mean optim.lr?"),
        (["learning_rate=3"], "there is no setting learning_rate; it is optim.lr of the outer loop, algo.inner_lr of"),
        (["experiment=x"], "experiment is not chosen in every run, so it is typed with a +: +experiment=x"),
        (["algo.label_smoothing=1"], "there is no setting algo.label_smoothing with this algo; it is one of"),
        (["algo.colour=1"], "there is no setting algo.colour\n"),
        (["hlp"], "there is no subcommand hlp; did you mean help?"),
        (["data", "show", "nothing"], "there is no data=nothing; choices are"),
        (["+foo=3"], "there is no setting foo"),
        (["+algo.inner_lrr=3"], "there is no setting algo.inner_lrr; did you mean algo.inner_lr?"),
        (["bn=transductiv"], "is not one of transductive, support, running, layer, none; did you mean transductive?"),
        (["seed=abc"], "seed=abc must be a whole number; for several, with -m: seed=0,1,2 or range(0,3)"),
        (["run.steps=-1", "optim.lr=-1"], "run.steps=-1 must be a whole number of at least 0\n"),
        (["run.steps=-1", "optim.lr=-1"], "optim.lr=-1 must be a number above 0"),
        (["data.n_way=60", "data.train.n_way=60"], "n_way=60 needs 60 classes; split 'val' has 24. Set data.n_way=24"),
        (["algo.report_steps=7"], "algo.report_steps=7 must be a list, each a whole number of at least 0"),
        (["algo.engine=learn2learn", "algo.report_steps=[1]"], "set it, or set algo.report_steps=[]"),
        (["algo._target_=torch.nn.Linear"], "algo._target_=torch.nn.Linear is no Learner"),
        (["data.train.n_way=7"], "data.train.n_way=7 must be data.n_way=5"),
        (["algo=metanet", "data.train.n_way=7"], "data.train.n_way=7 must be data.n_way=5"),
        (["data=omniglot", "paths.data=nowhere/at/all"], "set paths.data or METARUN_DATA"),
        (["paths.outputs=/proc/nowhere"], "Set paths.outputs=FOLDER"),
        (["algo=reptile", "algo.engine=learn2learn"], "Reptile has no learn2learn engine; set algo.engine=vectorized"),
        (["device=cuda:77"], "device=cuda:77 cannot be used here; there is auto, cpu"),
        (["resumee", "x"], "there is no subcommand resumee; did you mean resume?"),
        (["resume", "nowhere"], "nowhere is not the folder of a run"),
        (["run.steps=[1"], "run.steps=[1 cannot be read"),
    ],
)  # fmt: skip
def test_wrong_input_ends_with_code_2_and_says_what_to_type(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    small = [] if "=" not in arguments[0] else [*TINY, "data.train.n_query=1"]
    kept = [s for s in small if not (arguments[0] == "data=omniglot" and s.startswith(("data.alph", "data.char")))]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["metarun"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("METARUN_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "200")
    code = command([*kept, *arguments])
    out, error = capfd.readouterr()
    assert said in out + error
    assert code == 2
    assert "Traceback" not in out + error


def test_settings_and_help_come_without_torch(tmp_path: Path, cache: Path) -> None:
    for arguments in (["--help"], ["--cfg", "job"], ["--version"]):
        run = f"import sys; from metarun.cli import command; code = command({arguments!r})"
        script = f"{run}; sys.exit(code or 'torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(done.stdout) > 10


def test_version_help_and_stopping_need_no_posix(tmp_path: Path) -> None:
    """Windows has neither of these: there, too, a command says what it is before anything else can fail."""
    start = "import os, signal; del os.getuid, signal.SIGUSR2; from metarun.cli import command"
    stop = "import metarun.core.machine; from metarun.run.interrupt import stop_requests; stop_requests().__enter__()"
    for arguments in (["--help"], ["--version"]):
        script = f"{start}; command({arguments!r}); {stop}"
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "metarun" in done.stdout


def test_a_config_dir_of_ones_own_adds_choices(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine" / "algo").mkdir(parents=True)
    shipped = (Path(__file__).parents[1] / "conf" / "algo" / "fomaml.yaml").read_text()
    (tmp_path / "mine" / "algo" / "mine.yaml").write_text(shipped.replace("First-order MAML", "My own MAML"))
    code, _, error = metarun("--config-dir", "mine", *TINY, "algo=mine", "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    assert (code, results_of(tmp_path / "r")["algo"]) == (0, "mine"), error
    for typed in (["help", "mine"], ["help", "algo"]):
        assert "My own MAML" in metarun(*typed, "--config-dir", "mine", cwd=tmp_path, cache=cache)[1]
