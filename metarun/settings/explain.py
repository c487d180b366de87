"""What each group, choice and setting is: read off the YAML files and the source of the classes that they name.

Nothing is imported for it, so that help comes at once.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from metarun.core.dotted import leaves
from metarun.settings.conf import GROUPS, PACKAGE

RANGES = {
    "PositiveInt": "a whole number from 1",
    "NonNegativeInt": "a whole number from 0",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number from 0",
    "Share": "a number from 0 to 1",
    "ShareBelowOne": "a number from 0 below 1",
    "Interval": "a range, least and greatest",
    "FilePath": "a file or folder",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "None": "null",
}
BOUNDS = {"Ge": "from {}", "Gt": "above {}", "Le": "to {}", "Lt": "below {}"}


@dataclass(frozen=True)
class Setting:
    """A setting of a choice.

    Attributes:
        key: dotted, as it is typed.
        default: its value in the choice's YAML.
        comment: what stands beside it there.
        range: what it may be, in words; empty where no constructor of ours says so.
        meaning: what the constructor's docstring says.
    """

    key: str
    default: str
    comment: str
    range: str
    meaning: str


@dataclass(frozen=True)
class Choice:
    """One choice of a group: its name, the first comment of its file, what its class says, and its settings."""

    group: str
    name: str
    title: str
    docstring: str
    settings: Sequence[Setting]


def find_title(file: Path) -> str:
    """Return the first comment of a YAML file that is not a directive to Hydra."""
    lines = (line[1:].strip() for line in file.read_text(errors="replace").splitlines() if line.startswith("#"))
    return next((line for line in lines if not line.startswith("@")), "")


def list_choices(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """List the file of each choice, by group, as optim/schedule, and name; a later folder's comes over an earlier's."""
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/**/*.yaml")):
            found.setdefault(file.parent.relative_to(folder).as_posix(), {})[file.stem] = file
    return found


def describe_choice(group: str, file: Path) -> Choice:
    """Describe one choice of a group."""
    loaded = OmegaConf.to_container(OmegaConf.load(file))
    whole: dict[str, Any] = loaded if isinstance(loaded, dict) else {}  # type: ignore[assignment]
    comments = read_comments(file)
    nodes = {name: node for name, node in whole.items() if name in GROUPS and isinstance(node, dict)}
    prefix = group.replace("/", ".")
    if group not in nodes and "_target_" in whole:
        nodes, comments = {prefix: whole}, {f"{prefix}.{key}": text for key, text in comments.items()}
    classes = read_class(str(nodes.get(prefix, {}).get("_target_", "")))
    settings = []
    for key, value in leaves(nodes or {k: v for k, v in whole.items() if k != "defaults"}).items():
        name = key.rpartition(".")[2]
        if name.startswith("_"):
            continue
        own = key == f"{prefix}.{name}"
        range_, meaning = (find_range(classes, name), find_argument(classes, name)) if own else ("", "")
        settings.append(Setting(key, format_value(value), comments.get(key, ""), range_, meaning))
    docstring = next((text for one in classes if (text := ast.get_docstring(one[1]))), "")
    return Choice(group, file.stem, find_title(file), docstring, settings)


def format_value(value: Any) -> str:
    """Format a value as it is typed."""
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read_comments(file: Path) -> dict[str, str]:
    """Read the comment beside each key of a YAML file, by dotted key."""
    found, above = dict[str, str](), list[tuple[int, str]]()
    for line in file.read_text(errors="replace").splitlines():
        match = re.match(r"( *)([\w-]+):(.*)", line)
        if not match:
            continue
        indent, key, rest = len(match[1]), match[2], match[3]
        above = [(depth, name) for depth, name in above if depth < indent] + [(indent, key)]
        comment = re.search(r"(?:^|\s)#\s*(.*)", rest)
        if comment:
            found[".".join(name for _, name in above)] = comment[1]
    return found


Classes = Sequence[tuple[Mapping[str, str], ast.ClassDef]]
"""The source of a class and of those that it is made from, the class first, each with what its file imports."""


@cache
def read_class(target: str) -> Classes:
    """Read the source of a class of this package with those that it inherits from; empty for another's."""
    module, _, name = target.rpartition(".")
    file = PACKAGE.parent / f"{module.replace('.', '/')}.py"
    if not module.startswith("metarun.") or not file.is_file():
        return ()
    tree = ast.parse(file.read_text())
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found: list[tuple[Mapping[str, str], ast.ClassDef]] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            names = {n.targets[0].id: ast.unparse(n.value) for n in tree.body if _is_alias(n)}  # type: ignore[attr-defined]
            found.append((names, node))
            for other in [*_list_unpacked(node), *(ast.unparse(base).partition("[")[0] for base in node.bases)]:
                found += read_class(imported.get(other, f"{module}.{other}"))
        elif isinstance(node, ast.FunctionDef) and node.name == name:  # a function that makes the object
            doc = ast.get_docstring(node)
            made = ast.ClassDef(name, [], [], [*([ast.Expr(ast.Constant(doc))] if doc else []), node], [])
            node.name = "__init__"
            found.append(({}, made))
    return tuple(found)


