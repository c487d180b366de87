"""The direction of imports, read off the source."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "metarun"
FILES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN = {
    "data": (
        "metarun.algos",
        "metarun.run",
        "metarun.report",
        "metarun.backbones",
        "metarun.build",
        "hydra",
        "omegaconf",
    ),
    "backbones": (
        "metarun.algos",
        "metarun.run",
        "metarun.report",
        "metarun.data",
        "metarun.types",
        "hydra",
        "omegaconf",
    ),
    "algos": ("metarun.data", "metarun.run", "metarun.report", "metarun.backbones", "wandb", "hydra", "omegaconf"),
    "run": ("metarun.data", "metarun.backbones", "metarun.build", "hydra", "omegaconf", "wandb"),
    "report": (
        "metarun.data",
        "metarun.algos",
        "metarun.backbones",
        "metarun.run",
        "metarun.build",
        "hydra",
        "omegaconf",
    ),
}
HYDRA = {
    "cli.py",
    "sweep.py",
    "search.py",
    "sweep_jobs.py",
    "launch.py",
    "build.py",
    "check.py",
    "schema.py",
    "names.py",
    "explain.py",
    "job.py",
    "resume.py",
    "sharing.py",
    "rerun.py",
    "describe.py",
    "sources.py",
    "conclusion.py",
    "trained.py",
    "eval_settings.py",
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def forbidden(file: Path) -> list[str]:
    """What the file imports and may not."""
    layer = file.relative_to(PACKAGE).parts[0]
    used = imports(file)
    bad = [name for name in used for package in FORBIDDEN.get(layer, ()) if within(name, package)]
    if layer == "run":  # the outer loop knows Learner and no algorithm
        bad += [name for name in used if within(name, "metarun.algos") and not within(name, "metarun.algos.learner")]
        bad = [name for name in bad if name != "metarun.algos"]
    if file.name not in HYDRA:
        bad += [name for name in used if within(name, "hydra") or within(name, "omegaconf")]
    if file.name != "sinks.py":
        bad += [name for name in used if within(name, "wandb") or "tensorboard" in name]
    return bad


def test_imports_go_one_way() -> None:
    assert len(FILES) > 100
    assert {str(file.relative_to(PACKAGE)): bad for file in FILES if (bad := forbidden(file))} == {}


def test_only_build_instantiates() -> None:
    users = [file.name for file in FILES if "hydra.utils.instantiate" in imports(file)]
    assert users == ["build.py"]


def test_files_hold_one_idea() -> None:
    assert {file.name: lines for file in FILES if (lines := len(file.read_text().splitlines())) > 250} == {}
    assert all(file.read_text() == "" for file in PACKAGE.rglob("__init__.py"))
