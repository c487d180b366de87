"""Our numbers beside the papers': a table in Markdown, and lines for the headers of experiment files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metarun.core.errors import ConfigError
from metarun.core.words import format_value, is_percent
from metarun.report.stats import estimate_seed_interval
from reproduction.outcomes import Key, Outcome
from reproduction.targets import Target

TABLE = ("<!-- reproduction: written by scripts/reproduce.py -->", "<!-- end of reproduction -->")
HEADER = ("# --- ours, written by scripts/reproduce.py", "# ---")
"""The lines that what is written stands between."""

COLUMNS = (
    "target", "paper", "ours", "over tasks", "over seeds", "seeds", "contained", "otherwise than in the paper",
    "steps", "hours a seed", "hardware", "command",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A target, and what its runs came to, one a seed."""

    target: Target
    outcomes: Sequence[Outcome]

    @property
    def means(self) -> list[float]:
        return [float(outcome.test[self.target.score]["mean"]) for outcome in self.outcomes]

    @property
    def mean(self) -> float:
        return float(np.mean(self.means))

    @property
    def over_tasks(self) -> float:
        """Half-width of the interval over test tasks: the mean of the seeds', which that of their mean is not above."""
        return float(np.mean([outcome.test[self.target.score]["ci95"] for outcome in self.outcomes]))

    @property
    def over_seeds(self) -> float | None:
        """Half-width of the interval over seeds; None for one or two, of which it would say nothing."""
        return estimate_seed_interval(np.array(self.means))

    @property
    def interval(self) -> tuple[float, float]:
        """Ours: the wider of both intervals around the mean, or from the least seed to the greatest and its tasks'."""
        if self.over_seeds is None:
            return min(self.means) - self.over_tasks, max(self.means) + self.over_tasks
        half = max(self.over_seeds, self.over_tasks)
        return self.mean - half, self.mean + half

    def contained(self) -> bool | None:
        """Whether our interval and the paper's share a number; None where the paper has none."""
        paper = self.target.paper
        if paper is None:
            return None
        (low, high), half = self.interval, paper.plus_minus or 0.0
        return low <= paper.value + half and high >= paper.value - half


def rows_of(targets: Iterable[Target], outcomes: Mapping[Key, Outcome]) -> list[Row]:
    """A row for each target that has outcomes in its score."""
    rows = []
    for target in targets:
        found = [outcomes[key] for seed in target.seeds if (key := (target.words, seed)) in outcomes]
        scored = [outcome for outcome in found if target.score in outcome.test]
        rows += [Row(target, scored)] if scored else []
    return rows


def markdown(targets: Sequence[Target], outcomes: Mapping[Key, Outcome]) -> str:
    """The table of what was run, and a line on what was not."""
    rows = rows_of(targets, outcomes)
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))] if rows else []
    lines += [_line(_cells(row)) for row in rows]
    left = [target.name for target in targets if target.name not in {row.target.name for row in rows}]
    if left:
        lines += ["", *textwrap.wrap(f"Not run yet: {', '.join(f'`{name}`' for name in left)}.", 120)]
    return "\n".join(lines).strip()


def header(targets: Sequence[Target], outcomes: Mapping[Key, Outcome]) -> list[str]:
    """The lines on an experiment's targets in its file."""
    rows = rows_of(targets, outcomes)
    if not rows:
        return ["# not yet run to the end"]
    return [line for row in rows for line in _header(row, len(targets) > 1)]


def put_between(text: str, marks: tuple[str, str], lines: Sequence[str], place: str) -> str:
    """`text` with `lines` in place of those between the `marks`. Raises: ConfigError where `place` lacks a mark."""
    before, start, rest = text.partition(f"{marks[0]}\n")
    _, end, after = rest.partition(f"{marks[1]}\n")
    if not (start and end):
        raise ConfigError(f"{place} has no place for our numbers: a line {marks[0]!r} and after it {marks[1]!r}")
    return "".join([before, start, *(f"{line}\n" for line in lines), end, after])


def write_table(file: Path, targets: Sequence[Target], outcomes: Mapping[Key, Outcome]) -> None:
    """Write the table between its marks in `file`."""
    file.write_text(put_between(file.read_text(), TABLE, ["", markdown(targets, outcomes), ""], str(file)))


