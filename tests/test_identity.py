"""Settings, results and checkpoints of a run belong together, and a command that is refused changes none of them."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from run_folders import forget_hash
from same_process import finish_runs, using

from metarun.core.identity import KEY, hash_settings
from metarun.core.results_file import seal
from metarun.report.runs import read_run

WORDS = [
    "algo=maml", "data=sinusoid", "run.steps=2", "run.meta_batch_size=2", "run.val_tasks=2", "run.test_tasks=4",
    "run.compile=false", "run.checkpoint_every=1", "threads=1", "logger=none", "device=cpu",
]  # fmt: skip

Say = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Two finished runs of the same command but for the seed: `mine` and `other`."""
    typed = {name: [*WORDS, f"seed={seed}"] for name, seed in (("mine", 0), ("other", 1))}
    return finish_runs(tmp_path_factory.mktemp("made"), typed, cache)


@pytest.fixture
def runs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with copies of both, which is the current one."""
    shutil.copytree(made, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], cache: Path) -> Iterator[Say]:
    """Exit code and all output of `metarun` with these words."""
    with using(capsys, cache, 300) as use:

        def said(*words: str | Path) -> tuple[int, str]:
            code, out, error = use(*words)
            return code, " ".join((out + error).split())

        yield said


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def edit(file: str, old: str, new: str) -> Callable[[], None]:
    def change() -> None:
        path = Path("mine", file)
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))

    return change


def copy(*files: str) -> Callable[[], None]:
    def change() -> None:
        for file in files:
            shutil.copy(Path("other", file), Path("mine", file))

    return change


CONFIG, HYDRA, OVERRIDES = ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"
DISAGREE = {
    "a seed by hand": (edit(CONFIG, "seed: 0\ndevice", "seed: 7\ndevice"), "config.yaml"),
    "a rate by hand": (edit(CONFIG, "  lr: 0.001\n", "  lr: 0.3\n"), "config.yaml"),
    "a class by hand": (edit(CONFIG, "maml.MAML\n", "anil.ANIL\n"), "config.yaml"),
    "a setting less": (edit(CONFIG, "  inner_steps: 1\n", ""), "config.yaml"),
    "a choice by hand": (edit(HYDRA, "      algo: maml\n", "      algo: anil\n"), "hydra.yaml"),
    "the other's settings": (copy(CONFIG), "config.yaml"),
    "the other's hydra.yaml": (copy(HYDRA), "hydra.yaml"),
    "the other's overrides": (copy(OVERRIDES), "overrides.yaml"),
    "the other's results": (copy("results.json"), "results.json"),
    "all the other's settings": (copy(CONFIG, HYDRA, OVERRIDES), "results.json"),
}


@pytest.mark.parametrize("name", DISAGREE)
def test_a_run_whose_files_disagree_is_opened_by_nobody(runs: Path, say: Say, name: str) -> None:
    """And those beside it are listed and compared as ever."""
    change, file = DISAGREE[name]
    change()
    before = contents(runs)
    for words in (
        ["resume", "mine"],
        ["eval", "mine"],
        ["rerun", "mine"],
        ["show", "mine"],
        ["replay", "mine", "--step=1"],
    ):
        code, text = say(*words)
        assert code == 2, text
        assert text.count("metarun: ") == 1
        assert file in text
        assert "put back the file as it was" in text
    code, text = say("list", ".")
    assert code == 0
    assert ("other" in text, "damaged" in text, file in text) == (True, True, True)
    code, text = say("compare", ".")
    assert (code, file in text, "1 damaged" in text) == (0, True, True)
    assert contents(runs) == before


@pytest.mark.parametrize(("file", "words"), [("best.pt", ["eval", "mine"]), ("last.pt", ["resume", "mine"])])
def test_a_checkpoint_of_another_run_is_refused_by_name(runs: Path, say: Say, file: str, words: list[str]) -> None:
    copy(f"checkpoints/{file}")()
    if file == "last.pt":
        Path("mine", "results.json").unlink()
    before = contents(runs / "mine")
    code, text = say(*words)
    assert code == 2
    assert f"mine/checkpoints/{file} was not trained with the settings in mine/.hydra/config.yaml" in text
    assert contents(runs / "mine") == before


@pytest.mark.parametrize("file", ["settings", "results", "a checkpoint"])
def test_the_three_carry_one_hash(runs: Path, file: str) -> None:
    config, hydra = (yaml.safe_load(Path("mine", name).read_text()) for name in (CONFIG, HYDRA))
    found = {
        "settings": hydra[KEY],
        "results": yaml.safe_load(Path("mine", "results.json").read_text())[KEY],
        "a checkpoint": torch.load(Path("mine", "checkpoints", "best.pt"))[KEY],
    }[file]
    assert found == hash_settings(config, hydra["hydra"])


def reformat() -> None:
    path = Path("mine", CONFIG)
    path.write_text("# by hand\n" + yaml.safe_dump(yaml.safe_load(path.read_text()), sort_keys=True, indent=4))


@pytest.mark.parametrize(
    "change",
    [
        edit(CONFIG, "threads: 1\n", "threads: 2\n"),
        edit(CONFIG, "device: cpu\n", "device: auto\n"),
        edit(CONFIG, "  processes: 1\n", "  processes: auto\n"),
        edit(CONFIG, "outputs: outputs\n", "outputs: elsewhere\n"),
        edit(CONFIG, "sink.NoSink\n", "tensorboard_sink.TensorBoardSink\n"),
        edit(CONFIG, "paper: null\n", "paper: {value: 0.5, ci95: null, source: Somebody 2020}\n"),
        reformat,
    ],
)
def test_what_may_be_different_today_is_left_out_and_so_is_how_a_file_is_written(
    runs: Path, say: Say, change: Callable[[], None]
) -> None:
    change()
    assert say("eval", "mine")[0] == 0
    assert say("show", "mine")[0] == 0


def test_a_run_of_before_there_was_a_hash_is_opened_as_it_is(runs: Path, say: Say) -> None:
    forget_hash(runs / "mine")
    edit(CONFIG, "seed: 0\ndevice", "seed: 7\ndevice")()
    assert say("eval", "mine")[0] == 0


def test_a_run_that_was_renamed_or_moved_is_the_same(runs: Path, say: Say) -> None:
    shutil.move("mine", "elsewhere")
    assert say("eval", "elsewhere")[0] == 0


def test_a_refused_command_leaves_the_run_in_its_folder_as_it_was(runs: Path, say: Say) -> None:
    before = contents(runs)
    code, text = say(*WORDS, "hydra.run.dir=mine", "seed=7", "optim.lr=0.5", "algo=anil")
    assert code == 2
    assert text.startswith("algo=maml does not count: algo=anil comes after it ")
    assert "mine already holds a run; go on with it by: metarun resume " in text
    assert contents(runs) == before
    Path("mine", "results.json").unlink()
    assert say("resume", "mine", "seed=3")[0] == 2  # and so does one that would resume it
    edit(CONFIG, "seed: 0\ndevice", "seed: 7\ndevice")()
    before = contents(runs)
    assert say("resume", "mine")[0] == 2
    assert contents(runs) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*WORDS, "hydra.run.dir=mine", "hydra.output_subdir=.hydra"], "hydra.output_subdir is metarun's own"),
        ([*WORDS, "hydra.run.dir=mine", "hydra/job_logging=default"], "hydra/job_logging is metarun's own"),
        (
            ["--config-dir", "own", *WORDS, "hydra.run.dir=mine", "+experiment=subdir"],
            "hydra.output_subdir=.hydra must be",
        ),
        (["-m", *WORDS, "hydra.sweep.dir=mine"], "choose another folder: hydra.sweep.dir=FOLDER"),
        ([*WORDS, "hydra.run.dir=mine/checkpoints"], "mine/checkpoints lies among the files of the run "),
        ([*WORDS, "hydra.run.dir=mine/.hydra/x"], "mine/.hydra/x lies among the files of the run "),
        (["compare", ".", "--csv", "mine/results.json"], "mine/results.json is a file of the run "),
        (["compare", ".", "--html", "mine/.hydra/config.yaml"], "mine/.hydra/config.yaml is a file of the run "),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_no_command_writes_into_the_folder_of_another_run(runs: Path, say: Say, words: list[str], said: str) -> None:
    Path("own", "experiment").mkdir(parents=True)
    Path("own", "experiment", "subdir.yaml").write_text("# @package _global_\nhydra: {output_subdir: .hydra}\n")
    before = contents(runs)
    code, text = say(*words)
    assert (code, said in text) == (2, True), text
    assert contents(runs) == before


@pytest.mark.parametrize("left", ["metrics.jsonl", "results.json", "checkpoints/last.pt", "checkpoints/best.pt"])
def test_a_folder_with_what_is_left_of_a_run_takes_no_other(runs: Path, say: Say, left: str) -> None:
    for file in (CONFIG, HYDRA, OVERRIDES):
        Path("mine", file).unlink()
    for path in Path("mine").rglob("*"):
        if path.is_file() and str(path.relative_to("mine")) != left:
            path.unlink()
    code, text = say(*WORDS, "hydra.run.dir=mine")
    assert code == 2
    assert f"mine has {Path(left).name} of a run whose settings are gone" in text


REFUSED = {
    "a value out of range": ["run.steps=-1"],
    "a setting that is none": ["run.stepps=3"],
    "a choice that is none": ["algo=mamml"],
    "too many ways": ["data=glyphs", "data.alphabets=4", "data.characters=4", "data.n_way=500"],
    "no data": ["data=folder", "data.path=nosuch", "backbone=conv4"],
    "too many processes": ["run.processes=99"],
    "a device that is none": ["device=cuda:7"],
    "parts that do not go together": ["algo=protonet"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_command_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for where in ([], ["hydra.run.dir=a/b/mine"]) if name == "no data" else ([],):
        assert say(*WORDS, *REFUSED[name], *where)[0] == 2
        assert list(tmp_path.iterdir()) == []


def test_a_refused_command_leaves_a_folder_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    assert (
        say(*WORDS, "hydra.run.dir=mine", "data=glyphs", "data.alphabets=6", "data.characters=4", "data.n_way=25")[0]
        == 2
    )
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.slow
def test_a_finished_job_whose_files_disagree_is_not_skipped_by_its_sweep_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = ["-m", *WORDS, "seed=0,1"]
    assert say(*sweep)[0] == 0
    job = next(Path("outputs", "sweeps").glob("*/*-s1-*"))
    text = (job / CONFIG).read_text()
    (job / CONFIG).write_text(text.replace("seed: 1\n", "seed: 5\n"))
    before = contents(job)
    code, text = say(*sweep)
    assert code == 1
    assert ("1 of 2 done" in text, "failed: " in text, "config.yaml" in text) == (True, True, True)
    assert contents(job) == before


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["threads=1,2"], "threads=1 and threads=2 are one run"),
        (["seed=0,1", "run.processes=1,2"], "run.processes does not tell runs apart"),
        (["logger=none,tensorboard"], "logger=none and logger=tensorboard are one run"),
        (["paths.data=a,b"], "paths.data=a and paths.data=b are one run"),
        (["seed=0,1,0"], "seed=0 stands twice"),
        (["data.k_shot=5,5"], "data.k_shot=5 stands twice"),
        (["data.train.k_shot=5,${data.k_shot}"], "mean the same"),
        (["seed=0,1", "hydra.sweep.subdir=one"], "seed=0 and seed=1"),
        (["seed=0,1", "seed=2,3"], "seed=0,1 and seed=2,3 are of one setting: leave one out"),
        (["seed=0,1", "seed=2"], "seed=0,1 and seed=2 are of one setting: leave one out"),
        (["algo=glob(zz*)"], "algo=glob(zz*) matches nothing: there is nothing to run"),
        (["optim.lr=glob(*)"], "optim.lr=glob(*) matches nothing: there is nothing to run"),
        (["seed=interval(0,2)"], "seed=interval(0,2) is for a search, with search=NAME or hydra/sweeper=study"),
        (["seed=tag(x,1,2)"], "seed=tag(x,1,2) must be a whole number"),
    ],
)
def test_jobs_of_a_sweep_that_would_share_a_folder_are_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say, words: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = [word for word in WORDS if word.partition("=")[0] not in {one.partition("=")[0] for one in words}]
    code, text = say("-m", *kept, *words)
    assert code == 2, text
    assert why in text
    assert list(tmp_path.iterdir()) == []


def test_jobs_in_numbered_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = say(
        "-m", *WORDS[:-3], "logger=none", "device=cpu", "threads=1,2", "hydra.sweep.subdir=${hydra.job.num}"
    )
    assert code == 0, text
    assert "2 of 2 done" in text


@pytest.mark.parametrize("words", [[], ["sweep.rerun=all"]])
def test_a_job_whose_folder_holds_another_run_is_refused_and_neither_skipped_nor_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say, words: list[str]
) -> None:
    """Folders that are named by a person, and not by the settings of the job."""
    monkeypatch.chdir(tmp_path)
    sweep = ["-m", *WORDS, "hydra.sweep.dir=s", "hydra.sweep.subdir=${hydra:job.num}"]
    assert say(*sweep, "seed=0")[0] == 0
    before = contents(tmp_path)
    code, text = say(*sweep, "seed=1,2", *words)
    assert (code, "s/0 holds a run with seed=0, not 1" in text) == (2, True), text
    assert contents(tmp_path) == before
    code, text = say(*sweep, "seed=0", "threads=1", *words)
    assert (code, "1 of 1 done" in text, "skipped: " in text) == (0, True, not words), text


WRONG = {
    "overrides": 5, "status": ["finished"], "test": {"mse": 0.5}, "val": 3, "seconds": "long", "steps": "many",
    "directions": {"mse": "up"}, "git": "abc", "versions": [], "paper": 0.5, "seed": "one", "parameters": None,
    "train": 7, "error": {}, "seconds ": {"total": math.nan},
}  # fmt: skip


@pytest.mark.parametrize("field", [*WRONG, "all", "text", "bytes"])
def test_a_malformed_results_file_is_named_in_a_line_and_ends_nothing_of_the_others(
    runs: Path, say: Say, field: str
) -> None:
    path = Path("mine", "results.json")
    if field in WRONG:
        path.write_text(json.dumps(seal(json.loads(path.read_text()) | {field.strip(): WRONG[field]})))
    else:
        path.write_bytes({"all": b"[1, 2]", "text": b'{"status": "fini', "bytes": b"\xff\xfe\x00"}[field])
    for words in (["list", "."], ["compare", "."]):
        code, text = say(*words)
        assert code == 0, text
        assert text.count("results.json") == 1
        assert "other" in text or "seed" in text
    code, text = say("show", "mine")
    assert (code, "mine/results.json" in text, "metarun resume mine" in text) == (2, True, True)
    if field != "overrides":
        return
    for word in ("eval", "rerun"):
        assert say(word, "mine")[0] == 2
    assert say("resume", "mine")[0] == 0  # it is tested again
    assert say("show", "mine")[0] == 0


@pytest.mark.parametrize("file", [CONFIG, HYDRA])
@pytest.mark.parametrize(
    "text", [b"5\n", b"[1]\n", b"{a: [", b"\xff\xfe\x00", b"", b"hydra: 5\n", b"hydra: {runtime: 3}\n"]
)
def test_odd_settings_files_end_nothing_either(runs: Path, say: Say, file: str, text: bytes) -> None:
    Path("mine", file).write_bytes(text)
    assert say("list", ".")[0] == 0
    assert say("compare", ".")[0] == 0
    run = read_run(Path("mine"))
    assert run
    assert run.damage


@pytest.mark.parametrize("line", [b"5", b"[]", b"{}", b'{"step": "one"}', b"\x00\x00", b"\xff"])
def test_odd_lines_of_metrics_are_passed_over(runs: Path, say: Say, line: bytes) -> None:
    with Path("mine", "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    for words in (["list", "."], ["show", "mine"], ["compare", "."]):
        assert say(*words)[0] == 0


def test_a_finished_run_that_lacks_what_the_end_table_shows_says_what(runs: Path, say: Say) -> None:
    path = Path("mine", "results.json")
    path.write_text(json.dumps(seal({k: v for k, v in json.loads(path.read_text()).items() if k != "engine"})))
    code, text = say("show", "mine")
    assert (code, "mine/results.json has no engine" in text) == (2, True)
    assert say("list", ".")[0] == 0


BOMB = "a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(60))


@pytest.mark.parametrize("text", ["a: &a [*a]\n", BOMB], ids=["no end", "2^60 words"])
@pytest.mark.parametrize("file", [CONFIG, HYDRA])
def test_settings_that_refer_to_themselves_are_refused_at_once(runs: Path, say: Say, text: str, file: str) -> None:
    (runs / "mine" / file).write_text((runs / "mine" / file).read_text() + text)
    for words in (["show", "mine"], ["eval", "mine"], ["resume", "mine"], ["rerun", "mine"], ["compare", "."]):
        code, told = say(*words)
        assert code == (0 if words[0] == "compare" else 2)
        assert Path(file).name in told
    (runs / "mine" / "results.json").unlink()
    for words in (["show", "mine"], ["eval", "mine"], ["resume", "mine"]):
        assert say(*words)[0] == 2


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000, "\ufeff{}", "[]", "null", '{"status": NaN}'], ids=str)
def test_results_that_are_no_results_are_told_by_every_command(runs: Path, say: Say, text: str) -> None:
    (runs / "mine" / "results.json").write_text(text)
    for words in (["show", "mine"], ["eval", "mine"], ["list", "."], ["compare", "."]):
        code, told = say(*words)
        assert code == (2 if words[0] in ("show", "eval") else 0)
        assert "mine/results.json" in told


FILES = [CONFIG, HYDRA, "results.json", "metrics.jsonl", "test_tasks.npz", "checkpoints/best.pt"]


@pytest.mark.parametrize(
    "put", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)], ids=["pipe", "folder", "loop"]
)
@pytest.mark.parametrize("file", FILES)
def test_what_stands_in_the_place_of_a_file_is_named_and_holds_nobody_up(
    runs: Path, say: Say, file: str, put: Callable[[Path], None]
) -> None:
    (runs / "mine" / file).unlink()
    put(runs / "mine" / file)
    for words in (["show", "mine"], ["eval", "mine"], ["resume", "mine"], ["list", "."], ["compare", "."]):
        code, told = say(*words)
        assert code == (0 if words[1] == "." else 2)
        assert f"{file} is no file that can be read" in told
        assert words[1] == "." or "seed None" not in told
