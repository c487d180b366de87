"""Several processes that share the tasks of a run: the same numbers as one, and the same end."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import TINY, Process, lines_of, metarun, results_of, start, wait_for_step
from conftest import one_of_each
from hydra.utils import get_object
from omegaconf import DictConfig
from test_contract import ALGOS, parts_of
from test_outer_loop import StopsAfter

from metarun.app.jobs import workers
from metarun.app.sweeps.launch import JOBS
from metarun.core import machine
from metarun.core.errors import ConfigError
from metarun.core.machine import count_processes
from metarun.core.tasks import Batch
from metarun.run import device
from metarun.run.interrupt import Interrupted, StopRequest
from metarun.run.offline import Diverged, OfflineRun
from metarun.run.parts import Parts
from metarun.run.processes import SEED_KEY, SETTINGS_KEY, STARTED_BY_RUN, Other, join_group
from metarun.run.team import Group, Lost
from metarun.settings.build import build_parts, build_run
from metarun.settings.resolve import resolve

Settings = Callable[..., DictConfig]

DOUBLED = """
import os
import torch
from metarun.algos.gradient.maml import MAML
from metarun.data.glyphs import Glyphs  # what is opened first

torch.set_default_dtype(torch.float64)


class Dies(MAML):
    steps_done = 0

    def meta_step(self, batch, optims):
        self.steps_done += 1
        if "RANK" in os.environ and self.steps_done == 4:
            os.kill(os.getpid(), 9)
        return super().meta_step(batch, optims)