def write_headers(folder: Path, targets: Sequence[Target], outcomes: Mapping[Key, Outcome]) -> None:
    """Write our numbers into the experiment files of `folder` that targets are of."""
    for experiment in dict.fromkeys(target.experiment for target in targets):
        file, own = folder / f"{experiment}.yaml", [target for target in targets if target.experiment == experiment]
        file.write_text(put_between(file.read_text(), HEADER, header(own, outcomes), str(file)))


def differences(row: Row) -> list[str]:
    """What is otherwise than in the paper, most of it how we test; and what we do not know of its tests."""
    target, first = row.target, row.outcomes[0]
    if target.paper is None:
        return []
    n_tasks = first.test[target.score]["n_tasks"]
    ours = {"n_query": first.n_query, "bn": first.bn, "test_tasks": n_tasks}
    words = {"n_query": "{} queries", "bn": "bn={}", "test_tasks": "{} test tasks"}
    theirs = target.protocol
    said = [
        f"{words[key].format(value)} (paper: {theirs[key]})"
        for key, value in ours.items()
        if theirs[key] is not None and theirs[key] != value
    ]
    said += target.differences
    changed = dict(pair for outcome in row.outcomes for pair in outcome.changed.items())
    said += [f"{key}={ours} (experiment: {wanted})" for key, (ours, wanted) in changed.items()]
    names = {"n_query": "queries", "bn": "BatchNorm", "test_tasks": "test tasks"}
    unknown = [names[key] for key in names if theirs[key] is None]
    return said + ([f"not known of the paper: {', '.join(unknown)}"] if unknown else [])


def _cells(row: Row) -> list[str]:
    score, found = row.target.score, row.outcomes
    return [
        f"`{row.target.name}`",
        f"{_paper(row)} ({row.target.paper.source})" if row.target.paper else "none",
        _number(score, row.mean),
        f"± {format_value(score, row.over_tasks)}",
        _over_seeds(row),
        f"{len(found)} of {len(row.target.seeds)}",
        _verdict(row),
        "; ".join(differences(row)),
        ", ".join(sorted({f"{outcome.steps:,}" for outcome in found})),
        f"{np.mean([outcome.hours for outcome in found]):.2f}",
        _hardware(row),
        f"`{found[0].command}`",
    ]


def _header(row: Row, several: bool) -> list[str]:
    score, seeds = row.target.score, [outcome.seed for outcome in row.outcomes]
    n_tasks = row.outcomes[0].test[score]["n_tasks"]
    over = f"{_number(score, row.mean)}, ± {format_value(score, row.over_tasks)} over {n_tasks} test tasks"
    if len(seeds) > 1:
        over += f", {_over_seeds(row)} over {len(seeds)} seeds"
    against = f"; paper {_paper(row)}, contained: {_verdict(row)}" if row.target.paper else ""
    steps, hours = row.outcomes[0].steps, np.mean([outcome.hours for outcome in row.outcomes])
    text = f"{over}{against}; {steps:,} steps, {hours:.2f} hours a seed on {_hardware(row)}."
    otherwise = differences(row)
    text += f" Otherwise than in the paper: {'; '.join(otherwise)}." if otherwise else ""
    name = f"{row.target.name}: " if several else ""
    return textwrap.wrap(f"{name}{text}", 105, initial_indent="# ", subsequent_indent="# ")


def _verdict(row: Row) -> str:
    inside, paper = row.contained(), row.target.paper
    if paper is None or inside is None:
        return ""
    away = row.mean - paper.value
    return "yes" if inside else f"no, {format_value(row.target.score, abs(away))} {'above' if away > 0 else 'below'}"


def _over_seeds(row: Row) -> str:
    score = row.target.score
    if row.over_seeds is not None:
        return f"± {format_value(score, row.over_seeds)}"
    return ", ".join(format_value(score, mean) for mean in row.means) if len(row.means) == 2 else "one seed"


def _paper(row: Row) -> str:
    """98.7 ± 0.4 %, with as many digits as papers have."""
    paper, score = row.target.paper, row.target.score
    assert paper is not None
    known = [paper.value, *([] if paper.plus_minus is None else [paper.plus_minus])]
    if not is_percent(score):
        return " ± ".join(f"{value:g}" for value in known)
    return " ± ".join(f"{100 * value:.2f}".removesuffix("0") for value in known) + " %"


def _number(score: str, value: float) -> str:
    return f"{format_value(score, value)}{' %' * is_percent(score)}"


def _hardware(row: Row) -> str:
    pairs = {(outcome.hardware, outcome.versions.get("torch", "?")) for outcome in row.outcomes}
    return "; ".join(f"{name}, torch {version}" for name, version in sorted(pairs))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
