"""Scores, tasks and durations as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metarun.core.ranges import BY_SIZE


def is_percent(score: str) -> bool:
    """Return whether people read the score in per cent; files hold fractions."""
    return drop_suffix(score) == "accuracy"


def drop_suffix(score: str) -> str:
    """Turn accuracy@5, the accuracy after five inner steps, into accuracy."""
    return score.partition("@")[0]


def format_value(score: str, value: float) -> str:
    """Format an accuracy as 97.39, another score as 0.0789."""
    return f"{100 * value:.2f}" if is_percent(score) else f"{value:.4f}"


def format_with_unit(score: str, value: float) -> str:
    """Format an accuracy as 97.39 %, another score as 0.0789."""
    return format_value(score, value) + (" %" if is_percent(score) else "")


def format_with_name(score: str, value: float) -> str:
    """Format an accuracy as 97.39 %, another score as mse 0.0789."""
    return format_with_unit(score, value) if score == "accuracy" else f"{score} {format_with_unit(score, value)}"


def format_p(p: float | None) -> str:
    """Format a p-value with three digits; an empty string for none."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def join_scores(scores: Mapping[str, float]) -> str:
    """Join the scores with their names, leaving out those with a suffix, such as accuracy@5."""
    return "  ".join(f"{name} {format_with_unit(name, value)}" for name, value in scores.items() if "@" not in name)


def join_sources(score: str, by_source: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Join a score of each of the sources that a test was on, with its interval."""
    found = ((name, one[score]) for name, one in by_source.items() if score in one)
    parts = []
    for name, test in found:
        mean, half = (format_with_unit(score, test[part]) for part in ("mean", "ci95"))
        parts.append(f"{name} {mean} ± {half}")
    return "  ".join(parts)


def name_size(size: Any) -> Any:
    """Return a number of ways or shots as it is, a range [5, 50] as 5-50, and by_size as such."""
    return "-".join(map(str, size)) if isinstance(size, Sequence) and not isinstance(size, str) else size


def order_size(size: int | str | None) -> tuple[bool, int, str]:
    """Return what sorts named sizes: numbers before ranges."""
    return isinstance(size, str), 0 if isinstance(size, str) else size or 0, str(size)


def name_task(n_way: Any, k_shot: Any) -> str:
    """Return 5-way 1-shot; 5-shot for tasks without classes; an empty string for tasks without shots."""
    if k_shot is None:
        return ""
    shots = "shots by class size" if k_shot == BY_SIZE else f"{name_size(k_shot)}-shot"
    return f"{name_size(n_way)}-way {shots}" if n_way else shots


def abbreviate_task(n_way: Any, k_shot: Any) -> str:
    """Return 5w1s; k5 for tasks without classes; an empty string for tasks without shots."""
    if k_shot is None:
        return ""
    shots = "by_size" if k_shot == BY_SIZE else f"{name_size(k_shot)}s"
    return f"{name_size(n_way)}w{shots}" if n_way else f"k{name_size(k_shot)}"


def name_queries(n_query: int | None, n_way: int | None, query: str | None) -> str:
    """Return 15 queries a class, 15 queries of a function, or for unbalanced ones 75 queries by dirichlet(2)."""
    if query and n_query and n_way:
        return f"{n_query * n_way} queries by {query}"
    return f"{n_query} queries" + (" a class" if n_way else "")


ALONE = "alone"
ANSWERS_MEAN = (
    "answers: together, by the method itself, each query by the others too; balanced assumed: it counts on as many "
    "queries of each class; bn=transductive is BatchNorm's share in that, and another matter"
)
"""What the column `answers` of a table means."""


def name_answers(results: Mapping[str, Any]) -> str:
    """Return how the method of a run, or of a test, answers queries; older ones all do so alone."""
    return str(results.get("answers") or ALONE)


def name_network(backbone: str) -> list[str]:
    """Return the backbone as a list of one word; empty for an algorithm with networks of its own."""
    return [] if backbone == "none" else [backbone]


def name_processes(size: int) -> str:
    """Return `, in 2 processes`; an empty string for one process."""
    return f", in {size} processes" if size > 1 else ""


def format_duration(seconds: float) -> str:
    """Format seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_rate(rate: float) -> str:
    """Format a number per second as 120, 8.4 or 0.31."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def describe_state(state: str) -> str:
    """Turn the state of a run into the rest of a sentence: is running, has died."""
    return f"{'has' if state in ('died', 'failed') else 'is'} {state}"


def make_cell(value: Any) -> Any:
    """Make a cell of a csv file: text that spreadsheets would run as a formula gets an apostrophe before it.

    Such text may come with somebody else's run: its notes, its tags, names of classes and files.
    """
    if not isinstance(value, str) or value[:1] not in tuple("=+-@\t\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