"""


def effect(learner: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """What an outer step on the batch would tell the other processes: gradients, metrics, how buffers move."""
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    learner.zero_grad()
    metrics = learner.train().meta_step(batch, {})
    found = {f"grad {name}": p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    found |= {f"metric {name}": value.clone() for name, value in metrics.items()}
    after = learner.state_dict()
    found |= {f"move {n}": after[n] - before[n] for n, _ in learner.named_buffers() if n in before}
    learner.load_state_dict(before)
    return found


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    ("algo", "data"), one_of_each([*((algo, "glyphs") for algo in ALGOS), ("cnp", "sinusoid"), ("gp_oracle", "gp")])
)
def test_the_outer_step_is_a_mean_over_tasks(settings: Settings, algo: str, data: str) -> None:
    """Of two unequal shares of three tasks, each weighed by its tasks; where a learner says so."""
    config = settings(f"algo={algo}", f"data={data}", *(["bn=running"] if data == "glyphs" else []))
    if not get_object(config.algo["_target_"]).shareable:
        config.run.processes = 2
        with pytest.raises(ConfigError, match=r"does not train task by task.*: set run.processes=1"):
            workers.choose_processes(resolve(config))
        return
    parts = parts_of(config)
    batch = next(parts.learner.train_stream(parts.source, 0, 3))
    state = torch.get_rng_state()
    whole = effect(parts.learner, batch)
    if not torch.equal(state, torch.get_rng_state()):
        pytest.skip("draws noise")
    shares = [Group(rank, 2).share(3) for rank in range(2)]
    assert shares == [(0, 1), (1, 3)]
    one, other = (effect(parts.learner, batch.tasks(*share)) for share in shares)
    assert whole.keys() == one.keys()
    for name, value in whole.items():
        mean = (one[name] + 2 * other[name]) / 3
        assert torch.allclose(mean.double(), value.double(), rtol=1e-9, atol=1e-12), name


@pytest.fixture
def doubled(settings: Settings, doubles: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a run in float64, in every process."""
    (tmp_path / "doubled.py").write_text(DOUBLED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    words = ["data._target_=doubled.Glyphs", "algo._target_=doubled.Dies", "bn=running"]
    words += ["optim.clip_norm=0.1", "threads=1", "run.checkpoint_every=2"]
    return lambda *more: settings(*words, "run.meta_batch_size=5", "run.steps=6", *more)


def run(config: DictConfig, folder: Path) -> dict[str, Any]:
    """As job.py does it; the state at the end and the outcome."""
    folder.mkdir(exist_ok=True)
    with workers.share_run(resolve(config), folder) as (group, settings):
        made = build_run(settings, build_parts(settings, folder, group))
        if made.resumable():
            made.restore()
        group.connect()
        outcome = made.execute([], StopRequest())
    return outcome | torch.load(folder / "checkpoints" / "last.pt")["learner"]


@pytest.mark.slow
def test_two_processes_come_to_the_numbers_of_one_and_end_when_one_dies(doubled: Settings, tmp_path: Path) -> None:
    """The second process is killed in its fourth outer step; one process goes on from the checkpoint of the second.
    Second order, unequal shares, clipped gradients, running averages, in float64."""
    alone = run(doubled(), tmp_path / "alone")
    with pytest.raises(Lost, match="process 1 was ended by SIGKILL"):
        run(doubled("run.processes=2"), tmp_path / "shared")
    assert not torch.distributed.is_initialized()
    assert torch.load(tmp_path / "shared" / "checkpoints" / "last.pt")["progress"]["step"] == 2
    resumed = run(doubled(), tmp_path / "shared")
    same(tmp_path / "shared", resumed, tmp_path / "alone", alone)


@pytest.mark.slow
def test_one_process_is_followed_by_two(doubled: Settings, tmp_path: Path) -> None:
    alone = run(doubled("run.steps=5", "optim/schedule=constant"), tmp_path / "alone")
    run(doubled("run.steps=2", "optim/schedule=constant"), tmp_path / "shared")
    resumed = run(doubled("run.steps=5", "optim/schedule=constant", "run.processes=2"), tmp_path / "shared")
    same(tmp_path / "shared", resumed, tmp_path / "alone", alone)


def same(folder: Path, outcome: dict[str, Any], other: Path, expected: dict[str, Any]) -> None:
    """Weights and averages, scores of every test task, and metrics."""
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.allclose(outcome[name], value, rtol=1e-9, atol=1e-12), name
    scores, theirs = (dict(np.load(path / "test_tasks.npz")) for path in (folder, other))
    assert scores.keys() == theirs.keys()
    assert all(np.allclose(scores[name], theirs[name], rtol=1e-9) for name in theirs)
    lines, others = ([line for line in lines_of(path) if line["split"] == "train"] for path in (folder, other))
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    for line, one in zip(lines, others, strict=True):
        assert {k: v for k, v in line.items() if k != "split"} == pytest.approx(
            {k: v for k, v in one.items() if k != "split"}, rel=1e-6
        )  # kept in float32


def test_processes_are_as_many_as_there_is_work_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [count_processes(16, places) for places in (0, 1, 2, 3, 8, 12, 64)] == [1, 1, 2, 3, 8, 8, 16]
    few = r"run.processes=4 share the tasks .* is 3: set run.processes=3"
    with pytest.raises(ConfigError, match=few):
        workers.choose_processes(resolve(settings("run.processes=4")))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    auto = {("run.meta_batch_size=8",): 4, ("run.meta_batch_size=8", "threads=2"): 2, ("run.meta_batch_size=1",): 1}
    for words, size in auto.items():
        assert workers.choose_processes(resolve(settings("run.processes=auto", "run.val_tasks=8", *words))) == size
    for words in (["algo=baseline"], ["data=sinusoid", "run.meta_batch_size=8"]):
        assert workers.choose_processes(resolve(settings("run.processes=auto", "run.val_tasks=8", *words))) == 1
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert workers.choose_processes(resolve(settings())) == 3
    with pytest.raises(ConfigError, match=r"torchrun started 3 processes, and run.processes=2 others"):
        workers.choose_processes(resolve(settings("run.processes=2")))


def test_jobs_of_a_sweep_take_one_gpu_each_and_a_run_alone_takes_all(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(JOBS, raising=False)
    config = settings("run.processes=auto", "run.meta_batch_size=8", "run.val_tasks=8", "device=auto", "threads=1")
    assert workers.choose_processes(resolve(config)) == 2
    monkeypatch.setenv(JOBS, "4")
    assert workers.choose_processes(resolve(config)) == 1


def test_another_process_is_told_the_settings_and_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = torch.distributed.HashStore()
    store.set(SETTINGS_KEY, "{}")
    store.set(SEED_KEY, "7")
    monkeypatch.delenv(STARTED_BY_RUN, raising=False)
    monkeypatch.setattr("metarun.run.processes.rendezvous", lambda url: iter([(store, 1, 3)]))
    settings, group = join_group()
    assert (settings, group.rank, group.size, group.seed) == ("{}", 1, 3, 7)


class Second:
    """The second of two processes, in this one: it is told what the first one says, and nothing is added up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[Any] = []
        self.run: OfflineRun | None = None
        self.patch = monkeypatch
        monkeypatch.setattr(Group, "sum", lambda self, flat: None)
        monkeypatch.setattr(workers.signal, "signal", lambda signum, handler: self.done.append((signum, handler)))
        monkeypatch.setattr(logging.getLogger(), "handlers", [*logging.getLogger().handlers])

    def work(self, config: DictConfig, folder: Path) -> int:
        """Its exit code."""
        told = json.dumps({"settings": resolve(config).as_dict(), "own": [], "folder": str(folder)})
        group = Group(1, 2, 0, lambda: self.done.append("connected"))
        self.patch.setattr(workers, "join_group", lambda: (told, group))
        self.patch.setattr(workers, "build_run", self._build)
        return workers.work()

    def _build(self, config: Any, parts: Parts) -> OfflineRun:
        self.run, step = build_run(config, parts), parts.group.outer_step

        def noted(learner: Any, state: Any, batch: Any, optims: Any, number: int) -> Any:
            weights = {name: value.clone() for name, value in learner.state_dict().items()}
            self.done.append((number, int(batch.n_tasks), weights))
            return step(learner, state, batch, optims, number)

        parts.group.outer_step = noted
        return self.run


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Second:
    return Second(monkeypatch)


SHORT = ("algo=protonet", "optim/schedule=linear", "run.meta_batch_size=2", "run.processes=2")


def test_each_process_of_a_resumed_run_goes_on_from_the_checkpoint(
    settings: Settings, tmp_path: Path, second: Second
) -> None:
    """One process takes two steps of four; the second of two has their weights, rate and step, and takes the others."""
    before = build_run(config := resolve(settings(*SHORT)), build_parts(config, tmp_path))
    stop = StopRequest()
    with pytest.raises(Interrupted):
        before.execute([StopsAfter(2, stop)], stop)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert second.work(settings(*SHORT), tmp_path) == 0
    steps = [done for done in second.done if isinstance(done[0], int) and len(done) == 3]
    assert [(number, tasks) for number, tasks, _ in steps] == [(2, 2), (3, 2)]
    saved = torch.load(tmp_path / "checkpoints" / "last.pt")
    assert all(torch.equal(steps[0][2][name], value) for name, value in saved["learner"].items())
    assert second.run.progress.step == 4
    assert second.run.parts.optims["outer"].param_groups[0]["lr"] == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files  # it writes nothing


def test_a_new_run_begins_with_its_first_step_in_each_process_and_signals_are_the_first_ones_affair_from_then_on(
    settings: Settings, tmp_path: Path, second: Second
) -> None:
    """While it is not there yet, a signal ends it, as it would the first."""
    build_run(config := resolve(settings(*SHORT)), build_parts(config, tmp_path)).execute([], StopRequest())
    for name in ("last.pt", "previous.pt"):
        (tmp_path / "checkpoints" / name).unlink()
    assert second.work(settings(*SHORT), tmp_path) == 0
    ignored = [(signum, signal.SIG_IGN) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert second.done[:4] == ["connected", *ignored]
    assert [done[0] for done in second.done[4:]] == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [Lost("the first has ended"), Diverged("loss is nan", 3)])
def test_a_process_that_has_lost_the_others_or_diverged_with_them_ends_with_1_and_leaves_the_words_to_the_first(
    settings: Settings, tmp_path: Path, second: Second, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(OfflineRun, "execute", fails)
    assert second.work(settings(*SHORT), tmp_path) == 1


def test_a_mistake_in_another_process_is_told_by_its_traceback(
    settings: Settings, tmp_path: Path, second: Second, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OfflineRun, "execute", lambda *_: {}["warmup"])
    with pytest.raises(KeyError, match="warmup"):
        second.work(settings(*SHORT), tmp_path)


@pytest.mark.parametrize(
    ("words", "each"), [((), 3), (("threads=2",), 2), (("run.processes=1",), "auto"), (("run.processes=3",), 2)]
)
def test_processes_share_the_threads_where_nothing_is_said_of_them_and_give_them_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], each: int | str
) -> None:
    """7 threads are 3 for each of two processes, 2 for each of three, and all for one; what the run sets is undone."""
    told: list[Any] = []

    @contextmanager
    def leading(size: int, text: str, seed: int, threads: int | str) -> Iterator[Group]:
        told.append((size, json.loads(text), seed, threads))
        torch.set_num_threads(5)
        yield Group()

    monkeypatch.setattr(workers, "lead_group", leading)
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    try:
        config = resolve(settings("seed=4", "run.processes=2", *words))
        with pytest.raises(KeyError), workers.share_run(config, Path("here")) as (_, then):
            raise KeyError  # whatever goes wrong
        assert torch.get_num_threads() == 7
    finally:
        torch.set_num_threads(before)
    ((size, said, seed, threads),) = told
    assert (size, seed, threads) == (config.run["processes"], 4, each)
    assert said == {"settings": then.as_dict(), "own": [], "folder": str(Path("here").resolve())}
    assert then == replace(config, threads=each)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch works on where no device is named, the present one last, as if there were GPUs."""
    devices = ["cuda:0"]

    @contextmanager
    def work_on(device: torch.device) -> Iterator[None]:
        devices.append(str(device))
        try:
            yield
        finally:
            devices.pop()

    monkeypatch.setattr(torch.cuda, "device", work_on)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return devices


@pytest.mark.parametrize(
    ("name", "size", "taken"),
    [("cuda", 2, "cuda:1"), ("auto", 2, "cuda:1"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda"), ("cuda:0", 1, "cuda:0")],
)
def test_processes_of_a_run_take_a_gpu_each_by_their_place_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, current: list[str], name: str, size: int, taken: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device, "choose_device", torch.device)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with device.hold_device(name, Group(3, size)) as found:
        assert str(found) == taken
        assert current == ["cuda:0", *([] if taken == "cpu" else [taken])]
    assert current == ["cuda:0"]


@pytest.mark.parametrize("name", ["cuda:0", "mps"])
def test_a_single_device_is_refused_for_several_processes(name: str) -> None:
    said = rf"device={name} is for one process; with 2 processes set device=cuda, which gives each its own GPU, or"
    with pytest.raises(ConfigError, match=said), device.hold_device(name, Group(0, 2)):
        pass


def test_runs_of_one_process_each_take_the_gpu_that_the_fewest_are_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, current: list[str]
) -> None:
    """Two runs on three GPUs; once the first has ended, a third takes its place. A single GPU is not held."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine.hold_gpu.__wrapped__, "__defaults__", (tmp_path / "seats",))
    with ExitStack() as first, ExitStack() as others:
        taken = [stack.enter_context(device.hold_device("auto")) for stack in (first, others)]
        assert current[1:] == ["cuda:0", "cuda:1"]
        first.close()
        taken.append(others.enter_context(device.hold_device("auto", Group())))
    assert [str(one) for one in taken] == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with device.hold_device("auto") as one, device.hold_device("auto") as same:
        assert (str(one), str(same)) == ("cuda", "cuda")


def children(process: Process) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_another_process_ends_when_the_first_one_is_gone_before_it_said_what_to_do() -> None:
    """The first one's end of the pipe is closed, as it is when it is killed."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    other = Other(1, 2, store.port, 1)
    assert other.process.stdin
    other.process.stdin.close()
    try:
        assert other.process.wait(30) == 1
    finally:
        other.process.kill()
        other.process.wait()
    assert other.read_output() == ""


@pytest.mark.slow
def test_a_run_goes_on_in_more_processes_and_leaves_none_behind(tmp_path: Path, cache: Path) -> None:
    endless = [*TINY, "run.steps=100000", "run.val_every=100000", "hydra.run.dir=run"]
    process = start(*endless, cwd=tmp_path, cache=cache)
    wait_for_step(tmp_path / "run", 3, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    step = results_of(tmp_path / "run")["steps"]
    for stop, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = start("resume", "run", "run.processes=2", cwd=tmp_path, cache=cache)
        wait_for_step(tmp_path / "run", step + 3, process)
        others = children(process)
        assert len(others) == 1
        process.send_signal(stop)
        assert process.wait(60) == code
        end = time.monotonic() + 10
        while alive(others[0]) and time.monotonic() < end:
            time.sleep(0.05)
        assert not alive(others[0])
        step += 3
    results = results_of(tmp_path / "run")
    assert (results["status"], results["processes"], results["saved_step"]) == ("interrupted", 2, results["steps"])
    code, _, error = metarun("resume", "run", "run.steps=9", cwd=tmp_path, cache=cache)
    assert (code, "metarun rerun" in error) == (2, True)


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_a_run(tmp_path: Path, cache: Path) -> None:
    assert metarun(*TINY, "hydra.run.dir=alone", cwd=tmp_path, cache=cache)[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "metarun"]
    env = {**os.environ, "METARUN_CACHE": str(cache)}
    for words, code in ((["hydra.run.dir=two"], 0), (["algo=baseline"], 1), (["-m", "seed=0,1"], 1)):
        done = subprocess.run([*torchrun, *TINY, *words], cwd=tmp_path, env=env, capture_output=True, timeout=120)
        assert done.returncode == code, done.stderr
        assert b"SIGKILL" not in done.stderr  # what torchrun does after 30 s to those that do not end by themselves
    assert results_of(tmp_path / "two")["processes"] == 2
    assert [*tmp_path.glob("outputs/*/*")] == []  # nothing is written before a run is accepted
    means = [results_of(tmp_path / name)["test"]["loss"]["mean"] for name in ("alone", "two")]
    assert means[0] == pytest.approx(means[1], rel=1e-4)
