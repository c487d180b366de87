"""results.json, the results of later tests and the lines of metrics.jsonl: read as they are, whoever wrote them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Ge, Le
from typing_extensions import TypedDict  # that of typing is not enough for pydantic before Python 3.12

SEAL = "content_sha256"
"""Field with the hash of all others; older files have none."""


class Score(TypedDict):
    """A score over the test tasks."""

    mean: float
    ci95: NotRequired[float]
    n_tasks: NotRequired[int]
    interval: NotRequired[str]


class Git(TypedDict):
    commit: str
    dirty: bool


class Paper(TypedDict):
    """A number of a paper, as the setting `paper` has it."""

    value: float
    ci95: NotRequired[float | None]
    source: NotRequired[str | None]


class Results(TypedDict, total=False):
    """The fields that somebody reads; there may be others."""

    status: str
    error: str | None
    algo: str
    data: str
    backbone: str
    bn: str
    answers: str
    engine: str
    device: str
    seed: int
    n_way: int | str | None
    k_shot: int | str | None
    n_query: int | None
    query: str | None
    train: dict[str, Any]
    test: dict[str, Score] | None
    val: dict[str, float]
    directions: dict[str, Literal["higher", "lower"]]
    best_step: int | None
    saved_step: int | None
    steps: int
    drawn: dict[str, int]
    seconds: dict[str, Annotated[float, Ge(0), Le(1e10)]]
    tasks_per_second: float | None
    parameters: int
    processes: int
    trainval: bool
    images: str | None
    split_sha256: str
    episode_sha256: str
    settings_sha256: str | None
    files_sha256: dict[str, str]
    source: dict[str, Any]
    git: Git | None
    versions: dict[str, str]
    overrides: list[str]
    wandb_id: str | None
    paper: Paper | None


class Trained(TypedDict):
    """What a run was trained on, as a later test of it says."""

    data: str
    n_way: int | str | None
    k_shot: int | str | None
    bn: str
    trainval: bool


class Evaluation(TypedDict):
    """The fields of a later test that somebody reads; there are others."""

    algo: str
    backbone: str | None
    seed: int
    data: str
    n_way: int | str | None
    k_shot: int | str
    n_query: int
    query: NotRequired[str | None]
    bn: str
    answers: NotRequired[str]
    changes: NotRequired[dict[str, Any]]
    trained: Trained
    test: dict[str, Score]
    images: NotRequired[str | None]
    split_sha256: str
    scores_sha256: NotRequired[str]
    seen: list[str]


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the seal, by which a change is noticed: of a person, or of a disk."""
    kept = {key: value for key, value in content.items() if key != SEAL}
    return kept | {SEAL: _hash(kept)}


def read_results_file(path: Path, kind: type = Results) -> tuple[dict[str, Any], str | None]:
    """Read a file of `kind`, Results or Evaluation.

    Returns: its content, empty if it is missing or not as it should be, and then what is wrong with it.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}, None
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"{path} cannot be read: {error}"
    if problem := find_wrong_type(found, kind):
        return {}, f"{path} is malformed: {problem}"
    if (told := found.get(SEAL)) and told != _hash({key: value for key, value in found.items() if key != SEAL}):
        return {}, f"{path} was changed after it was written"
    return found, None


def read_metrics_line(line: str | bytes) -> dict[str, Any] | None:
    """Read a line of metrics.jsonl: its step, its split and its numbers; None if it was cut or is no such line."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(found, dict) and isinstance(found.get("step"), int) and isinstance(found.get("split"), str)):
        return None
    return {key: value for key, value in found.items() if key == "split" or isinstance(value, int | float)}


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def find_wrong_type(results: Any, kind: type = Results) -> str | None:
    """Describe the first field of a wrong type, if any."""
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(results, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return None


@functools.cache
def _adapter(kind: type) -> Any:
    """What checks types; imported when it is needed, for it takes a tenth of a second."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
