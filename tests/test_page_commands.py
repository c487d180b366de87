"""Every command that a page shows is run: those of `metarun` here, page by page and shortened, others where it says."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import start, wait_for_step
from conftest import NARROW, SMALL, TINY_CLIP, has
from filelock import FileLock
from image_folders import write_noise
from omegaconf import DictConfig, OmegaConf
from published import write_published
from same_process import finish_runs
from test_predict_descriptions import ZERO_SHOT
from test_readme import COMMANDS, HOUSE, PAGES, TOP, find_blocks, find_commands
from used_runs import TINY, first_task, lay_out

from metarun.app.commands.subcommands import SUBCOMMANDS
from metarun.settings.compose import compose
from metarun.settings.typed import read_override, read_word

TESTS = Path(__file__).parent

ELSEWHERE = {  # by what a command begins with or holds: a test that runs it
    "hydra/launcher=joblib": "launchers: the_numbers_do_not_depend_on_the_launcher_and_a_failed_job_is_told",
    "hydra/launcher=slurm": "launchers: slurm_gets_the_script_and_a_preempted_job_resumes",
    "run.processes=2": "sharing: a_run_goes_on_in_more_processes_and_leaves_none_behind",
    "scripts/bars.py": "methods: the_bars_are_up_to_date",
    "scripts/audit.py": "page_commands: the_audit_that_is_shown_runs",
    "torchrun": "sharing: torchrun_starts_the_processes_of_a_run",
    "wandb": "wandb_sweeps: a_trial_of_the_agent_is_one_run_of_the_agents_id_with_the_metric_it_asks_for",
}
BY_HAND = {  # what no test can do: why
    "pip install": "installs, over a network",
    "uv venv": "likewise",
    "uv run pytest": "this",
    'eval "$(metarun -sc': "changes the shell that it is typed into",
    "bash scripts/gpu.sh": "takes a GPU, or minutes",
    "python scripts/gpu/prepare.py": "likewise",
    "uv run --group bench python scripts": "takes minutes",
    "uv run python scripts/faults.py": "takes hours",
    "uv run python scripts/environment_speed.py": "takes minutes",
    "uv run python scripts/reproduce.py maml": "takes hours",
    "uv run python scripts/reproduce.py --from": "takes runs that were made elsewhere",
}

NEEDS = {"backbone=timm": "timm", "backbone=open_clip": "open_clip", "data=gymnasium": "gymnasium"}
"""Packages that not everybody installs."""

SHORT = [
    *(word for word in SMALL if not word.startswith(("data.alphabets", "data.characters"))), *NARROW,
    "data.wide=5", "data.points=20", "data.length=5", "data.episodes=1", "run.updates=1",
    "run.hindsight_steps=2", "run.tasks=2", "run.streams=2", "run.val_streams=2", "run.score_every=2",
    "algo.generations=0", "algo.epochs=1", "algo.test_inner_steps=2", "algo.inner_steps=2", "logger=none",
]  # fmt: skip
"""What makes a run short, where it has the setting and nothing shorter is typed."""

CHOOSES = re.compile(r"\+?(algo|data|backbone|run|optim|experiment|debug|bn)=")

INSTEAD = {  # what would be downloaded or takes long
    "backbone.name=resnet50": "backbone.name=shufflenet_v2_x0_5",
    "backbone.weights=DEFAULT": "backbone.weights=null",
    "backbone.weights=openai": "backbone.weights=null",
    "backbone.name=vit_small_patch14_dinov2.lvd142m": "backbone.name=test_resnet",
    "backbone.widths=[32,64,128,256]": "backbone.widths=[4,4,8,8]",
    "backbone.hidden=32": "backbone.hidden=8",
    "data.n_way=[5,50]": "data.n_way=[5,8]",
}


@pytest.fixture(scope="module")
def data(cache: Path) -> Path:
    """Written by one worker for all, so that they decode it once."""
    with FileLock(cache.parent / "published.lock"):
        place = cache.parent / "published"
        return place if place.exists() else write_published(place)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder as outputs/ is after a few days: methods, seeds, shots."""
    wanted = {
        f"{algo}{shots}{seed}": [*TINY, f"algo={algo}", f"seed={seed}", f"data.k_shot={shots}", "bn=support"]
        for algo, shots, seed in (("maml", 5, 0), ("maml", 5, 1), ("anil", 5, 0), ("anil", 5, 1))
    }
    return finish_runs(tmp_path_factory.mktemp("outputs"), wanted, cache)


