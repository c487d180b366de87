"""The wheel that `pip install .` builds has all of the package, and runs from any folder.

It is built offline by uv, with the build backend that installing this environment left in uv's cache. What metarun asks
for is taken from this environment: downloading it is not tried here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SMALL = [  # a run of a second
    "data=glyphs", "data.alphabets=8", "data.characters=6", "data.n_query=2", "data.train.n_query=2", "algo=maml",
    "run.steps=2", "run.meta_batch_size=2", "run.val_tasks=2", "run.test_tasks=4", "backbone.hidden=8",
    "logger=none", "threads=1", "device=cpu",
]  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (uv := shutil.which("uv")) is None:
        pytest.skip("uv builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    words = [uv, "build", "--wheel", "--offline", "--out-dir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    if "hatchling" in done.stderr and done.returncode:
        pytest.skip("the build backend is not in uv's cache")
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has metarun from the wheel, and all else from the one that the tests run in."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        ["uv", "pip", "install", "--offline", "--no-deps", "--python", str(python), str(wheel)],
        check=True,
        capture_output=True,
    )
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(folder: Path, words: list[str], cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "METARUN"))}
    done = subprocess.run(
        words, cwd=cwd, env=environment | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def list_files(folder: Path) -> set[str]:
    """List the files of a folder that git keeps, relative to it."""
    kept = subprocess.run(["git", "ls-files", "-z", "."], cwd=folder, check=True, capture_output=True, text=True)
    return {name for name in kept.stdout.split("\0") if name}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what belongs to the package is asked of git")
def test_the_wheel_has_every_file_of_the_package_and_every_yaml(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
    wanted = {f"metarun/{name}" for name in list_files(ROOT / "metarun")}
    wanted |= {f"metarun/conf/{name}" for name in list_files(ROOT / "conf")}
    assert wanted - inside == set()
    assert {name for name in inside - wanted if not name.endswith(".pyc")} == set()


def test_the_wheel_asks_for_what_pyproject_lists(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        told = message_from_bytes(file.read(name))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(text) for text in told.get_all("Requires-Dist", [])]
    assert {str(one) for one in asked if one.marker is None} == {
        str(Requirement(text)) for text in project["dependencies"]
    }
    assert set(told.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    assert told["Requires-Python"] == ",".join(sorted(project["requires-python"].split(",")))


def test_what_is_installed_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    metarun = str(installed / "bin" / "metarun")
    where = run(
        installed, [str(installed / "bin" / "python"), "-c", "import metarun; print(metarun.__file__)"], tmp_path
    )
    assert Path(where.strip()).is_relative_to(installed)
    assert "algo=" in run(installed, [metarun, "--help"], tmp_path)
    assert "test accuracy" in run(installed, [metarun, *SMALL, "hydra.run.dir=mine"], tmp_path)
    assert {"results.json", "metrics.jsonl"} <= {path.name for path in (tmp_path / "mine").iterdir()}
    assert "kept in mine/evals/" in run(installed, [metarun, "eval", "mine", "run.test_tasks=6"], tmp_path)
    assert "mine" in run(installed, [metarun, "list", "."], tmp_path)
    assert sys.prefix not in (tmp_path / "mine" / "results.json").read_text()
