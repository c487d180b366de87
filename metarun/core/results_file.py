"""results.json: the types of its fields, and reading it, whoever wrote it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # that of typing is not enough for pydantic before Python 3.12


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
    engine: str
    device: str
    seed: int
    n_way: int | None
    k_shot: int | None
    n_query: int | None
    train: dict[str, Any]
    test: dict[str, Score] | None
    val: dict[str, float]
    directions: dict[str, Literal["higher", "lower"]]
    best_step: int | None
    saved_step: int | None
    steps: int
    seconds: dict[str, float]
    tasks_per_second: float | None
    parameters: int
    processes: int
    trainval: bool
    split_sha256: str
    episode_sha256: str
    settings_sha256: str | None
    source: dict[str, Any]
    git: Git | None
    versions: dict[str, str]
    overrides: list[str]
    wandb_id: str | None
    paper: Paper | None


def read_results_file(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read results.json; empty if it is missing or not as it should be, and then what is wrong with it."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}, None
    except (OSError, ValueError) as error:
        return {}, f"{path} cannot be read: {error}"
    if problem := find_wrong_type(found):
        return {}, f"{path} is malformed: {problem}"
    return found, None


def find_wrong_type(results: Any) -> str | None:
    """Describe the first field of a wrong type, if any."""
    from pydantic import ValidationError

    try:
        _adapter().validate_python(results, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return None


@functools.cache
def _adapter() -> Any:
    """What checks types; imported when it is needed, for it takes a tenth of a second."""
    from pydantic import TypeAdapter

    return TypeAdapter(Results)
