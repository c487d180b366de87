"""What README shows works."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from commands import TINY, metarun, results_of
from used_runs import first_task, lay_out, queries_of

from metarun.algos.base.learn2learn import IMPORTED, choose_engine
from metarun.app.commands.help import REQUIREMENTS
from metarun.app.jobs import calibrated

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
    (typed,) = re.findall(r"^    pip install .*setuptools.*$", README, re.M)
    (second,) = re.findall(r"^    pip install --no-deps .* learn2learn==.*$", README, re.M)
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