def _list_unpacked(node: ast.ClassDef) -> Iterator[str]:
    """Yield the name of the TypedDict that `**settings: Unpack[Keys]` of the constructor stands for."""
    for init in node.body:
        if isinstance(init, ast.FunctionDef) and init.name == "__init__" and init.args.kwarg:
            annotation = init.args.kwarg.annotation
            if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Unpack":
                yield ast.unparse(annotation.slice)


def _is_alias(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)


def find_range(classes: Classes, name: str) -> str:
    """Find what an argument of the constructor may be, in words."""
    for aliases, one in classes:
        for part in one.body:
            if isinstance(part, ast.AnnAssign) and ast.unparse(part.target) == name:
                return describe_annotation(part.annotation, aliases)
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                for argument in (*part.args.args, *part.args.kwonlyargs):
                    if argument.arg == name and argument.annotation is not None:
                        return describe_annotation(argument.annotation, aliases)
    return ""


def describe_annotation(node: ast.expr, aliases: Mapping[str, str]) -> str:
    """Describe an annotation of a constructor in words."""
    if isinstance(node, ast.BinOp):
        sides = [describe_annotation(side, aliases) for side in (node.left, node.right)]
        return " or ".join(filter(None, sides))
    if isinstance(node, ast.Constant):
        return "null" if node.value is None else format_value(node.value)
    if isinstance(node, ast.Name) and node.id in aliases and node.id not in RANGES:
        return describe_annotation(ast.parse(aliases[node.id], mode="eval").body, {})
    if isinstance(node, ast.Subscript):
        head, inner = ast.unparse(node.value), node.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if head == "NotRequired":
            return describe_annotation(inner, aliases)
        if head == "Literal":
            return ", ".join(describe_annotation(part, aliases) for part in parts)
        if head == "Annotated":
            bounds = [BOUNDS[call.func.id].format(ast.unparse(call.args[0])) for call in parts[1:] if _is_bound(call)]  # type: ignore[attr-defined]
            return " ".join([describe_annotation(parts[0], aliases), *bounds])
        if head in ("Sequence", "list", "tuple"):
            return f"a list, each {describe_annotation(parts[0], aliases)}"
        return ""
    return RANGES.get(ast.unparse(node), "")


def _is_bound(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BOUNDS


def find_argument(classes: Classes, name: str) -> str:
    """Find what the docstrings' lists of arguments say of `name`."""
    for _, one in classes:
        for names, text in list_arguments(ast.get_docstring(one) or ""):
            if name in names:
                return text
    return ""


def list_arguments(docstring: str) -> Iterator[tuple[list[str], str]]:
    """List the entries under `Args:` of a docstring: the names that share a text, and the text."""
    found = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", inspect.cleandoc(docstring), re.M)
    entries = re.split(r"^ {4}(?=\S)", found[1], flags=re.M) if found else []
    for entry in filter(None, entries):
        names, _, text = entry.partition(":")
        yield [one.strip() for one in names.split(",")], " ".join(text.split())
