"""Which classes of the test tasks are mistaken most, and for which others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

LEAST_QUERIES = 10
"""Fewest queries of a class that tell how hard it is."""


@dataclass(frozen=True)
class Hard:
    """A class with the answers to its queries.

    Attributes:
        queries: how many there were, in all tasks.
        right: how many of them were answered rightly.
        taken: the classes that it was taken for, the most frequent first: name, wrong answers, and the queries of its
            tasks in which that class was another choice.
    """

    name: str
    queries: int
    right: int
    taken: tuple[tuple[str, int, int], ...]


def find_hardest(tasks: Iterable[tuple[Sequence[str], Sequence[int], Sequence[int]]], most: int) -> list[Hard]:
    """Find the classes with the least share of right answers, at most `most` of them.

    Args:
        tasks: of each task the class names by label, and the label and the answer of each query.
    """
    queries, right = Counter[str](), Counter[str]()
    wrong, together = defaultdict[str, Counter[str]](Counter), defaultdict[str, Counter[str]](Counter)
    for names, labels, answers in tasks:
        for label, answer in zip(labels, answers, strict=True):
            own = names[label]
            queries[own] += 1
            right[own] += label == answer
            together[own].update(name for other, name in enumerate(names) if other != label)
            if label != answer:
                wrong[own][names[answer]] += 1
    known = [name for name in queries if queries[name] >= LEAST_QUERIES and right[name] < queries[name]]
    known.sort(key=lambda name: (right[name] / queries[name], -queries[name], name))
    return [
        Hard(name, queries[name], right[name],
             tuple((other, n, together[name][other]) for other, n in wrong[name].most_common()))
        for name in known[:most]
    ]  # fmt: skip


def make_hard_table(found: Sequence[Hard]) -> Table:
    """Make a table with a line for each class, and what it is taken for most."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="hardest classes", title_justify="left")
    for head in ("class", "right", "taken for (answers, of queries where both were in the task)"):
        table.add_column(head, overflow="fold", justify="right" if head == "right" else "left")
    for one in found:
        taken = ", ".join(f"{name} ({n} of {of})" for name, n, of in one.taken[:2])
        table.add_row(Text(one.name), f"{100 * one.right / one.queries:.0f} % of {one.queries}", Text(taken))
    return table
