"""Runs that overrides name: `backbone.weights=last` becomes the folder that it is now."""

from __future__ import annotations

from metarun.report.references import find_run

KEY = "backbone.weights"


def name_folders(word: str, several: bool) -> str:
    """Return the override `word` with the folder of each run that it calls by an id, the end of its name or `last`.

    So a sweep's jobs start from one and the same run, and a run that is resumed from the run that it began with.

    Args:
        word: as it was typed; other overrides than `backbone.weights=` stay as they are.
        several: whether a comma parts values.
    Raises: ConfigError if several runs are called so, or there is no last one.
    """
    key, equals, value = word.partition("=")
    if key.lstrip("+") != KEY or not equals or not value:
        return word
    parts = value.split(",") if several else [value]
    return f"{key}={','.join(str(find_run(part) or part) for part in parts)}"
