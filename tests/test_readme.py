"""What README shows works."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from commands import TINY, metarun, results_of
from used_runs import first_task, lay_out, queries_of

from metarun.algos.base.learn2learn import IMPORTED, choose_engine
from metarun.app.commands import screen
from metarun.app.commands.help import REQUIREMENTS
from metarun.app.commands.screen import Parser
from metarun.app.commands.subcommands import SUBCOMMANDS, run_subcommand
from metarun.app.jobs import calibrated
from metarun.settings.check import refuse
from metarun.settings.compose import compose
from metarun.settings.typed import read_override, read_word

TOP = Path(__file__).parents[1]
README, HOUSE = (TOP / "README.md").read_text(), (TOP / "metarun" / "README.md").read_text()
PAGES = [
    path
    for path in (TOP / "README.md", *sorted(TOP.glob("*/README.md")), *sorted(TOP.glob("conf/*/README.md")))
    if ".venv" not in path.parts
]


def list_commands(page: Path) -> list[list[str]]:
    return find_commands(page.read_text())


def find_commands(text: str) -> list[list[str]]:
    """The words of every command line of metarun that a page shows, after `metarun`."""
    found = []
    for line in text.splitlines():
        typed = re.match(r"    (?:uv run )?metarun( .*|)$", line)
        if typed and not re.search(r"\b[A-Z]{4,}/", line):
            found.append(shlex.split(typed[1], comments=True))
    return found


COMMANDS = [(page, words) for page in PAGES for words in list_commands(page)]
RUNS = [(page, words) for page, words in COMMANDS if not words or words[0] not in SUBCOMMANDS]
SUBS = [(page, words) for page, words in COMMANDS if words and words[0] in SUBCOMMANDS]


def name_command(value: object) -> str:
    return str(value.relative_to(TOP)) if isinstance(value, Path) else "-".join(map(str, value))[:60]  # type: ignore[call-overload]


def test_there_are_commands_on_every_page_that_shows_some() -> None:
    assert len(RUNS) > 25
    assert len(SUBS) > 25
    assert {words[0] for _, words in SUBS} >= {"list", "show", "eval", "predict", "compare", "resume", "export", "data"}


@pytest.mark.parametrize(("page", "words"), RUNS, ids=name_command)
def test_the_settings_of_a_run_that_is_shown_compose_and_pass_the_checks(page: Path, words: list[str]) -> None:
    if "--config-dir" in words:
        return  # run whole below
    aside = ("hydra", "search=", "runs=", "-", "backbone.weights=last")
    typed = [word for word in words if "=" in word and not word.startswith(aside)]
    first = []
    for word in typed:  # of several values the first, of a range to search a number
        key = word.partition("=")[0]
        if "(" in word:
            first.append(f"{key}=0.001")
            continue
        override = read_override(read_word(word, "-m" in words))
        first.append(read_word(word if len(override.values) == 1 else f"{key}={override.values[0]}", False))
    config = compose(first)
    if config.data.get("path", "") is None:
        config.data.path = "photos"
    refuse(config)


def test_the_list_of_runs_that_is_shown_composes_and_passes_the_checks() -> None:
    entries = re.findall(r"^    - (\w+=.*)$", (TOP / "conf" / "README.md").read_text(), re.MULTILINE)
    assert len(entries) == 3
    for entry in entries:
        refuse(compose(shlex.split(entry, comments=True)))


@pytest.mark.parametrize(("page", "words"), SUBS, ids=name_command)
def test_a_subcommand_that_is_shown_has_the_arguments_that_it_shows(
    page: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Parsed(Exception):
        pass

    parse = Parser.parse_args

    def stop(self: Parser, *arguments: object) -> None:
        parse(self, *arguments)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", stop)
    monkeypatch.setattr(screen, "find_folder", lambda word, several=False: Path(word))
    with pytest.raises(Parsed):
        run_subcommand(words[0], words[1:], lambda _: 0)


def find_blocks(page: str) -> dict[str, str]:
    """The text of each file that a page shows whole, by its name."""
    return {text.split()[1]: text for text in re.findall(r"```\w+\n(# \S+\.(?:py|yaml)\n.*?)```", page, re.S)}


@pytest.mark.parametrize(("own", "name"), [("algo", "soft_neighbour"), ("backbone", "tiny")])
def test_the_algorithm_and_the_backbone_shown_whole_run(own: str, name: str, tmp_path: Path, cache: Path) -> None:
    blocks = find_blocks(HOUSE)
    assert set(blocks) == {
        "soft_neighbour.py", "mine/algo/soft_neighbour.yaml", "tiny.py", "mine/backbone/tiny.yaml", "blood.py",
        "mine/data/blood.yaml",
    }  # fmt: skip
    for file, text in blocks.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    typed = re.search(rf"metarun (--config-dir mine .*{own}={name}.*)", HOUSE)
    assert typed
    tiny = [word for word in TINY if own == "algo" or not word.startswith("backbone")]
    code, out, error = metarun(*typed[1].split(), *tiny, "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert results_of(tmp_path / "r")[own] == name


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for place in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if place.startswith("http"):
                continue
            file, _, part = place.partition("#")
            target = (page.parent / file) if file else page
            assert target.exists(), f"{page}: {place}"
            if part:
                titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
                heads = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
                assert part in heads, f"{page}: {place}"


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 160
    assert README.count("![") >= 2


def test_the_model_in_use_that_is_shown_runs(
    used_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(from metarun import Model\n.*?)```", README, re.S)
    (tmp_path / "outputs").mkdir()
    shutil.copytree(used_runs / "proto", tmp_path / "outputs" / "RUN")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrated, "LEAST_TASKS", 4)
    monkeypatch.setattr(calibrated, "MOST_TASKS", 4)
    files = queries_of(lay_out(first_task(used_runs / "proto"), tmp_path))
    for name, nth in (("fox1", 0), ("fox2", 1), ("owl1", 3), ("new1", 4), ("new2", 2)):  # three of each class
        shutil.copy(files[nth], tmp_path / f"{name}.jpg")  # PNGs: what a file is stands in it
    exec(code, {})
    answers, *probabilities = capsys.readouterr().out.splitlines()
    assert set(re.findall(r"'(\w+)'", answers)) <= {"fox", "owl"}
    assert len(probabilities) == 2


def test_readme_help_and_the_package_ask_for_the_same() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    asked = re.search(r"^Python 3\.(\d+) to 3\.(\d+), torch 2\.(\d+) to 2\.(\d+), Linux and macOS\.$", README, re.M)
    assert asked
    assert asked[0] == f"{REQUIREMENTS}."
    first, last, oldest, newest = map(int, asked.groups())
    assert project["requires-python"] == f">=3.{first},<3.{last + 1}"
    assert f"torch>=2.{oldest},<2.{newest + 1}" in project["dependencies"]
    assert [f"Programming Language :: Python :: 3.{minor}" for minor in range(first, last + 1)] == [
        line for line in project["classifiers"] if "Python" in line
    ]


def test_the_two_commands_of_a_new_user_are_there() -> None:
    assert re.findall(r"^ *pip install uv && (.*)$", README, re.M) == ["uv run metarun", "uv run pytest"]


def test_learn2learn_without_what_it_imports_is_named_in_a_line_and_readme_installs_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (typed,) = re.findall(r"^    pip install .*setuptools.*$", HOUSE, re.M)
    (second,) = re.findall(r"^    pip install --no-deps .* learn2learn==.*$", HOUSE, re.M)
    found = importlib.util.find_spec
    for missing in IMPORTED:
        assert missing in (second if missing == "learn2learn" else typed)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, gone=missing: None if name == gone else found(name)
        )
        with pytest.raises(ValueError, match=rf"^algo\.engine=learn2learn needs {missing}, .*: .*") as error:
            choose_engine("learn2learn")
        assert "pip install" in str(error.value) or "README" in str(error.value)
        assert choose_engine("auto") == "vectorized"


def test_all_that_learn2learn_imports_is_known() -> None:
    """Its files import at their top nothing but Python's own modules, our dependencies' and those."""
    spec = importlib.util.find_spec("learn2learn")
    assert spec and spec.submodule_search_locations  # noqa: PT018
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    ours = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]} | {"PIL", "gym"}  # gymnasium as gym
    known = ours | set(IMPORTED) | sys.stdlib_module_names
    optional = {"pytorch_lightning"}
    imported = set()
    for file in Path(spec.submodule_search_locations[0]).rglob("*.py"):
        for line in re.findall(r"^(?:import|from) ([\w.]+)", file.read_text(), re.M):
            imported.add(line.split(".")[0])
    assert imported - known - optional == {""}  # a relative import