def list_sections(page: Path) -> dict[str, list[list[str]]]:
    """The commands of a page by the heading of second order that they stand under."""
    lines = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)
    found = {title: find_commands(text) for title, text in zip(["", *lines[1::2]], lines[::2], strict=True)}
    return {title: commands for title, commands in found.items() if commands}


def cut(words: Sequence[str], seeds: int = 2) -> list[str]:
    """The words with fewer of the values that a sweep or `eval` goes through, and what takes long replaced.

    A sweep has two of each. Numbers choose no code, so one of them does where networks, methods or data vary, and one
    seed where other numbers do; `seeds` are left where nothing else varies.
    """
    words, varied = [INSTEAD.get(word, word) for word in words], {}
    for word in words if {"-m", "eval"} & set(words) else ():
        if "=" in word and "(" not in word and not word.startswith(("hydra", "search", "runs")):
            values = read_override(read_word(word, True)).values
            varied |= {word: values} if len(values) > 1 else {}
    numbers = [word for word, values in varied.items() if all(isinstance(value, int | float) for value in values)]
    if len(numbers) == len(varied) and not any(word.startswith("runs=") for word in words):
        numbers = [word for word in numbers if word.startswith("seed=") and len(numbers) > 1]
    for word, values in varied.items():
        few = seeds if word.startswith("seed=") else 2
        most = 1 if word in numbers else few if "-m" in words else None
        words[words.index(word)] = f"{word.partition('=')[0]}={','.join(map(str, values[:most]))}"
    return words


