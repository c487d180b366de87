"""Any override of any setting, and any arguments of the other commands, typed as a person types them.

Each is a process of its own, in a folder of its own: it ends as it should, or is refused with 2, one message that names
what was typed, and nothing written.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import yaml
from conftest import compose_quickly
from hydra.utils import get_object
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from image_folders import write_noise
from omegaconf import OmegaConf
from small_run import WORDS, Trial, do
from test_any_value import CHOICES, IMAGES, NUMBERS, SMALL, TEXT
from test_any_value import WORDS as VALUES
from test_contract import choices

from metarun.app.commands.subcommands import SUBCOMMANDS
from metarun.core.dotted import nodes
from metarun.core.errors import ConfigError
from metarun.core.run_folder import RunFolder
from metarun.settings.conf import list_shipped
from metarun.settings.typed import read_override

LARGE = ("run.processes",)
"""What is not tried, as it starts processes."""

MORE = st.sampled_from([
    "2020-01-01", "12:30:45", "1:2", "1_000", "01", "+1", "1.0", "1e3", ".5", "0o7", "'1", '"5"', "\\", "\x1b[31m",
    "$HOME", "`id`", "*", "!", "#", "%s", "{0}", "None", "True", "yes", "auto", "none", "a/b", "../x", "last",
    "x" * 300, "[1,[2,[3]]]", "[nan]", "[1e400]", "[true]", "{}x", "--", "-", "~", "@", "a@b", "${now:%H}",
    "${hydra:job.num}", "\u202e",
])  # fmt: skip
FORMS = ["{0}={1}"] * 10 + [
    "+{0}={1}",
    "++{0}={1}",
    "~{0}",
    "~{0}={1}",
    "{0}.x={1}",
    "+{0}.x={1}",
    "{0}",
    "{0}:={1}",
    "/{0}={1}",
]


def list_kinds() -> list[tuple[str, str]]:
    """Every source of data but glyphs, and the kind of its tasks."""
    nodes_of = {name: choices("data")[name] for name in list_shipped("data") if name != "glyphs"}
    by_class = {name: getattr(get_object(node["_target_"]), "kinds", None) for name, node in nodes_of.items()}
    return [
        (name, kinds[0] if kinds else "classification" if "n_way" in nodes_of[name] else "regression")
        for name, kinds in by_class.items()
    ]


def find_learner(kind: str) -> str:
    """The word that chooses a method for tasks of that kind."""
    return next(f"algo={name}" for name, node in choices("algo").items() if kind in get_object(node["_target_"]).kinds)


GLYPHS = [*IMAGES, "algo=protonet"]
LEARNERS = {
    "classification": ["algo=protonet"],
    "regression": ["algo=maml", "backbone=mlp_small"],
    "optimisation": ["algo=learned_optimizer"],
    "control": ["algo=rl2", "backbone=none"],
    "domains": ["algo=dann"],
    "described": ["algo=zero_shot"],
    "sets": ["algo=neural_statistician"],
}
"""Something that learns each kind of tasks."""
SOURCES = [
    *[[f"data={name}", *(LEARNERS.get(kind) or [find_learner(kind)])] for name, kind in list_kinds()],
    *[[*GLYPHS, f"backbone={name}"] for name in ("conv4_map", "conv4_r2d2", "resnet12", "torchvision", "timm")],
    *[[*GLYPHS, f"logger={name}"] for name in ("tensorboard", "wandb")],
    [*IMAGES, "search=maml"],
    [*IMAGES, "algo=oml", "run=continual", "run.streams=2", "run.val_streams=1", "run.tasks=2", "run.ways=1"],
    ["data=sinusoid", "algo=maml", "backbone=mlp_small", "run=online", "run.updates=1", "run.hindsight_steps=1"],
]
SIZES = ("run.meta_batch_size", "run.val_tasks", "run.test_tasks")
"""Settings of `run=offline` alone."""

SEARCHED = "is a search over many runs"
"""What is said of search= without -m, whatever else is wrong."""

ABSENT = re.compile(r"there is no .* in |needs data\.path|paths\.data=|is not installed")
"""What is said of data or packages that are not here, whatever else was typed."""
HYDRA = [
    "hydra.run.dir", "hydra.output_subdir", "hydra.job.name", "hydra.job.chdir", "hydra.mode", "hydra.verbose", "hydra",
    "hydra.searchpath", "hydra.sweep.dir", "hydra.launcher", "hydra/launcher", "hydra/job_logging", "hydra.callbacks",
    "hydra.sweeper", "hydra.run", "hydra.job.num", "hydra.runtime.output_dir", "hydra.callbacks.folder",
]  # fmt: skip
FOUL = re.compile(
    r"Traceback|Error executing job|HYDRA_FULL_ERROR|object_type|Error in call|AssertionError|UserWarning|\x1b"
)
PHOTOS = [
    "data=folder", "data.image_size=16", "data.n_way=2", "data.n_query=2", "data.train.n_query=2",
    "data.train.n_way=2", "data.fractions=[0.5,0.25,0.25]", "backbone=conv4", "backbone.hidden=4", "algo=protonet",
    "run.steps=2", "run.meta_batch_size=1", "run.val_tasks=4", "run.test_tasks=12", "run.checkpoint_every=1",
    "run.compile=false", "threads=1", "device=cpu", "logger=none",
]  # fmt: skip
"""A run on somebody's images, but for where they lie."""
FILES = (
    "missing",
    ".",
    "..",
    "",
    "a b",
    "it's",
    "-dash",
    "a=b",
    "a,b",
    "ü",
    "[x]",
    "$(x)",
    "new\nline",
    "#x",
    "~",
    "{y}",
)
"""Names of folders, as people have them or a script makes them."""


