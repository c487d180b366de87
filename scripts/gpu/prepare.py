"""Make the folder that goes to a machine with a GPU and no network: packages, Omniglot, and CIFAR-FS in parts.

METARUN_DATA=FOLDER python scripts/gpu/prepare.py --python python3.12

The other machine has torch and the usual scientific packages; `CARRIED` are those of metarun that it lacks. What is
at hand in the folder already is kept: delete a file to have it made again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.packing import pack

ROOT = Path(__file__).resolve().parents[2]

CARRIED = (
    "hydra-core",
    "omegaconf",
    "hydra-joblib-launcher",
    "annotated-types",
    "plotille",
    "learn2learn",
    "gymnasium",
)
"""Packages in the ranges of pyproject.toml."""

THEIR_NEEDS = ("antlr4-python3-runtime==4.9.*", "farama-notifications")

CARRIED_WITH_NEEDS = ("pydantic",)
"""Packages whose parts must fit each other to the version."""


def main(arguments: list[str]) -> None:
    """Write what is missing and say the size of everything."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=os.environ.get("METARUN_DATA"), help="default METARUN_DATA")
    made.add_argument("--python", default="3.12", help="an interpreter of the other machine's version; default 3.12")
    made.add_argument("--parts", type=int, default=3, help="of CIFAR-FS, 95 MiB together; default 3")
    made.add_argument("--folder", type=Path, default=ROOT / ".gpu", help="default .gpu, which git ignores")
    asked = made.parse_args(arguments)
    if asked.data is None:
        made.error("where does the data lie? Give --data FOLDER or set METARUN_DATA")
    asked.folder.mkdir(exist_ok=True)
    if not (packages := asked.folder / "packages.tar.gz").exists():
        pack_packages(packages, asked.python)
    for archive in ("images_background.zip", "images_evaluation.zip"):
        (asked.folder / "omniglot").mkdir(exist_ok=True)
        shutil.copy2(asked.data / "omniglot" / archive, asked.folder / "omniglot" / archive)
    parts = [asked.folder / f"cifar_fs-{number}.zip" for number in range(1, asked.parts + 1)]
    if not all(part.exists() for part in parts):
        pack([asked.data / "cifar_fs" / f"{split}.zip" for split in ("train", "val", "test")], parts)
    for path in sorted(file for file in asked.folder.rglob("*") if file.is_file()):
        print(f"{path.stat().st_size / 2**20:6.1f} MiB  {path.relative_to(asked.folder)}")
    print(f"{_size_of_checkout() / 2**20:6.1f} MiB  the checkout")


def pack_packages(path: Path, python: str) -> None:
    """Install the carried packages for `python` into a folder, and write it to the archive `path`.

    metarun is among them by its name and version alone: what runs is the checkout.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["uv", "pip", "install", "--quiet", "--python", python, "--link-mode", "copy", "--target", folder]
        alone = [*_requirements(CARRIED), *THEIR_NEEDS, str(ROOT)]
        for words in (["--no-deps", *alone], _requirements(CARRIED_WITH_NEEDS)):
            subprocess.run([*command, *words], cwd=ROOT, check=True)
        for unwanted in ("metarun", "tests"):  # learn2learn installs its tests under that name
            shutil.rmtree(Path(folder) / unwanted)
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, arcname="packages")


def _requirements(names: Sequence[str]) -> list[str]:
    """Return the requirements of these packages as they stand in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["learn2learn"]]
    return [line for line in listed if re.split(r"[<>=]", line)[0] in names]


def _size_of_checkout() -> int:
    """Return the bytes of the files that git knows or does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sum(path.stat().st_size for name in listed.split("\0") if name and (path := ROOT / name).is_file())


if __name__ == "__main__":
    main(sys.argv[1:])