def shorten(words: Sequence[str], place: Path | None = None) -> list[str]:
    """The words of a run, and after them what makes it short, in place of greater numbers that are typed."""
    typed = {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    config, short = compose_choices(words, place), []
    for word in SHORT:
        key, _, value = word.partition("=")
        asked = typed.get(key, "")
        whole = "backbone.widths" in typed or typed.get("backbone.weights", "last") != "last"
        fixed = whole and key.startswith("backbone") and "FILE.pth" not in typed.get("backbone.weights", "")
        fixed = fixed or (key == "data.train.n_way" and {"data.n_way", "runs"} & set(typed))
        if not has(config, key) or fixed or ("-m" in words and key.startswith("algo.")):
            continue
        if not asked or (asked.isdigit() and int(asked) > int(value)):
            short.append(word)
    if typed.get("backbone") == "open_clip":
        short.append(f"backbone.name={TINY_CLIP}")
    if "search" in typed:
        short.append("hydra.sweeper.n_trials=2")
    keys = {word.partition("=")[0] for word in short}
    return [*(word for word in words if word.partition("=")[0] not in keys), *short]


def compose_choices(words: Sequence[str], place: Path | None = None) -> DictConfig:
    """The settings that the words choose, of several values the first, before any other is set."""
    own = [place / "mine"] if place and "--config-dir" in words else []
    return _compose(tuple(word.split(",")[0] for word in words if CHOOSES.match(word)), tuple(own))


@functools.cache
def _compose(chosen: tuple[str, ...], own: tuple[Path, ...]) -> DictConfig:
    return compose(chosen, own)


def find_kind(words: Sequence[str], place: Path | None = None) -> frozenset[str]:
    """What of a run's words chooses the code that it goes through: all but the seed; of numbers, whether they are 0."""
    config, kind = compose_choices(words, place), set()
    for word in words:
        key = word.partition("=")[0].lstrip("+")
        if key == "seed":
            continue
        if "=" not in word or CHOOSES.match(word) or "(" in word or key.startswith(("hydra", "search", "runs")):
            kind.add(word)
            continue
        values = {repr(hide_numbers(value)) for value in read_override(read_word(word, "-m" in words)).values}
        usual = OmegaConf.select(config, key, throw_on_resolution_failure=False)
        if values != {repr(hide_numbers(OmegaConf.to_container(usual) if OmegaConf.is_config(usual) else usual))}:
            kind.add(f"{key}={sorted(values)}")
    return frozenset(kind)


def hide_numbers(value: Any) -> Any:
    """The value, where of each number in it only is left whether it is 0."""
    if isinstance(value, dict):
        return {key: hide_numbers(of) for key, of in value.items()}
    if isinstance(value, list):
        return [hide_numbers(of) for of in value]
    return value != 0 if isinstance(value, int | float) and not isinstance(value, bool) else value


def is_last_used(commands: Sequence[Sequence[str]]) -> bool:
    """Whether one of the commands speaks of the last run, before another run is made."""
    for words in commands:
        if any(word == "last" or word.endswith("=last") for word in words):
            return True
        if not words or words[0] not in SUBCOMMANDS:
            break
    return False


def lay_the_table(place: Path, runs: Path, used_runs: Path) -> None:
    """Put what pages speak of where commands are typed: photos, texts, tables, weights, runs."""
    import torch
    from torchvision.models import get_model

    write_noise(place / "photos", [f"c{c:02d}" for c in range(32)], 20, 20, 20, 3)
    lay_out(first_task(used_runs / "proto"), place)
    (place / "support").rename(place / "animals")
    (place / "query").rename(place / "new_photos")
    shutil.make_archive(str(place / "new"), "zip", place / "new_photos")
    (place / "more").mkdir()
    shutil.copy(next((place / "new_photos").rglob("*.png")), place / "more" / "one.jpg")
    names = sorted(file.relative_to(place / "photos").as_posix() for file in (place / "photos").rglob("*.png"))
    (place / "labels.csv").write_text("filename,label\n" + "".join(f"{n},{n.partition('/')[0]}\n" for n in names))
    (place / "points.csv").write_text("x,y\n0,0\n1,0.84\n2,0.9\n")
    (place / "inputs.csv").write_text("x\n0.5\n1.5\n")
    (place / "my_texts").mkdir()
    for c in range(32):
        (place / "my_texts" / f"c{c}.txt").write_text("\n".join(f"text {i} of class number {c}" for i in range(20)))
    torch.save(get_model("shufflenet_v2_x0_5").state_dict(), place / "FILE.pth")
    entries = re.findall(r"^    - (\w+=.*)$", (TOP / "conf" / "README.md").read_text(), re.MULTILINE)
    (place / "study.yaml").write_text("".join(f"- {entry}\n" for entry in entries))
    for file, text in find_blocks(HOUSE).items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(text)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 20)
    np.savez(place / "blood.npz", images=rng.integers(0, 256, (400, 28, 28, 3), np.uint8), labels=labels)
    for run in sorted(runs.iterdir()):
        shutil.copytree(run, place / "outputs" / run.name)


def find_test(words: Sequence[str]) -> str | None:
    """The test elsewhere that runs this command."""
    return next((test for part, test in ELSEWHERE.items() if part in words), None)


SECTIONS = [  # what is done in one needs nothing of the others, so that workers share a long page
    pytest.param(commands, id=f"{page.relative_to(TOP)}-{title}")
    for page in PAGES
    for title, commands in list_sections(page).items()
]


@pytest.mark.slow
@pytest.mark.parametrize("commands", SECTIONS)
def test_the_commands_of_a_section_run_in_their_order(
    commands: Sequence[list[str]], tmp_path: Path, cache: Path, data: Path, runs: Path, used_runs: Path
) -> None:
    """Of runs that differ in nothing but numbers the first; test_readme.py has the settings of all of them checked.

    And of several seeds in a sweep two, in sweeps after it one.
    """
    lay_the_table(tmp_path, runs, used_runs)
    kinds: set[frozenset[str]] = set()
    for place, words in enumerate(commands, 1):
        if find_test(words) or any(word in words and not find_spec(package) for word, package in NEEDS.items()):
            continue
        typed = words
        if not words or words[0] not in SUBCOMMANDS:
            typed = shorten(cut(words, 1 if any("-m" in kind for kind in kinds) else 2), tmp_path)
            kind = find_kind(typed, tmp_path)
            if kind in kinds and not is_last_used(commands[place:]):
                continue
            kinds.add(kind)
        code, out, error = run_shortened(typed, tmp_path, cache, data, used_runs)
        assert code == 0, f"metarun {shlex.join(words)}\n{out[-1500:]}\n{error[-1500:]}"
        assert "Traceback" not in out + error
    if (tmp_path / "outputs" / "learned").exists():
        run_script([LEARNED, str(tmp_path / "outputs" / "learned"), "--tasks", "4", "--tuning", "4"])


