"""Signals and the file that stops a sweep: what a first one does, what a second one, and who gets them afterwards."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from metarun import cli
from metarun.app.sweeps.launch import Launch
from metarun.core.errors import ConfigError
from metarun.run.interrupt import REQUEUE_SIGNAL, STOP_FILE, Interrupted, StopRequest, hand_on, stop_requests

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, REQUEUE_SIGNAL]


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[int]]:
    """The signals that came to whoever had them before: somebody else than Python, which would end the tests."""
    found: list[int] = []
    before = [signal.signal(signum, lambda signum, frame: found.append(signum)) for signum in SIGNALS[:-1]]
    before.append(signal.signal(REQUEUE_SIGNAL, signal.SIG_DFL))
    yield found
    for signum, handler in zip(SIGNALS, before, strict=True):
        signal.signal(signum, handler)


@pytest.fixture
def requeued(heard: list[int]) -> list[int]:
    """The same under a launcher that requeues."""
    signal.signal(REQUEUE_SIGNAL, lambda signum, frame: heard.append(signum))
    return heard


@pytest.mark.parametrize("signum", SIGNALS[:-1])
def test_a_first_signal_is_noted_and_a_second_goes_to_whoever_had_it_before(heard: list[int], signum: int) -> None:
    with stop_requests() as stop:
        assert not stop.made
        signal.raise_signal(signum)
        assert (stop.signum, heard) == (signum, [])
        for times in (1, 2):
            signal.raise_signal(signum)
            assert heard == [signum] * times


def test_a_second_ctrl_c_ends_a_run_in_the_midst_of_a_step() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_requests():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("came", [None, *SIGNALS[:-1]])
@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_signals_go_where_they_went_before_however_the_run_ended(
    heard: list[int], came: int | None, fails: bool
) -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]

    def run() -> None:
        with stop_requests():
            if came:
                signal.raise_signal(came)
            if fails:
                raise OSError("the disk is full")

    if fails:
        with pytest.raises(OSError, match="full"):
            run()
    else:
        run()
    assert [signal.getsignal(signum) for signum in SIGNALS] == before
    signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGINT]


def test_a_lost_terminal_that_nohup_has_taken_away_stays_away(heard: list[int]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.made
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_the_signal_to_requeue_is_left_alone_where_nobody_requeues() -> None:
    with stop_requests():
        assert signal.getsignal(REQUEUE_SIGNAL) == signal.SIG_DFL


def test_where_a_launcher_requeues_its_signal_stops_the_run_and_a_second_one_goes_to_the_launcher(
    requeued: list[int],
) -> None:
    before = signal.getsignal(REQUEUE_SIGNAL)
    with stop_requests() as stop:
        signal.raise_signal(REQUEUE_SIGNAL)
        assert (stop.signum, requeued) == (REQUEUE_SIGNAL, [])
        signal.raise_signal(REQUEUE_SIGNAL)
        assert requeued == [REQUEUE_SIGNAL]
    assert signal.getsignal(REQUEUE_SIGNAL) == before


def test_where_a_launcher_requeues_each_sigterm_asks_for_a_checkpoint_and_stops_nothing(requeued: list[int]) -> None:
    with stop_requests() as stop:
        assert not stop.take_save()
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
            assert not stop.made
            assert [stop.take_save(), stop.take_save()] == [True, False]
        assert requeued == []
        signal.raise_signal(signal.SIGINT)
        assert (stop.signum, stop.take_save()) == (signal.SIGINT, False)


def test_elsewhere_sigterm_stops_the_run_and_asks_for_no_checkpoint_more() -> None:
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert (stop.made, stop.take_save()) == (True, False)


def test_the_file_that_stops_a_sweep_counts_as_ctrl_c_from_when_it_is_there(tmp_path: Path) -> None:
    file = tmp_path / STOP_FILE
    with stop_requests(file) as stop:
        stop.raise_if_made()
        file.touch()
        with pytest.raises(Interrupted, match="SIGINT") as interrupted:
            stop.raise_if_made()
        assert interrupted.value.exit_code == 130
        file.unlink()  # as the sweep that is started again does: what was asked for stays
        assert stop.made


def test_a_signal_that_came_before_the_file_is_the_one_that_is_told(tmp_path: Path) -> None:
    stop = StopRequest(tmp_path / STOP_FILE)
    stop.signum = signal.SIGTERM
    stop.file.touch()
    with pytest.raises(Interrupted, match="SIGTERM"):
        stop.raise_if_made()


@pytest.mark.parametrize(("signum", "code"), list(zip(SIGNALS, (130, 143, 129, 140), strict=True)))
def test_an_interruption_says_its_signal_and_code_also_in_another_process(signum: signal.Signals, code: int) -> None:
    """As a launcher brings it back."""
    for error in (Interrupted(signum), pickle.loads(pickle.dumps(Interrupted(signum)))):
        assert (type(error), str(error), error.exit_code) == (Interrupted, signum.name, code)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_to_a_job_in_the_sweeps_own_process_ends_the_sweep(
    signum: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted, match=signum.name):
        hand_on(signum, launched=False)
    assert capsys.readouterr().out == "the sweep stopped; the same command goes on with it\n"


def test_a_signal_to_a_job_in_a_process_of_its_own_goes_on_only_to_a_launcher_that_requeues(
    requeued: list[int],
) -> None:
    for signum, told in ((signal.SIGINT, []), (signal.SIGHUP, []), (REQUEUE_SIGNAL, [REQUEUE_SIGNAL])):
        hand_on(signum, launched=True)
        assert requeued == told


def launch(
    folder: Path, launcher: str = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
) -> Launch:
    return Launch(folder, OmegaConf.create({"_target_": launcher}))


@pytest.mark.parametrize("signum", SIGNALS[:-1])
def test_a_first_signal_to_a_sweep_with_a_launcher_stops_its_jobs_by_the_file_and_a_second_is_as_usual(
    tmp_path: Path, heard: list[int], capsys: pytest.CaptureFixture[str], signum: int
) -> None:
    sweep, before = (
        launch(tmp_path / "sweep", "joblib_launcher.joblib_launcher.JoblibLauncher"),
        [signal.getsignal(s) for s in SIGNALS],
    )
    sweep.take_signals()
    assert (sweep.signum, (tmp_path / "sweep" / STOP_FILE).exists()) == (None, False)
    signal.raise_signal(signum)
    assert (sweep.signum, heard, (tmp_path / "sweep" / STOP_FILE).is_file()) == (signum, [], True)
    assert "stopping: the running jobs save first (again: at once)" in capsys.readouterr().out
    signal.raise_signal(signum)
    assert heard == [signum]
    sweep.give_signals_back()
    assert [signal.getsignal(s) for s in SIGNALS] == before
    signal.signal(signum, signal.SIG_IGN)
    sweep.give_signals_back()  # is done at the end of the sweep and when it breaks off
    assert signal.getsignal(signum) == signal.SIG_IGN


def test_a_sweep_on_a_cluster_takes_no_signal_for_its_jobs_go_on(tmp_path: Path) -> None:
    before = [signal.getsignal(s) for s in SIGNALS]
    sweep = launch(tmp_path, "submitit_launcher.submitit_launcher.SlurmLauncher")
    sweep.take_signals()
    assert sweep.remote
    assert [signal.getsignal(s) for s in SIGNALS] == before


@pytest.mark.parametrize("kind", [AttributeError, ConfigError])
def test_a_ctrl_c_that_a_library_turns_into_another_error_is_a_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[Exception]
) -> None:
    """As argparse does, which puts back what it had not yet taken away, and OmegaConf amid a copy."""

    def read(arguments: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            try:
                raise kind("no save_nargs")
            except kind as error:
                raise kind(f"told otherwise: {error}") from error

    monkeypatch.setattr(cli, "_read", read)
    assert cli.command(["seed=1"]) == 130
    assert capsys.readouterr().err == ""


def test_an_error_without_a_ctrl_c_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(arguments: object) -> None:
        raise AttributeError("no save_nargs")

    monkeypatch.setattr(cli, "_read", read)
    with pytest.raises(AttributeError):
        cli.command(["seed=1"])
