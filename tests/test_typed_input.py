"""What may be typed wrongly: one message and exit code 2, or what was meant; never a traceback."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from metarun.app.jobs.evaluated import Asked, evaluate_run
from metarun.cli import command
from metarun.core.errors import ConfigError
from metarun.core.launched import VARIABLES, read_launched
from metarun.core.memory import describe_lack_of_memory
from metarun.run.device import choose_device
from metarun.settings.build import build_parts
from metarun.settings.check import check
from metarun.settings.compose import compose
from metarun.settings.resolve import resolve
from metarun.settings.typed import quote_value, read_override, read_word

Compose = Callable[..., DictConfig]
TINY = [
    "data=sinusoid", "run.steps=2", "run.meta_batch_size=2", "run.val_tasks=2", "run.test_tasks=4", "logger=none",
    "threads=1", "run.compile=false", "device=cpu",
]  # fmt: skip
RUNS = Path(__file__).parent / "data" / "runs"


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a command line in this process: its exit code, and all that it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["metarun"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str) -> tuple[int, str]:
        code = command(arguments)
        out, error = capfd.readouterr()
        return code, out + error

    return run


WRONG = {
    "~logger": "logger is missing: choose one, as logger=none, tensorboard, wandb",
    "~backbone": "backbone is missing: choose one, as backbone=conv4, ",
    "~data": "~data takes away what every run has",
    "~algo": "~algo takes away what every run has",
    "~seed": "seed is missing",
    "~optim.schedule": "optim.schedule is missing",
    "~data.train.n_query": "data.train.n_query is missing",
    "logger=null": "logger=null is no choice of logger; choices are none, tensorboard, wandb",
    "backbone=5": "backbone=5 is no choice of backbone; choices are conv4, ",
    "optim.schedule=null": "optim.schedule=null is no group of settings: choose one, as optim/schedule=constant, ",
    "data.train=null": "data.train=null is no group of settings",
    "data.train=[1]": "data.train",
    "+data.train.n_ways=5": "there is no setting data.train.n_ways",
    "optims=5": "optims=5 is no group of settings",
    "+optims.outer=5": "optims.outer=5 must be settings in place of those of optim, as {lr: 0.01}",
    "+optims.outer.lr=-5": "optims.outer.lr=-5 must be a number above 0",
    "+optims.outer.clip_norm=0": "optims.outer.clip_norm=0 must be a number above 0 or null",
    "+optims.inner.lr=5": "optims.inner: MAML has the optimizers outer",
    "=5": "=5 names no setting: settings are KEY=VALUE",
    "+=5": "+=5 names no setting",
    "hydra=null": "hydra=null names no setting",
    "optim.lr": "optim.lr cannot be read: ",
    "paper=abc": "paper=abc must be a group of settings or null",
    "+paper.value=abc": "paper.source is missing",
    "device=meta": "device=meta cannot be used here; there is auto, cpu",
    "algo.first_order=abc": "algo.first_order=abc is not one of True, False",
    "backbone.widths=[0]": "backbone.widths=[0] must be a list, each a whole number of at least 1",
    "optim.schedule.T_max=-1": "optim.schedule.T_max=-1 must be a whole number of at least 1",
    "optim.schedule.T_max=0": "optim.schedule.T_max=0 must be a whole number of at least 1",
    "optim.schedule.eta_min=nan": "optim.schedule.eta_min=nan must be a number of at least 0, and finite",
    "optim.weight_decay=1e30": "optim.weight_decay=1e+30 must be a number of at least 0 and of at most 100",
    "optim.lr=inf": "optim.lr=inf must be a number above 0, and finite",
    "optim.betas=[0.9]": "optim.betas=[0.9] must be a list of 2, each a number of at least 0 and below 1",
    "optim.betas=[0.9,1]": "optim.betas=[0.9, 1] must be a list of 2, each a number of at least 0 and below 1",
    "data.x=[nan,1]": "data.x=[nan, 1] must be a range, as [3,50], and finite",
    f"seed={10**21}": f"seed={10**21} must be a whole number of at least 0, of 64 bits",
    f"threads={10**21}": "must be a whole number of at least 1 and of at most 4096 or auto",
    "algo._target_=5": "algo._target_=5 must be the name of a class",
    "algo._target_=null": "algo._target_=None must be the name of a class",
    "+algo._args_=[1]": "there is no setting algo._args_",
    "algo.inner_lr=${nothing}": "Interpolation key 'nothing' not found",
    "algo.inner_lr=${algo.inner_lr}": "Recursive interpolation detected",
    "algo=glob(fo*)": "algo=glob(fo*) has several values: with -m each is a run",
    "seed=range(0,3)": "seed=range(0,3) has several values: with -m each is a run",
    "seed=choice(0,1)": "seed=choice(0,1) has several values: with -m each is a run",
    "precision=null": "precision=null is not one of float32, tf32, bf16",
    "seed=x": "seed=x must be a whole number",
    "deterministic=last": "deterministic=last is not one of True, False",
    "paths=5": "paths=5 is no group of settings: type paths.KEY=VALUE",
    "paths.data=[a]": "paths.data=['a'] must be text",
    "~optim.clip_norm": "~optim.clip_norm takes nothing away: there is no setting optim.clip_norm, or it is null",
    "backbone=a/b": "there is no backbone=a/b; choices are conv4, ",
    "backbone=[mlp,conv4]": "backbone=[mlp,conv4] is no choice of backbone: choose one of conv4, ",
    "/optim.lr=[1]": "'/optim.lr' is no name of a setting",
    "optim.schedule._partial_=x": "optim.schedule._partial_=x is not one of True, False",
    "+algo._recursive_=x": "algo._recursive_=x is not one of True, False",
    "seed=0,1": "with -m each is a run; if it is one, type 'seed=[0,1]' for a list, 'seed=\"0,1\"' for text",
}


@pytest.mark.parametrize(("word", "said"), WRONG.items())
def test_a_wrong_word_is_told(word: str, said: str, tmp_path: Path) -> None:
    def build() -> None:
        settings = resolve(compose([read_word(one, sweep=False) for one in (*TINY, word)]))
        build_parts(settings, tmp_path)

    with pytest.raises(ConfigError) as error:
        build()
    assert said in str(error.value)


@pytest.mark.parametrize(
    "word",
    ["~logger", "logger=null", "=5", "optim.lr", "paper=abc", "device=meta", "algo.inner_lr=${nothing}", "seed=0,1"],
)
def test_it_is_one_message_and_no_traceback(typed: Callable[..., tuple[int, str]], word: str) -> None:
    said = WRONG[word]
    code, told = typed(*TINY, "hydra.run.dir=r", word)
    assert code == 2
    assert said in told
    assert "Traceback" not in told
    assert "Error executing job" not in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "--cfg", "job"], "--cfg and --info show the settings of one run: leave out -m"),
        (["--cfg=foo"], "argument --cfg/-c: invalid choice: 'foo'"),
        (["--config-dir=nowhere"], "nowhere' not found"),
        (["-m", "--info"], "--cfg and --info show the settings of one run: leave out -m"),
        (["-m", "seed=range(0,0)"], "seed=range(0,0) has no value: there is nothing to run"),
        (["-m", "logger=null"], "logger=null is no choice of logger"),
        (["-m", "=5"], "=5 names no setting"),
        (["--cfg", "job", "--package", "nothing"], "package 'nothing' not found in config"),
        (["--package", "algo"], "--package counts with --cfg alone: add --cfg job"),
        (["--resolve"], "--resolve counts with --cfg alone: add --cfg job"),
        (["--config-dir"], "argument --config-dir/-cd: expected one argument"),
        (["--shell-completion"], "Expecting one subcommand"),
        (["hydra.mode=MULTIRUN"], "hydra.mode is metarun's own; for a sweep type -m; "),
        (["hydra.run.dir="], "hydra.run.dir= names no folder: type hydra.run.dir=FOLDER"),
        (["hydra.run.dir=r", "~hydra.callbacks.folder"], "hydra.callbacks.folder is metarun's own"),
        (["hydra.run.dir=r", "+hydra.callbacks.x=1e30"], "+hydra.callbacks.x=1e30 is no callback: it needs a _target_"),
        (["hydra.run.dir=r", "+hydra.callbacks.x={a:1}"], "hydra.callbacks.x={'a': 1} is no callback"),
        (["hydra.run.dir=r", "hydra.sweep.dir=${nothing}"], "Interpolation key 'nothing' not found (hydra.sweep.dir)"),
        (["deterministic=9"], "deterministic=9 is not one of True, False"),
        (["-m", "deterministic=true,yes"], "deterministic=yes is not one of True, False"),
        (["seed=true"], "seed=True must be a whole number; for several, with -m"),
        (["hydra.searchpath=[file://nowhere]"], "hydra.searchpath=file://nowhere: there is no folder nowhere"),
        (["hydra.verbose=-1"], "hydra.verbose is metarun's own"),
        (["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0 must be a whole number"),
        (["-m", "hydra.launcher=5"], "hydra.launcher=5 is none: type hydra/launcher=NAME"),
        (["-m", "hydra.sweeper.max_batch_size=0"], "hydra.sweeper.max_batch_size=0 must be a whole number"),
        (
            ["-m", "hydra.sweep.subdir=../${seed}"],
            "hydra.sweep.subdir=../${seed} is not within the folder of the sweep",
        ),
        (["-m", "hydra.sweep.subdir=/${seed}"], "hydra.sweep.subdir=/${seed} is not within the folder of the sweep"),
        (["show", ""], "'' is the name of no run: type its folder, its id, or last"),
    ],
    ids=str,
)
def test_wrong_flags_are_told_in_one_message(
    typed: Callable[..., tuple[int, str]], words: list[str], said: str
) -> None:
    code, told = typed(*words) if words[0] == "show" else typed(*TINY, *words)
    assert code == 2
    assert said in told
    assert "Traceback" not in told


BROKEN = {
    "no YAML": (b"a: [1\nb: }", "line 2"),
    "no text": b"\xff\xfe\xfa",
    "a key twice": (b"_target_: x\n_target_: y", "duplicate key"),
    "a list": b"- 1\n- 2",
    "a word": b"word",
    "empty": b"",
    "no class": b"inner_lr: 0.1",
    "defaults of the wrong kind": b"defaults: 5",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_of_ones_own_is_told_by_its_name(
    typed: Callable[..., tuple[int, str]], tmp_path: Path, content: bytes | tuple[bytes, str]
) -> None:
    text, said = content if isinstance(content, tuple) else (content, "")
    (tmp_path / "mine" / "algo").mkdir(parents=True)
    (tmp_path / "mine" / "algo" / "own.yaml").write_bytes(text)
    code, told = typed("--config-dir", "mine", *TINY, "algo=own", "hydra.run.dir=r")
    assert code == 2
    assert said in told
    assert "own" in told or "algo" in told
    assert "Traceback" not in told
    assert typed("--config-dir", "mine", "--help")[0] == 0


def test_a_setting_of_ones_own_that_is_typed_wrongly_is_told_the_right_one(
    typed: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """And no setting is said to be another of the same name, which the default method has."""
    (tmp_path / "mine" / "algo").mkdir(parents=True)
    (tmp_path / "mine" / "algo" / "own.yaml").write_text("_target_: own.Own\ntemperature: 1.0\n")
    for word, said in (
        ("algo.temperatur=2", "no setting algo.temperatur; did you mean algo.temperature?"),
        ("algo.test_inner_steps=3", "no setting algo.test_inner_steps with this algo; it is one of algo="),
    ):
        code, told = typed("--config-dir", "mine", "algo=own", word)
        assert code == 2
        assert said in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run.meta_batch_size=1000000000"], "make run.meta_batch_size=1000000000 smaller (1000000000 tasks drawn "),
        (["data.train.n_query=1000000000000000"], "make data.train.n_query=1000000000000000 smaller (2 tasks drawn"),
        (
            ["data.k_shot=100000000000"],
            "make data.k_shot=100000000000 smaller (2 tasks drawn together take 1,600 GB",
        ),
        (["backbone.widths=[2,3000000000000]"], "make backbone.widths=[2,3000000000000] smaller ("),
    ],
    ids=str,
)
def test_sizes_that_no_memory_holds_are_named_before_anything_is_written(
    typed: Callable[..., tuple[int, str]], tmp_path: Path, words: list[str], said: str
) -> None:
    """Derived: two training tasks of 10^11 support and as many query points, of 4 bytes each, are 1,600 GB."""
    code, told = typed("algo=maml", *TINY, *words, "hydra.run.dir=r")
    assert f"there is too little memory: {said}" in told
    assert (code, "Traceback" in told) == (2, False)
    assert not (tmp_path / "r").exists()


def test_memory_that_ends_while_a_run_goes_on_is_told_in_one_line(
    typed: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("metarun.run.offline.evaluate", run_out)
    code, told = typed("algo=maml", *TINY, "run.eval_batch_size=9999", "hydra.run.dir=r")
    assert code == 1
    assert "failed: there is too little memory: make run.eval_batch_size=9999 smaller ([enforce fail]" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("error", "typed_words", "said"),
    [
        (MemoryError(), ["a.b=7"], "there is too little memory: make a.b=7 smaller ()"),
        (MemoryError("x"), ["seed=99", "run.steps=1e9"], "make the network or run.meta_batch_size smaller (x)"),
        (
            RuntimeError("CUDA out of memory. Tried"),
            ["a=1e3,5", "b=[2,20]", "c=x99"],
            "make a=1e3,5 or b=[2,20] smaller",
        ),
        (RuntimeError("Storage size calculation overflowed with sizes=[9]"), [], "make the network or"),
    ],
)
def test_the_largest_numbers_typed_are_blamed_for_a_lack_of_memory(
    error: Exception, typed_words: list[str], said: str
) -> None:
    assert said in str(describe_lack_of_memory(error, typed_words))
    assert describe_lack_of_memory(RuntimeError("sizes do not match"), typed_words) is None


@pytest.mark.parametrize("words", [["list", "."], TINY, ["--help"]], ids=["list", "a run", "help"])
def test_a_folder_that_is_gone_is_told(
    typed: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, told = typed(*words)
    assert (code, "the folder where you are is gone (No such file or directory)" in told) == (2, True)


def test_flags_may_stand_anywhere(typed: Callable[..., tuple[int, str]]) -> None:
    code, told = typed("seed=3", "--cfg", "job", "data=sinusoid")
    assert (code, "seed: 3" in told, "Sinusoid" in told) == (0, True, True)


PLACES = {
    "~/images": str(Path.home() / "images"), "/home/jürgen/x": "/home/jürgen/x", "a=b": "a=b", "a[b]": "a[b]",
    "a(b)": "a(b)", "a(b,c)": "a(b,c)", "a#b": "a#b", "#b": "#b", "it's": "it's", "a b": "a b", "a{b}": "a{b}",
    "a&b;c<d>!^`": "a&b;c<d>!^`", "=": "=", "it's\\": "it's\\", "back\\ü": "back\\ü", "日本": "日本",
    "~": str(Path.home()), "C:\\x": "C:\\x", "plain/name.zip": "plain/name.zip", "007": "007",
    " lead": " lead", "trail ": "trail ", "./~": str(Path.cwd() / "~"), "./~/x": str(Path.cwd() / "~" / "x"),
}  # fmt: skip


@pytest.mark.parametrize(("place", "meant"), PLACES.items())
def test_names_that_hydras_grammar_does_not_take_are_taken_as_they_stand(place: str, meant: str) -> None:
    assert read_override(f"data.path={place}").values == [meant]
    assert compose(["data=folder", read_word(f"data.path={place}", sweep=False)]).data.path == meant


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("data.path=~/a,~/b", [str(Path.home() / "a"), str(Path.home() / "b")]),
        ("data.path=ü,x", ["ü", "x"]),
    ],
)
def test_so_are_several_of_them(word: str, values: list[str]) -> None:
    assert read_override(word).values == values


def test_without_several_a_comma_is_part_of_such_a_name() -> None:
    assert quote_value("data.path=ü,x", several=False) == "data.path='ü,x'"
    assert quote_value("data.path=a,x", several=False) == "data.path=a,x"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.path=5", "data.path=5 must be text or null: type 'data.path=\"5\"'"),
        ("data.path=[a]", "data.path=['a'] must be text or null: type 'data.path=\"[a]\"'"),
        ("data.path=true", "data.path=True must be text or null: type 'data.path=\"True\"'"),
    ],
)
def test_a_name_that_means_something_else_is_told_with_how_to_quote_it(full: Compose, word: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(full("data=folder", word))
    assert str(error.value) == said


@pytest.mark.parametrize("opened", ["[a", "{a", "'a", '"a', "${a"])
def test_what_is_opened_and_not_closed_is_told_with_how_to_quote_it(opened: str) -> None:
    with pytest.raises(ConfigError, match=r"what it opens is not closed; if it is text, type 'data\.path=\""):
        read_word(f"data.path={opened}", sweep=False)


ALL = dict(zip(VARIABLES, ("1", "2", "localhost", "29500"), strict=True))


@pytest.mark.parametrize("lacking", VARIABLES)
@pytest.mark.parametrize("how", ["", " ", None])
def test_a_shell_that_kept_some_of_torchruns_variables_is_a_process_alone(
    monkeypatch: pytest.MonkeyPatch, lacking: str, how: str | None
) -> None:
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    assert read_launched() == (1, 2)
    monkeypatch.delenv(lacking) if how is None else monkeypatch.setenv(lacking, how)
    assert read_launched() == (0, 1)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RANK", "x", "RANK=x in the environment is no whole number; to run alone: unset RANK WORLD_SIZE "),
        ("RANK", "-1", "RANK=-1 in the environment is no whole number"),
        ("WORLD_SIZE", "2.5", "WORLD_SIZE=2.5 in the environment is no whole number"),
        ("MASTER_PORT", "x", "MASTER_PORT=x in the environment is no whole number"),
        ("RANK", "2", "RANK=2 is not below WORLD_SIZE=2 in the environment; to run alone: unset "),
    ],
)
def test_torchruns_variables_that_cannot_be_are_told(
    typed: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    for known, one in {**ALL, name: value}.items():
        monkeypatch.setenv(known, one)
    code, told = typed(*TINY)
    assert (code, said in told) == (2, True)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list", "."], ["compare", "--help"], ["show", "--help"]])
def test_what_only_tells_something_is_no_workers_affair(
    typed: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    code, told = typed(*words)
    assert code == 0
    assert told


@pytest.mark.parametrize("name", ["cpu:0", "cpu:1", "cpu"])
def test_there_is_one_processor_whatever_its_number(name: str) -> None:
    assert str(choose_device(name)) == "cpu"


@pytest.mark.parametrize("name", ["meta", "cuda:99", "5", "", "CPU", "xla", "cpu:x"])
def test_a_device_that_nothing_is_computed_on_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used here; there is auto, cpu"):
        choose_device(name)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("threads=abc", "threads=abc must be a whole number of at least 1"),
        ("threads=0", "threads=0 must be"),
        ("threads=null", "threads=null must be"),
        ("threads=1,2", "threads=1,2 has several values"),
        ("device=5", "device=5 "),
        ("device=null", "device=null must be text"),
        ("data=5", "there is no data=5"),
        ("data=null", "there is no data="),
        ("bn=5", "bn=5: the run was trained with"),
        ("run.test_tasks=abc", "run.test_tasks=abc must be a whole number"),
        ("data.n_query=[1]", "data.n_query=[1] must be a whole number"),
        ("data.nothing=5", "there is no setting data.nothing"),
        ("paths.data=null", "paths.data=null must be text"),
    ],
)
def test_a_wrong_word_after_eval_is_told(tmp_path: Path, word: str, said: str) -> None:
    run = shutil.copytree(RUNS / "protonet", tmp_path / "run")
    with pytest.raises(ConfigError) as error:
        evaluate_run(run, Asked([word]), lambda _: None)
    assert said in str(error.value)