ONE_KIND = ["algo=rl2", "data=bandits", "data.episodes=100", "algo.entropy=[0.03,0.01]", "run.steps=600"]
OTHER_KINDS = {  # by a word that differs in more than a number
    "algo=rl2": "algo=thompson",
    "data=bandits": "data=tabular_mdp",
    "run.steps=600": "run.steps=0",
    "algo.entropy=[0.03,0.01]": "algo.entropy=[0.03,0.0]",
    "data.episodes=100": "algo.products=true",
}


def test_runs_of_one_kind_differ_in_nothing_but_numbers() -> None:
    kind = find_kind(ONE_KIND)
    assert find_kind(["algo=rl2", "data=bandits", "algo.entropy=[0.5,2]"]) == kind  # the others are numbers by default
    assert find_kind([*ONE_KIND, "seed=1"]) == kind
    for word, other in OTHER_KINDS.items():
        assert find_kind([other if one == word else one for one in ONE_KIND]) != kind, other
    sweep = ["-m", *ONE_KIND]
    assert find_kind(sweep) != kind
    assert find_kind([*sweep, "optim.lr=0.001,0.002"]) == find_kind(sweep)
    assert find_kind([*sweep, "seed=0,1"]) == find_kind(sweep)
    assert find_kind([*sweep, "bn=none,running"]) != find_kind(sweep)


def test_a_run_that_the_next_commands_speak_of_is_the_last_one() -> None:
    others, evaluated, run = ["compare", "outputs"], ["eval", "last"], ["algo=maml"]
    assert is_last_used([others, evaluated])
    assert is_last_used([[*run, "backbone.weights=last"]])
    assert not is_last_used([others, run, evaluated])


def test_sections_have_every_command_of_every_page_in_its_order() -> None:
    assert [words for section in SECTIONS for words in section.values[0]] == [words for _, words in COMMANDS]


def expand(word: str, place: Path) -> list[str]:
    """What a shell makes of a word."""
    return [str(file.relative_to(place)) for file in sorted(place.glob(word))] if word.startswith("more/") else [word]


def describe_birds(place: Path, cache: Path) -> None:
    """Make a run that tells classes by descriptions, and a file of new ones."""
    import torch

    process = start(*ZERO_SHOT, "hydra.run.dir=outputs/RUN", cwd=place, cache=cache)
    assert process.wait(120) == 0
    best = torch.load(place / "outputs" / "RUN" / "checkpoints" / "best.pt", weights_only=False)
    rows = np.random.default_rng(0).random((3, len(best["source"]["info"]["support_scale"][0])))
    lines = (f"bird {number},{','.join(map(str, row))}" for number, row in enumerate(rows.round(3)))
    (place / "birds.csv").write_text("\n".join(lines))