def list_words(choice: int) -> list[str]:
    """The words of a small run of a choice."""
    chosen = (CHOICES + SOURCES)[choice]
    whole = not any(word in ("run=online", "run=continual") for word in chosen)
    return [*(word for word in SMALL if whole or word.partition("=")[0] not in SIZES), *chosen]


@cache
def list_keys(choice: int) -> list[str]:
    """The settings of a choice by dotted key, groups of them and Hydra's own too."""
    config = OmegaConf.to_container(compose_quickly(*list_words(choice)))
    return [key for key, _ in nodes(config) if not key.startswith(LARGE)] + HYDRA


@st.composite
def overrides(draw: st.DrawFn) -> tuple[int, str]:
    """A choice of CHOICES or SOURCES, and an override of one of its settings."""
    choice = draw(st.integers(0, len(CHOICES) + len(SOURCES) - 1))
    key, value = draw(st.sampled_from(list_keys(choice))), draw(VALUES | MORE | NUMBERS | TEXT)
    return choice, draw(st.sampled_from(FORMS)).format(key, value)


def list_flags() -> list[str]:
    """The flags of all subcommands."""
    files = (Path(__file__).parents[2] / "metarun" / "app" / "commands").glob("*.py")
    return sorted({flag for file in files for flag in re.findall(r'add_argument\(\s*"(--[-a-z]+)"', file.read_text())})


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    """A subcommand, often of a run, with flags and words."""
    word = (
        st.sampled_from(list_flags())
        | VALUES
        | MORE
        | NUMBERS
        | TEXT
        | st.sampled_from(("r", "last", "seed=1", *FILES))
    )
    run = ["r"] if draw(st.booleans()) else []
    return [
        draw(st.sampled_from([name for name in SUBCOMMANDS if name != "rerun"])),
        *run,
        *draw(st.lists(word, max_size=3)),
    ]


def try_override(root: Path, choice: int, word: str) -> Trial:
    """Start a run with the override."""
    place = Path(tempfile.mkdtemp(dir=root)) / "here"
    own = [] if word.lstrip("+~").startswith("hydra.run") else ["hydra.run.dir=r"]
    words = [*list_words(choice), *own, word]
    code, said, left = _do(place, words)
    key = word.strip("+~/").partition("=")[0].rstrip(":").removesuffix(".x")
    outcome = _judge(code, said, left, key, absent=choice >= len(CHOICES))
    if code == 0 and not _counts(place, word):
        outcome = f"{word} was taken, and is not among the settings"
    if code == 1 and (place / "r" / "run.log").exists() and "Diverged" in (place / "r" / "run.log").read_text():
        outcome = "equal"  # the numbers blew up
    shutil.rmtree(place.parent)
    return Trial("an override of any setting", " ".join([*(CHOICES + SOURCES)[choice], repr(word)]), outcome)


