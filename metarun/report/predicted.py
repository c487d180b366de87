"""What a trained model answered for images: on the screen and as CSV, and its mistakes where the classes are known."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from metarun.core.words import make_cell

MOST_IN_MATRIX = 10
"""Most classes of a confusion matrix on the screen; of more, the most frequent mistakes are listed."""


HEAD = "known class (rows), answer (columns)"


@dataclass(frozen=True)
class Answers:
    """The answers for some images.

    Attributes:
        files: the image files, in the order of the other fields.
        classes: all classes.
        probabilities: of each class, for each file.
        truth: the class of each file; None where it is not known.
    """

    files: Sequence[str]
    classes: Sequence[str]
    probabilities: Sequence[Sequence[float]]
    truth: Sequence[str | None]

    @property
    def chosen(self) -> list[tuple[str, float]]:
        """The likeliest class of each file, and its probability."""
        best = [max(range(len(row)), key=row.__getitem__) for row in self.probabilities]
        return [(self.classes[c], row[c]) for c, row in zip(best, self.probabilities, strict=True)]

    @property
    def known(self) -> list[tuple[str, str]]:
        """The class and the answer of each file whose class is known."""
        pairs = zip(self.truth, self.chosen, strict=True)
        return [(label, answer) for label, (answer, _) in pairs if label is not None]


def make_answer_table(answers: Answers) -> Table:
    """Make a table with a line for each file, inside the folder that all share, and the classes that were missed."""
    known, shared = bool(answers.known), find_shared(answers.files)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    if known:
        table.add_column("but it is", overflow="fold")
    for file, (answer, probability), label in zip(answers.files, answers.chosen, answers.truth, strict=True):
        missed = [Text("" if label in (None, answer) else str(label), style="red")] if known else []
        table.add_row(Text(file[len(shared) :].lstrip("/")), Text(answer), f"{100 * probability:.1f} %", *missed)
    return table


def make_mistake_table(answers: Answers) -> Table | None:
    """Make the confusion matrix, or a list of the most frequent mistakes among many classes; None without any."""
    counts = Counter(answers.known)
    if len(answers.classes) > MOST_IN_MATRIX:
        return _list_mistakes(counts)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=HEAD, min_width=len(HEAD),
                  title_justify="left", title_style="bold")  # fmt: skip
    table.add_column("", overflow="fold")
    for number in range(len(answers.classes)):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, label in enumerate(answers.classes):
        row = [counts[label, answer] for answer in answers.classes]
        if sum(row):
            cells = [Text(str(n or "."), style="bold" if answer == label else "red" if n else "dim")
                     for n, answer in zip(row, answers.classes, strict=True)]  # fmt: skip
            table.add_row(Text(f"{number} {label}"), *cells)
        else:
            table.add_row(Text(f"{number} {label}"))
    return table


def summarise_accuracy(answers: Answers) -> str:
    """Say how many of the files whose class is known are right."""
    right = sum(label == answer for label, answer in answers.known)
    n, others = len(answers.known), len(answers.files) - len(answers.known)
    lie = "lies" if others == 1 else "lie"
    rest = f"; {others} more {lie} in no folder named after a class of the support set" if others else ""
    return f"{100 * right / n:.1f} % ({right} of {n} images){rest}"


def format_answer_csv(answers: Answers) -> str:
    """Format a line for each file with the probabilities of all classes, in columns named p:CLASS."""
    file = io.StringIO()
    out = csv.writer(file, lineterminator="\n")
    known = bool(answers.known)
    out.writerow(["file", "class", "probability", *(["known class"] * known), *(f"p:{c}" for c in answers.classes)])
    lines = zip(answers.files, answers.chosen, answers.truth, answers.probabilities, strict=True)
    for name, (answer, probability), label, row in lines:
        out.writerow(map(make_cell, [name, answer, probability, *([label or ""] * known), *row]))
    return file.getvalue()


def find_shared(files: Sequence[str]) -> str:
    """Find the folder that all files lie in, at any depth; empty if there is none."""
    folders = [file.split("/")[:-1] for file in files]
    together = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    return "/".join(names[0] for names in together)


def _list_mistakes(counts: Counter[tuple[str, str]]) -> Table | None:
    mistakes = [(pair, n) for pair, n in counts.most_common() if pair[0] != pair[1]][:MOST_IN_MATRIX]
    if not mistakes:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="most frequent mistakes", title_justify="left",
                  title_style="bold")  # fmt: skip
    for head in ("known class", "answer"):
        table.add_column(head, overflow="fold")
    table.add_column("images", justify="right", no_wrap=True)
    for (label, answer), n in mistakes:
        table.add_row(Text(label), Text(answer), str(n))
    return table
