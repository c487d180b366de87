"""Draws mutations by a seed instead of by an opinion: the usual single edits, one in each of so many functions.

Every function of the package, methods included, is as likely as every other; within it, every edit that the kinds below
allow. Texts, annotations, decorators, what is raised or asserted, and what stands outside of functions are left alone.
"""

from __future__ import annotations

import ast
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

AREAS = {"core": "core ops backbones", "algos": "algos", "run": "run", "wiring": "settings app", "data": "data"}
"""Folders of the package by the area of a report; what is nowhere here is report."""

COMPARED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "in": "not in"}
COMPARED |= {"is not": "is", "not in": "in"}
CALCULATED = {"+": "-", "-": "+", "*": "/", "/": "*", "**": "*", "//": "/", "%": "//", "@": "*", "|": "&", "&": "|"}
JOINED = {"and": "or", "or": "and"}


class Edit(NamedTuple):
    """Bytes `first` to `last` of a file give way to `text`."""

    first: int
    last: int
    text: str


def draw(root: Path, package: str, count: int, seed: int) -> list[dict[str, str]]:
    """Draw the entries of a list of `count` mutations; the same seed and tree give the same ones."""
    functions = list(_find_functions(root, package))
    chosen = random.Random(seed)
    chosen.shuffle(functions)
    entries: list[dict[str, str]] = []
    for file, function in functions:
        source = (root / file).read_bytes()
        if edits := list(_Source(source).edit(function)):
            edit = chosen.choice(edits)
            name = f"d{seed}_{len(entries) + 1:02d}"
            entries.append({"id": name, "area": _area(file, package), "file": file, **_entry(source, edit, function)})
        if len(entries) == count:
            return entries
    return entries


def write_drawn(entries: Sequence[dict[str, str]], out: Path, seed: int) -> None:
    """Write a list that mutate.py reads."""
    head = f"# {len(entries)} mutations drawn by mutate.py --draw with seed {seed}, one in each of as many functions.\n"
    lines = [yaml.safe_dump([entry], sort_keys=False, width=10**6, default_flow_style=True) for entry in entries]
    out.write_text(head + "".join(f"- {line.strip()[1:-1]}\n" for line in lines))


def _find_functions(root: Path, package: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted((root / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef):
                yield str(path.relative_to(root)), node


def _area(file: str, package: str) -> str:
    part = Path(file).relative_to(package).parts[0]
    return next((area for area, parts in AREAS.items() if part in parts.split()), "report")


def _entry(source: bytes, edit: Edit, function: ast.FunctionDef) -> dict[str, str]:
    """The words before and after, with as much of the lines around as makes them stand once in the file."""
    first, last = source.rfind(b"\n", 0, edit.first) + 1, source.find(b"\n", edit.last)
    while source.count(source[first:last]) > 1:
        first = source.rfind(b"\n", 0, first - 1) + 1
    old = source[first:last].decode()
    new = source[first : edit.first].decode() + edit.text + source[edit.last : last].decode()
    was = source[edit.first : edit.last].decode()
    harm = f"{function.name}: {' '.join(was.split()) or 'nothing'} becomes {' '.join(edit.text.split()) or 'nothing'}"
    return {"old": old, "new": new, "harm": harm}


class _Source:
    """A file's bytes, in which nodes have places."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def edit(self, function: ast.FunctionDef) -> Iterator[Edit]:
        """Yield every edit of a function's statements, and of its defaults."""
        for default in [*function.args.defaults, *function.args.kw_defaults]:
            if default is not None:
                yield from self._edit_node(default)
        for statement in function.body:
            yield from self._walk(statement)

    def _walk(self, node: ast.AST) -> Iterator[Edit]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Raise | ast.Assert | ast.JoinedStr):
            return  # a function inside is one of its own
        yield from self._edit_node(node)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "type_params", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._walk(child)

    def _edit_node(self, node: ast.AST) -> Iterator[Edit]:
        if kind := KINDS.get(type(node)):
            yield from kind(self, node)

    def place(self, node: ast.AST) -> tuple[int, int]:
        """First byte of a node, and the one after its last."""
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        first, last = self.place(node)
        return self.source[first:last].decode()

    def _between(self, left: ast.AST, right: ast.AST, words: dict[str, str]) -> Iterator[Edit]:
        """Change the sign between two nodes."""
        first, last = self.place(left)[1], self.place(right)[0]
        sign = self.source[first:last].decode().strip(" \n()")
        if sign in words:
            at = self.source.index(sign.encode(), first, last)
            yield Edit(at, at + len(sign.encode()), words[sign])

    def compare(self, node: ast.Compare) -> Iterator[Edit]:
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            yield from self._between(left, right, COMPARED)

    def calculate(self, node: ast.BinOp) -> Iterator[Edit]:
        if not any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (node.left, node.right)):
            yield from self._between(node.left, node.right, CALCULATED)

    def join(self, node: ast.BoolOp) -> Iterator[Edit]:
        for left, right in itertools.pairwise(node.values):
            yield from self._between(left, right, JOINED)

    def turn(self, node: ast.UnaryOp) -> Iterator[Edit]:
        """Drop a `not` or a minus."""
        if isinstance(node.op, ast.Not | ast.USub):
            yield Edit(self.place(node)[0], self.place(node.operand)[0], "")

    def count(self, node: ast.Constant) -> Iterator[Edit]:
        """Another number, or the other truth value."""
        if isinstance(node.value, bool):
            yield Edit(*self.place(node), str(not node.value))
        elif isinstance(node.value, int | float):
            yield Edit(*self.place(node), repr(node.value + 1 if node.value in (0, -1) else node.value * 2))

    def call(self, node: ast.Call) -> Iterator[Edit]:
        """Leave out an argument that has a name."""
        given = sorted([*node.args, *node.keywords], key=lambda each: self.place(each)[0])
        for before, keyword in itertools.pairwise(given):
            if isinstance(keyword, ast.keyword) and keyword.arg:
                yield Edit(self.place(before)[1], self.place(keyword)[1], "")

    def choose(self, node: ast.If | ast.IfExp | ast.While) -> Iterator[Edit]:
        """The other branch."""
        if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.NamedExpr):
            yield Edit(*self.place(node.test), f"not ({self.text(node.test)})")

    def leave_out(self, node: ast.Expr | ast.AugAssign) -> Iterator[Edit]:
        """Without a statement that is there for what it does; a class without its parent's beginning fails at once."""
        called = node.value if isinstance(node, ast.Expr) else None
        if isinstance(node, ast.AugAssign) or (isinstance(called, ast.Call) and "super()" not in self.text(called)):
            yield Edit(*self.place(node), "pass")

    def jump(self, node: ast.Break | ast.Continue) -> Iterator[Edit]:
        yield Edit(*self.place(node), "continue" if isinstance(node, ast.Break) else "break")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


KINDS: dict[type[ast.AST], Callable[[_Source, ast.AST], Iterable[Edit]]] = {
    ast.Compare: _Source.compare,
    ast.BinOp: _Source.calculate,
    ast.BoolOp: _Source.join,
    ast.UnaryOp: _Source.turn,
    ast.Constant: _Source.count,
    ast.Call: _Source.call,
    ast.If: _Source.choose,
    ast.IfExp: _Source.choose,
    ast.While: _Source.choose,
    ast.Expr: _Source.leave_out,
    ast.AugAssign: _Source.leave_out,
    ast.Break: _Source.jump,
    ast.Continue: _Source.jump,
}  # type: ignore[dict-item]
"""What is edited, by the kind of a node."""