def try_arguments(root: Path, words: Sequence[str]) -> Trial:
    """Do a subcommand where a run lies."""
    place = Path(tempfile.mkdtemp(dir=root)) / "here"
    shutil.copytree(make_run(root), place)
    code, said, left = _do(place, words)
    outcome = _judge(code, said, left, "")
    shutil.rmtree(place.parent)
    return Trial("any arguments of the other commands", repr(words), outcome)


@cache
def make_run(root: Path) -> Path:
    """A folder with a finished run `r`."""
    place = root / "finished"
    code, said = do(place, *WORDS, "hydra.run.dir=r")
    assert code == 0, said
    return place


def try_place(root: Path, name: str) -> Trial:
    """A run in a folder of that name, within another of that name, that is killed: each command that is printed from
    then on works when pasted, but that the folder holds a run already."""
    place = Path(tempfile.mkdtemp(dir=root)) / "here"
    place.mkdir()
    folder = f"./{name}/{name}"
    start = [*WORDS, assign("hydra.run.dir", folder)]
    do(place, *start, STRIKE="kill 3 checkpoints/last.pt")
    todo = [(2, start), *((0, [word, folder]) for word in ("show", "list")), (2, ["eval", folder, "data.k_shot=2"])]
    problems = do_and_paste(place, todo)
    shutil.rmtree(place.parent)
    return Trial("commands that are printed", repr(name), "; ".join(problems) or "equal")


def try_paths(root: Path, name: str) -> Trial:
    """A sweep over images, each in a folder of that name, and all that is done with its runs: likewise."""
    place = Path(tempfile.mkdtemp(dir=root)) / "here"
    inside = f"./{name}"
    write_noise(place / name / "images", [f"c{number}" for number in range(8)], 4, 20, 20, 3)
    of_images = [*PHOTOS, assign("data.path", f"{inside}/images")]
    code, said = do(place, *of_images, assign("hydra.sweep.dir", f"{inside}/runs"), "-m", "seed=0,1")
    jobs = sorted(str(path.parents[1].relative_to(place)) for path in (place / name).glob("runs/*/.hydra/config.yaml"))
    problems = [f"the sweep ended with {code}: {said[-400:]}"] * (code != 0 or len(jobs) != 2)
    runs, first = f"{inside}/runs", f"./{jobs[0]}" if jobs else ""
    images = ["--support", f"{inside}/images", "--query", f"{inside}/images/c0/0.png", f"--csv={inside}/{name}.csv"]
    todo = [(0, paste(line, place)) for line in find_commands(said)]
    todo += [(0, ["show", first]), (2, ["show", runs]), (0, ["eval", runs, "data.k_shot=2", "bn=support"])]
    todo += [(0, ["replay", first, "--step", "2", "--task", "0"]), (0, ["predict", first, *images])]
    todo += [(0, ["compare", runs, "--html", f"{inside}/x.html"]), (0, ["rerun", first, "run.steps=1"])]
    todo += [(0, [*of_images, assign("backbone.weights", first), "--cfg", "job"])]
    problems += do_and_paste(place, todo)
    page = place / name / "x.html"
    lines = re.findall(r"metarun compare[^<]*", html.unescape(page.read_text())) if page.exists() else []
    problems += ["the page's command is another"] * (not lines or paste(lines[0], place)[:2] != ["compare", runs])
    shutil.rmtree(place.parent)
    return Trial("commands that are printed of paths", repr(name), "; ".join(problems) or "equal")


def assign(key: str, value: str) -> str:
    """An override; a value with a comma in it is quoted, for it would be two."""
    return f'{key}="{value}"' if "," in value else f"{key}={value}"


def do_and_paste(place: Path, todo: Sequence[tuple[int, list[str]]]) -> list[str]:
    """Do commands that are to end with these codes, and those that are printed, with 0; returns what is wrong."""
    problems, waiting = list[str](), [*todo]
    done, pasted = list[list[str]](), 0
    while waiting and len(done) < 20:
        right, words = waiting.pop(0)
        done.append(words)
        code, said = do(place, *words)
        if code != right or FOUL.search(said):
            problems.append(f"{words} ended with {code}: {said[-400:]}")
        for typed in (paste(line, place) for line in find_commands(said)):
            if typed not in [*done, *(later for _, later in waiting)]:
                waiting.append((0, typed))
                pasted += 1
    return problems + [f"only {pasted} commands were printed"] * (pasted < 2)


