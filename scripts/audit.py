"""What the dependencies are: their licences, how old they are, and what is known against them.

python scripts/audit.py              # the licences; with pip-audit installed and a network, known vulnerabilities too
python scripts/audit.py --markdown   # the licences as a table of Markdown

Everything that pyproject.toml asks for, and what that asks for in turn, as far as it is installed here. Ends with 1
where a vulnerability is known, with 2 where it is not known of every package whether it has one, and else with 0.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

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

UNKNOWN = 2
"""What the program ends with where packages were not looked up, and nothing is known against the others."""


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
    """Have pip-audit report on what is installed here; returns 0, 1 or 2, as the program ends.

    It may be installed elsewhere, as by pipx, and is told which packages are meant. Those that it could not look up
    are counted: `no known vulnerabilities` says nothing of them.
    """
    tool = shutil.which("pip-audit", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if tool is None:
        print("pip-audit is not installed: known vulnerabilities were not looked for (pip install pip-audit)")
        return UNKNOWN
    words = [tool, "--progress-spinner=off", "--format=json", f"--path={sysconfig.get_path('purelib')}"]
    done = subprocess.run(words, capture_output=True, text=True)
    if not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        print(f"pip-audit needs a network, and could not ask: {last}")
        return UNKNOWN
    lines, found, unknown = describe_vulnerabilities(json.loads(done.stdout)["dependencies"])
    print("\n".join(lines))
    return 1 if found else UNKNOWN if unknown else 0


def describe_vulnerabilities(packages: Sequence[Mapping[str, Any]]) -> tuple[list[str], int, int]:
    """Describe what pip-audit found, a line for each vulnerability.

    Returns: the lines, the number of packages with a vulnerability, and of those that were not looked up. metarun
        itself, which no index has, is none of them.
    """
    packages = [package for package in packages if package["name"] != "metarun"]
    lines = [
        f"{package['name']} {package['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'none yet'}"
        for package in packages
        for one in package.get("vulns", [])
    ]
    found = sum(bool(package.get("vulns")) for package in packages)
    lines.append(f"pip-audit knows of vulnerabilities in {found} of {len(packages)} packages")
    if skipped := [package["name"] for package in packages if "skip_reason" in package]:
        lines.append(f"and could not look up {len(skipped)} of them, of which nothing is known: {', '.join(skipped)}")
    return lines, found, len(skipped)


def main() -> int:
    """Print the licences, and what pip-audit says; returns what `report_vulnerabilities` does."""
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
    return report_vulnerabilities()


if __name__ == "__main__":
    sys.exit(main())
