"""Which files the source of some settings would read, without opening it, downloading anything or importing torch."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.settings.compose import compose

HOUSE = "metarun.data"


def find_files(data: Mapping[str, Any]) -> list[Path] | None:
    """Find the files or folders of the source that `data` describes; None for a source that reads none.

    Where the files of metarun/data/NAME.py lie is told by `find_files` of metarun/data/places/NAME.py. A source of
    one's own has a static method of that name. Its parameters are settings of the source.
    """
    find = _get_finder(data["_target_"])
    return find(**{key: data[key] for key in inspect.signature(find).parameters}) if find else None


def read_source_settings(file: Path, config: DictConfig, own: list[Path]) -> Mapping[str, Any]:
    """Read the settings of the source of a YAML file, composed with others only if it has no source of its own.

    Args:
        config: settings of a run, to which those of the file may refer.
        own: folders of YAML files of one's own.
    """
    told: Any = OmegaConf.load(file)
    node = told.get("data", told)
    if "_target_" not in node:
        return compose([f"data={file.stem}"], own).data  # type: ignore[no-any-return]
    return OmegaConf.create({**config, "data": node}).data  # type: ignore[no-any-return]


def _get_finder(target: str) -> Callable[..., list[Path]] | None:
    package, _, module = target.rpartition(".")[0].rpartition(".")
    if package != HOUSE:
        return getattr(get_object(target), "find_files", None)
    places = f"{HOUSE}.places.{module}"
    return importlib.import_module(places).find_files if find_spec(places) else None