def find_commands(said: str) -> list[str]:
    """The command lines that are printed; those with a word in capitals are to be filled in."""
    found = re.findall(r"(?:^|[ :])(metarun [^\n]*)", said, re.M)
    found = [line.partition(", or ")[0] for line in found]
    return [line for line in found if not re.search(r"\b(RUN|FOLDER|KEY|FILE|NAME|VALUE)\b", line)]


def paste(line: str, place: Path) -> list[str]:
    """The arguments of a command line as a shell reads it; a new run is only composed."""
    script = f'metarun() {{ printf "%s\\0" "$@"; exit 0; }}\n{line}'
    shell = subprocess.run(["bash", "-c", script], cwd=place, capture_output=True, text=True, check=False)
    assert shell.returncode == 0, f"a shell does not read: {line}: {shell.stderr}"
    words = shell.stdout.split("\0")[:-1]
    return words if words[0] in SUBCOMMANDS else [*words, "--cfg", "job"]


def _do(place: Path, words: Sequence[str]) -> tuple[int, str, list[str]]:
    """Do a command; returns the exit code, what it said, and the files that it made or changed."""
    place.mkdir(exist_ok=True)
    before = _list_files(place)
    own = {"HOME": place.parent / "home", "METARUN_CACHE": place.parents[1] / "cache"}
    code, said = do(place, *words, **{name: str(path) for name, path in own.items()}, WANDB_MODE="offline")
    after = _list_files(place)
    return code, said, sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _list_files(place: Path) -> dict[str, float]:
    files = (path for path in place.rglob("*") if path.name != "lock" and not path.is_dir())
    return {str(path.relative_to(place)): path.stat().st_mtime for path in files}


def _judge(code: int, said: str, left: Sequence[str], key: str, absent: bool = False) -> str:
    """Return `equal` for what was done, `said` for what was refused well, or what is wrong."""
    problems = [f"ended with {code}"] * (code not in (0, 2)) + [
        f"says {found[0]!r}" for found in [FOUL.search(said)] if found
    ]
    if code == 2:
        messages = re.findall(r"^metarun: ", said, re.M)
        problems += [f"{len(messages)} messages"] * (len(messages) != 1) + [f"left {left}"] * bool(left)
        named = key.rpartition(".")[2] in said or (absent and ABSENT.search(said)) or SEARCHED in said
        problems += [f"{key} is not named"] * (not named)
    return f"{'; '.join(problems)}: {said[-500:]}" if problems else "said" if code else "equal"


def _counts(place: Path, word: str) -> bool:
    """Whether the value that was typed is that of the run."""
    file = RunFolder(place / "r").settings
    if word.startswith("~") or not file.exists():
        return True
    override = read_override(word)
    try:
        config = OmegaConf.create(yaml.safe_load(file.read_text()))
        found = OmegaConf.select(config, override.key.replace("/", "."), throw_on_missing=False)
    except ConfigError:
        return False
    typed = override.values[0]
    simple = isinstance(typed, int | float | bool) and not override.key.startswith(("paths", "hydra"))
    return not simple or found == typed or str(found) == str(typed) or found != found


QUIET = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


def draw_many(
    times: int, strategy: st.SearchStrategy[object], attempt: Callable[[object], Trial], number: int | None = None
) -> list[Trial]:
    """What became of so many draws, the same ones each time; others by a `number`."""
    trials = list[Trial]()

    @(seed(number) if number is not None else lambda test: test)
    @settings(max_examples=times, **QUIET | {"derandomize": number is None})
    @given(strategy)
    def draw(drawn: object) -> None:
        trials.append(attempt(drawn))

    draw()
    return trials


def type_all(root: Path, times: int) -> Iterator[Trial]:
    """Ten overrides and four lines of arguments for each of the times, and a run in a folder of each odd name."""
    yield from draw_many(10 * times, overrides(), lambda drawn: try_override(root, *drawn))
    yield from draw_many(4 * times, arguments(), lambda drawn: try_arguments(root, drawn))
    for name in FILES[4:]:
        yield try_place(root, name)
        yield try_paths(root, name)
