"""How scores and tasks are said to people."""

from __future__ import annotations

from collections.abc import Mapping


def is_percent(score: str) -> bool:
    """Whether people read the score in per cent; files hold fractions."""
    return plain(score) == "accuracy"


def plain(score: str) -> str:
    """accuracy for accuracy@5, the accuracy after five inner steps; log_likelihood for log_likelihood@pointwise."""
    return score.partition("@")[0]


def number(score: str, value: float) -> str:
    """97.39 for an accuracy, 0.0789 for another score."""
    return f"{100 * value:.2f}" if is_percent(score) else f"{value:.4f}"


def with_unit(score: str, value: float) -> str:
    """97.39 % for an accuracy, 0.0789 for another score."""
    return number(score, value) + (" %" if is_percent(score) else "")


def alone(score: str, value: float) -> str:
    """97.39 % for an accuracy, mse 0.0789 where nothing else says which score it is."""
    return with_unit(score, value) if score == "accuracy" else f"{score} {with_unit(score, value)}"


def in_a_line(scores: Mapping[str, float]) -> str:
    """The scores with their names, without those of a further kind, as those along the inner loop."""
    return "  ".join(f"{name} {with_unit(name, value)}" for name, value in scores.items() if "@" not in name)


def task(n_way: int | None, k_shot: int | None) -> str:
    """5-way 1-shot; 5-shot where there are no classes; nothing where tasks have no shots."""
    if k_shot is None:
        return ""
    return f"{n_way}-way {k_shot}-shot" if n_way else f"{k_shot}-shot"


def network(backbone: str) -> list[str]:
    """The backbone in a list of words; nothing for an algorithm with networks of its own."""
    return [] if backbone == "none" else [backbone]


def in_processes(size: int) -> str:
    """, in 2 processes; nothing for one."""
    return f", in {size} processes" if size > 1 else ""


def duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