def run_shortened(words: list[str], place: Path, cache: Path, data: Path, used_runs: Path) -> tuple[int, str, str]:
    if "outputs/RUN" in words:  # a run that can do what is asked
        maml = any("algo" in word for word in words) and "algo=tim" not in words
        kind = "cnp" if "points.csv" in words else "maml" if maml else "proto"
        shutil.rmtree(place / "outputs" / "RUN", ignore_errors=True)
        shutil.copytree(used_runs / kind, place / "outputs" / "RUN")
    if "birds.csv" in words:
        shutil.rmtree(place / "outputs" / "RUN")
        describe_birds(place, cache)
    if "outputs/sweeps/SWEEP" in words:
        shutil.copytree(place / "outputs" / "maml50", place / "outputs" / "sweeps" / "SWEEP" / "maml50")
    if words[:2] == ["resume", "last"]:
        begun = [*TINY, "run.steps=60", "run.val_every=30", "hydra.run.dir=outputs/begun"]
        process = start(*begun, cwd=place, cache=cache)
        wait_for_step(place / "outputs" / "begun", 3, process)
        process.send_signal(15)
        assert process.wait(60) == 143
    if words[:1] == ["eval"]:
        asked = [word for word in cut(words) if not word.startswith("run.test_tasks")]
        words = [*asked, "run.test_tasks=4", "data.n_query=2"]
    words = [name for word in words for name in expand(word, place)]
    process = start(*words, cwd=place, cache=cache, METARUN_DATA=str(data))
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def test_packages_that_were_not_looked_up_are_no_safe_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where pip-audit reaches no index: it says `no known vulnerabilities` and ends with 0."""
    monkeypatch.syspath_prepend(str(TOP / "scripts"))
    from audit import describe_vulnerabilities

    known = {"name": "a", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
    skipped = [{"name": name, "skip_reason": "not found"} for name in ("b", "metarun")]
    lines, found, unknown = describe_vulnerabilities([known, *skipped])
    assert (found, unknown) == (1, 1)
    assert lines == [
        "a 1.0: CVE-1, mended in 1.1",
        "pip-audit knows of vulnerabilities in 1 of 2 packages",
        "and could not look up 1 of them, of which nothing is known: b",
    ]


NOTHING = """print('{"dependencies": [{"name": "a", "skip_reason": "unreachable"}]}')"""
AUDITS = {
    None: (2, "pip-audit is not installed: known vulnerabilities were not looked for"),
    NOTHING: (2, "and could not look up 1 of them, of which nothing is known: a"),
    "": (2, "pip-audit needs a network, and could not ask: no word"),
    NOTHING.replace('"skip_reason": "unreachable"', '"version": "1", "vulns": []'): (0, "in 0 of 1 packages"),
    NOTHING.replace('"skip_reason": "unreachable"', '"version": "1", "vulns": [{"id": "X", "fix_versions": []}]'): (
        1,
        "a 1: X, mended in none yet",
    ),
}


@pytest.mark.parametrize("tool", AUDITS)
def test_the_audit_ends_with_2_where_packages_were_not_looked_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: str | None
) -> None:
    monkeypatch.syspath_prepend(str(TOP / "scripts"))
    import audit

    if tool is not None:
        (tmp_path / "pip-audit").write_text(f"#!{sys.executable}\n{tool}\n")
        (tmp_path / "pip-audit").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    code, words = AUDITS[tool]
    assert audit.report_vulnerabilities() == code
    assert words in capsys.readouterr().out


LEARNED = "scripts/learned_optimizer.py"
SCRIPTS = [
    ["scripts/reproduce.py"],
    ["scripts/false_marks.py", "--tables", "20"],
]


@pytest.mark.slow
@pytest.mark.parametrize("words", SCRIPTS, ids=lambda words: Path(words[0]).stem)
def test_a_script_that_is_shown_runs(words: list[str]) -> None:
    run_script(words)


@pytest.mark.slow
def test_the_audit_that_is_shown_runs() -> None:
    done = subprocess.run([sys.executable, "scripts/audit.py"], cwd=TOP, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1, 2), done.stderr[-1500:]
    assert "torch" in done.stdout
    assert ("not look" in done.stdout or "could not ask" in done.stdout) == (done.returncode == 2)


def run_script(words: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, *words], cwd=TOP, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-1500:]


def test_every_command_is_run_or_it_is_said_why_not() -> None:
    for page in PAGES:
        for line in page.read_text().splitlines():
            typed = re.match(r"    ((?:[A-Z]+=\S+ )*(?:uv|pip|python|bash|torchrun|wandb|eval) .*)$", line)
            if not typed or re.match(r"    uv run metarun( |$)", line):
                continue
            said = [
                *BY_HAND,
                *(part for part in ELSEWHERE if "=" not in part),
                *(words[0] for words in SCRIPTS),
                LEARNED,
            ]
            assert any(part in typed[1] for part in said), f"{page}: {line}"
    for test in ELSEWHERE.values():
        file, _, name = test.partition(": ")
        assert f"def test_{name}(" in (TESTS / f"test_{file}.py").read_text(), test
