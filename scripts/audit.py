"""What the dependencies are: their licences, how old they are, and what is known against them.

python scripts/audit.py              # the licences; with pip-audit installed and a network, known vulnerabilities too
python scripts/audit.py --markdown   # the licences as a table of Markdown

Everything that pyproject.toml asks for, and what that asks for in turn, as far as it is installed here.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

KEPT = {
    "antlr4-python3-runtime": "of 2021: Hydra and OmegaConf ask for it, and newer ones cannot read their grammar",
    "hydra-joblib-launcher": "of May 2022: small, over joblib, which is kept well; tests/test_launchers.py tries it",
    "hydra-submitit-launcher": "of May 2022: small, over submitit, which is kept well; for SLURM alone",
    "learn2learn": "of June 2023: for algo.engine=learn2learn, and to compare with; nothing else imports it",
}
"""Packages without a release for years, and why they are kept. (Hydra and its sweeper had releases in 2026.)"""

LICENCE = "License :: "


def list_dependencies(name: str = "metarun") -> list[str]:
    """List the installed packages that the package asks for, directly or not, extras and groups among them."""
    found: dict[str, None] = {}
    waiting = [name, *KEPT]
    while waiting:
        package = normalise(waiting.pop())
        if package in found:
            continue
        try:
            asked = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue
        found[package] = None
        needs = map(Requirement, asked)
        wanted = [need for need in needs if package == name or not need.marker or need.marker.evaluate({"extra": ""})]
        waiting += [need.name for need in wanted]
    return sorted({*found} - {name})


def normalise(name: str) -> str:
    """Write a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def describe_licence(package: str) -> str:
    """Return the licence that a package states: by expression, by classifier, or in words."""
    told = metadata.metadata(package)
    if expression := told.get("License-Expression"):
        return expression
    names = [line.split(" :: ")[-1] for line in told.get_all("Classifier") or [] if line.startswith(LICENCE)]
    named = [name for name in names if name != "OSI Approved"]
    words = (told.get("License") or "").strip().splitlines()
    return ", ".join(named) or (words[0][:60] if words else "not stated")


def list_rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield name, version, licence, and why it is kept where nobody has released it for years."""
    for package in list_dependencies():
        yield package, metadata.version(package), describe_licence(package), KEPT.get(package, "")


def report_vulnerabilities() -> int:
    """Have pip-audit report on what is installed here; returns its exit code, 0 where it cannot be asked."""
    tool = shutil.which("pip-audit", path=f"{Path(sys.executable).parent}:{Path.home() / '.local' / 'bin'}:/usr/bin")
    if tool is None:
        print("pip-audit is not installed: known vulnerabilities were not looked for (pip install pip-audit)")
        return 0
    done = subprocess.run([tool, "--progress-spinner=off"], capture_output=True, text=True)
    if done.returncode and not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        print(f"pip-audit needs a network, and could not ask: {last}")
        return 0
    print(done.stdout + done.stderr)
    return done.returncode


def main() -> int:
    """Print the licences, and what pip-audit says; returns 1 where it knows of a vulnerability."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="the table of licences as Markdown")
    heads, rows = ("package", "version", "licence", "no release for years: kept because"), list(list_rows())
    if parser.parse_args().markdown:
        print("\n".join(f"| {' | '.join(row)} |" for row in (heads, ("---",) * len(heads), *rows)))
    else:
        table = Table(*heads)
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
    return int(bool(report_vulnerabilities()))


if __name__ == "__main__":
    sys.exit(main())
