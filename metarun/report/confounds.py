"""Differences between groups that no column of their table shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from metarun.report.groups import Group, find_varied

MOST_NAMES, MOST_LETTERS = 3, 40
"""Groups that are named for a value, and letters of a value; the most frequent value may have `the N others`."""


def note_confounds(groups: Sequence[Group], keys: Sequence[str], over: Sequence[str]) -> list[str]:
    """Note each setting that differs among the groups that have it, and is not in `keys`, with whose each value is.

    Also note different versions of the code and of libraries.
    """
    runs = [run for group in groups for run in group.runs]
    notes = []
    for key in find_varied(runs, over):
        if keys and key not in keys and (found := _describe_values(groups, key)):
            notes.append(f"{key} differs too: {found}")
    commits = {(run.results.get("git") or {}).get("commit") for run in runs}
    if len(commits) > 1:
        notes.append(f"the runs are of {len(commits)} versions of the code")
    versions: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, version in (run.results.get("versions") or {}).items():
            versions[name].add(str(version))
    for name, several in versions.items():
        if len(several) > 1:
            notes.append(f"the runs are of {name} {' and '.join(sorted(several))}")
    return notes


def _describe_values(groups: Sequence[Group], key: str) -> str:
    """Describe which groups have which values, as `5 (anil), 1 (maml)`; an empty string if all have the same."""
    owners: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        having = [run for run in group.runs if key in set(run.keys())]
        for value in sorted({str(run.value(key)) for run in having}):
            owners[value].append(group.short_name)
    if len(owners) < 2:
        return ""
    frequent = max(owners, key=lambda value: len(owners[value]))
    parts = []
    for value, names in owners.items():
        shown = f"{value[:MOST_LETTERS]}..." if len(value) > MOST_LETTERS else value
        if value == frequent and len(names) > MOST_NAMES:
            parts.append(f"{shown} (the {len(names)} others)")
        else:
            parts.append(f"{shown} ({', '.join(names)})")
    return ", ".join(sorted(parts, key=lambda part: part.endswith(" others)")))
