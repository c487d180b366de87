"""The house: which room may import which, read off the source. What is not allowed here is refused."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "metarun"
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}

BELOW_SETTINGS = ("run", "run/tracking", "report", "algos/base", "data", "ops", "core")
ALLOWED = {  # rooms by path, the topmost first: each imports from those named alone, and from itself
    "__main__.py": ("cli.py",),
    "cli.py": ("app", "settings", "run", "core"),
    "app": ("settings", *BELOW_SETTINGS),
    "settings": ("run", "run/tracking", "algos/base", "data", "ops", "core"),
    "run": ("run/tracking", "algos/base", "ops", "core"),
    "run/tracking": ("core",),
    "report": ("core",),
    "algos": ("algos/base", "ops", "core"),
    "algos/base": ("ops", "core"),
    "data": ("ops", "core"),
    "backbones": ("ops", "core"),
    "ops": ("core",),
    "core": (),
}
CALLED_BY_HYDRA = (  # its task function, callbacks, sweeper and launchers, which it hands its own settings
    "app/jobs/composed.py", "app/jobs/new_folder.py", "app/sweeps/accepted.py", "app/sweeps/distinct.py",
    "app/sweeps/end.py", "app/sweeps/launch.py", "app/sweeps/listed.py", "app/sweeps/search.py", "app/sweeps/table.py",
)  # fmt: skip
LIBRARIES = {  # by path, where alone they are imported
    "hydra": ("cli.py", *CALLED_BY_HYDRA, "settings"),
    "omegaconf": (*CALLED_BY_HYDRA, "settings"),
    "wandb": ("run/tracking",),
    "tensorboard": ("run/tracking",),
    "optuna": ("app/sweeps", "report/figures/study.py", "report/figures/study_page.py"),
}
INSTANTIATES = "settings/build.py"


def imports(path: Path) -> set[str]:
    """Dotted names of all that the file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(file: str) -> str:
    """The room that a file is in: the longest path of ALLOWED that it begins with."""
    return max((name for name in ALLOWED if file == name or file.startswith(f"{name}/")), key=len)


def file_of(name: str) -> str | None:
    """The file of the package that holds the dotted name."""
    parts = name.split(".")[1:]
    for last in range(len(parts), 0, -1):
        if (file := "/".join(parts[:last]) + ".py") in FILES:
            return file
    return None


def test_every_file_is_in_a_room() -> None:
    top = {
        path.name for path in PACKAGE.iterdir() if path.name not in ("__init__.py", "__pycache__", "conf", "README.md")
    }
    assert top == {name.partition("/")[0] for name in ALLOWED}


def test_imports_go_down_and_only_where_they_may() -> None:
    wrong = []
    for file, path in FILES.items():
        if file == "__init__.py":
            continue
        for name in imports(path):
            target = file_of(name) if name.startswith("metarun.") else None
            if target and room(target) not in (room(file), *ALLOWED[room(file)]):
                wrong.append(f"{file} imports {name}")
    assert not wrong


def test_the_outer_loop_knows_learner_and_no_method() -> None:
    used = {name for file, path in FILES.items() if file.startswith("run/") for name in imports(path)}
    assert {name for name in used if name.startswith("metarun.algos")} == {
        "metarun.algos.base.abilities.AdaptsToTask",
        "metarun.algos.base.abilities.EncodesInputs",
        "metarun.algos.base.abilities.LearnsInTurn",
        "metarun.algos.base.learner.Learner",
    }


def test_no_two_files_import_each_other_even_by_way_of_others() -> None:
    arrows = {file: {t for name in imports(path) if (t := file_of(name)) and t != file} for file, path in FILES.items()}
    left = dict(arrows)
    while free := [file for file, targets in left.items() if not targets & left.keys()]:
        for file in free:
            del left[file]
    assert not left


def test_libraries_stay_where_they_belong() -> None:
    wrong = []
    for file, path in FILES.items():
        for name in imports(path):
            library = "tensorboard" if name.startswith("torch.utils.tensorboard") else name.partition(".")[0]
            places = LIBRARIES.get(library)
            if places and not any(file == place or file.startswith(f"{place}/") for place in places):
                wrong.append(f"{file} imports {name}")
    assert not wrong


def test_only_build_instantiates() -> None:
    assert [file for file, path in FILES.items() if "hydra.utils.instantiate" in imports(path)] == [INSTANTIATES]


def test_files_are_short_and_init_files_empty() -> None:
    long = {file: lines for file, path in FILES.items() if (lines := len(path.read_text().splitlines())) > 250}
    assert not long
    assert all(path.read_text() == "" for file, path in FILES.items() if file.endswith("/__init__.py"))
