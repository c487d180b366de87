"""Classes that a model is told of by descriptions: vectors, or their names, in place of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarun.core.errors import ConfigError, wrong_input
from metarun.core.tasks import Examples, SourceInfo
from metarun.data.files.class_names import NAMES, tokenize_names
from metarun.data.files.descriptions import read_descriptions
from metarun.data.files.own import read_layout
from metarun.data.files.text_file import read_text


def read_classes(place: Path, data: Mapping[str, Any]) -> Any:
    """Read the descriptions of classes as `take_descriptions` takes them.

    Args:
        place: a .csv, .tsv or .npz file of vectors, see metarun/data/files/descriptions.py; of names, a text file with
            one in each line, or what has a folder of images for each class, whose names count.
        data: settings of the run's data.
    Raises: ValueError if it cannot be read.
    """
    if data["descriptions"] != NAMES:
        return read_descriptions(str(place), "")
    if place.suffix == ".txt":
        return [line.strip() for line in read_text(place).splitlines() if line.strip()]
    return sorted(read_layout(place).classes)


def take_descriptions(given: Any, data: Mapping[str, Any], info: SourceInfo) -> tuple[list[str], Examples]:
    """Return the names of classes, and the support set that their descriptions are.

    Args:
        given: a vector [D] or several [P, D] of each class, by name; of names, these alone.
        data, info: settings of the run's data, and what is known of it.
    Raises: ConfigError for anything else.
    """
    if info.support_scale is None:
        raise ConfigError("this run of an older metarun does not say how its descriptions are scaled: train it again")
    mean, std = (np.array(side) for side in info.support_scale)
    if data["descriptions"] == NAMES:
        names = _list_names(given)
        with wrong_input():
            known: Mapping[str, Any] = tokenize_names(names, data["templates"])
    else:
        if not isinstance(given, Mapping):
            raise ConfigError(f'the run tells classes by descriptions: {{"fox": a vector of {len(mean)} numbers, ...}}')
        names, known = list(given), given
    vectors = [_check_vectors(name, known[name], len(mean)) for name in names]  # [P, D] of each class
    x = (np.concatenate([np.empty((0, len(mean))), *vectors]) - mean) / std
    turns = np.eye(1, info.support_shape[0] - len(mean)) if info.support_shape else np.empty((1, 0))  # by none
    x = np.concatenate([x, np.broadcast_to(turns, (len(x), turns.shape[1]))], 1)
    y = torch.arange(len(names)).repeat_interleave(torch.tensor([len(one) for one in vectors], dtype=torch.long))
    return names, Examples(torch.from_numpy(x).to(torch.get_default_dtype()), y)


def _list_names(given: Any) -> list[str]:
    names = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ConfigError('the run tells classes by their names: ["fox", "owl"], each once')
    return names


def _check_vectors(name: str, given: Any, size: int) -> Any:
    """Return the vectors [P, size] of a class."""
    try:
        vectors = np.atleast_2d(np.asarray(given, np.float64))
    except (TypeError, ValueError):
        raise ConfigError(f"the description of {name} is no vector of numbers") from None
    if vectors.ndim != 2 or vectors.shape[1] != size or not len(vectors) or not np.isfinite(vectors).all():
        raise ConfigError(
            f"the description of {name} has the shape {list(np.shape(given))}; those of the run are {size} finite "
            f"numbers, or several such vectors"
        )
    return vectors
