"""What README shows works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from commands import TINY, metarun, results_of

from metarun.app.commands.help import REQUIREMENTS

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_algorithm_shown_whole_runs(tmp_path: Path, cache: Path) -> None:
    blocks = re.findall(r"```\w+\n(# (\S+)\n.*?)```", README, re.S)
    assert [name for _, name in blocks] == ["soft_neighbour.py", "mine/algo/soft_neighbour.yaml"]
    for text, name in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    typed = re.search(r"metarun (--config-dir mine .*)", README)
    assert typed
    code, out, error = metarun(*typed[1].split(), *TINY, "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert results_of(tmp_path / "r")["algo"] == "soft_neighbour"


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
