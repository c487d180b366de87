"""Layouts in which sets of images circulate, as small files: what is right of each, and what metarun makes of it.

`python tests/layouts.py` prints the table of all of them. Sets have six, five and five classes of two images of one
colour, which tells class and image. The known sets are in layouts_known.py, people's own in layouts_own.py, and those
that were found later in layouts_more.py.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.files import download, splits
from metarun.data.files.splits import SPLITS

PLAN = EpisodePlan(EpisodeShape(2, 1, 1), EpisodeShape(2, 1, 1), 0, 0)
N = {"train": 6, "val": 5, "test": 5}
"""Classes of the splits, which are not of one size by accident."""

IMAGES = 2
"""Images of a class."""

LISTS = splits.FOLDER
Truth = Mapping[str, Sequence[int]]
"""The numbers of the classes of each split; of a split that is drawn, `all` of them."""


class Layout(NamedTuple):
    """A layout.

    Attributes:
        source: the name of the data set, as in data=NAME.
        name: whose it is.
        write: writes it into a folder; returns the settings that are typed besides the folder.
        truth: what is right; empty if it is right to refuse.
        refused: what a refusal must say, as a pattern.
        warned: what must be said of a set that is read.
    """

    source: str
    name: str
    write: Callable[[Path], dict[str, Any] | None]
    truth: Truth
    refused: str
    warned: str


LAYOUTS: list[Layout] = []
BY_SPLIT: Truth = {"train": range(6), "val": range(6, 11), "test": range(11, 16)}
DRAWN: Truth = {"all": range(16)}


def layout(
    source: str, name: str, *, right: Truth | None = None, refused: str = "", warned: str = ""
) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Note a layout that the function below writes."""

    def note(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
        known = {} if refused else BY_SPLIT if source != "folder" else DRAWN
        LAYOUTS.append(Layout(source, name, write, known if right is None else right, refused, warned))
        return write

    return note


def colour(c: int, i: int) -> tuple[int, int, int]:
    return 10 * c, 16 * c + i, (70 * c + 13) % 256


def pixels(classes: Sequence[int], side: int = 4) -> NDArray[np.uint8]:
    """Images [classes * IMAGES, side, side, 3]."""
    colours = [colour(c, i) for c in classes for i in range(IMAGES)]
    return np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), side, side, 3)).copy()


def png(c: int, i: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour(c, i)).convert(mode).save(file, "PNG")
    return file.getvalue()


def put(path: Path, data: bytes | str = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def names_of(name: str) -> dict[str, list[str]]:
    """Classes of the shortened split of a known set."""
    words = {part: (LISTS / f"{name}_{part}.txt").read_text().split() for part in SPLITS}
    return {part: labels[: N[part]] for part, labels in words.items()}


def numbered(name: str) -> list[tuple[str, str, int]]:
    """Part, class and number of the class, of each class of a known set."""
    flat = [(part, label) for part, labels in names_of(name).items() for label in labels]
    return [(part, label, c) for c, (part, label) in enumerate(flat)]


def parts_of(name: str) -> Iterator[tuple[str, list[str], list[int]]]:
    """Each part with its classes and their numbers."""
    for part in SPLITS:
        yield part, [label for p, label, _ in numbered(name) if p == part], list(BY_SPLIT[part])


class Outcome(NamedTuple):
    """What became of a layout: right, wrong, refused in words that help or not, or a traceback; and what was said."""

    kind: str
    said: str


@contextmanager
def short_lists() -> Iterator[None]:
    """Let the shipped splits have few classes, and let nothing be downloaded."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name in {file.name.rsplit("_", 1)[0] for file in LISTS.glob("*_train.txt")}:
            for part, labels in names_of(name).items():
                (Path(folder) / f"{name}_{part}.txt").write_text("\n".join(labels))
        patch.setattr(splits, "FOLDER", Path(folder))
        patch.setattr(download, "FileLock", _refuse_download)
        yield


def _refuse_download(_: Path) -> Any:
    raise RuntimeError("nothing is downloaded in tests")


def try_layout(one: Layout, folder: Path, warnings: Callable[[], str]) -> Outcome:
    """Write a layout into `folder`, open it, and compare what is read with what is right.

    Args:
        warnings: tells what was logged.
    """
    root = folder / "d"
    root.mkdir()
    typed = one.write(root) or {}
    before = sorted(root.rglob("*"))
    try:
        source = open_source(one.source, root, folder / "cache", typed)
    except ValueError as error:
        if sorted(root.rglob("*")) != before:
            return Outcome("wrong", f"left behind by a refusal: {set(root.rglob('*')) - set(before)}")
        helps = bool(one.refused and re.search(one.refused, str(error), re.DOTALL))
        return Outcome("refused" if helps else "refused, no help", str(error))
    except Exception as error:
        return Outcome("traceback", f"{type(error).__name__}: {error}")
    found = {part: _read_classes(source, part) for part in SPLITS}
    truth = {part: sorted([colour(c, i) for i in range(IMAGES)] for c in cs) for part, cs in one.truth.items()}
    if "all" in truth:
        found = {"all": sorted(classes for part in SPLITS for classes in found[part])}
    if found != truth:
        return Outcome("wrong", f"classes: {[(p, len(c), sum(map(len, c))) for p, c in found.items()]}")
    if not re.search(one.warned, warnings(), re.DOTALL):
        return Outcome("wrong", f"not said: {one.warned}; but {warnings()}")
    return Outcome("right", "")


def _read_classes(source: Any, part: str) -> list[list[tuple[int, ...]]]:
    """The colours of the images of each class of a split."""
    ends = [source.pixels[a:b, :, 0, 0].tolist() for a, b in zip(source._starts, source._starts[1:], strict=False)]
    return sorted(sorted(tuple(one) for one in ends[c]) for c in source._classes[part])


def open_source(name: str, root: Path, cached: Path, typed: Mapping[str, Any]) -> Any:
    """Open the source that `data=NAME` stands for on files in `root`."""
    from metarun.settings.resolve import find_target
    from metarun.settings.schema import BUILD_KEYS

    node = _compose(name)
    settings = {key: node[key] for key in node if key not in BUILD_KEYS["data"] and not key.startswith("_")}
    size = {"image_size": 4, "channels": 3} if "channels" in node else {"image_size": 4}
    place = {"path": str(root)} if name == "folder" else {"root": str(root)}
    settings |= {"cache": str(cached), "interpolation": "nearest", **size, **place, **typed}
    settings |= {"invert": False, "rotation": "none"} if name == "omniglot" else {}
    return find_target(node)(PLAN, torch.device("cpu"), **settings)


@cache
def _compose(name: str) -> Any:
    from metarun.settings.compose import compose

    return compose([f"data={name}"]).data


def main() -> None:
    import collections
    import logging

    counts: dict[str, int] = collections.Counter()
    log = io.StringIO()
    logging.basicConfig(stream=log, level=logging.INFO)
    with short_lists():
        for one in LAYOUTS:
            log.seek(0)
            log.truncate()
            with tempfile.TemporaryDirectory() as folder:
                kind, said = try_layout(one, Path(folder), log.getvalue)
                said = " ".join(said.replace(folder, "").split())
            counts[kind] += 1
            print(f"{one.source:16} {one.name:44} {kind:17} {said[: int(sys.argv[1]) if sys.argv[1:] else 130]}")
    print(sum(counts.values()), dict(counts))


if __name__ == "__main__":
    sys.modules["layouts"] = sys.modules["__main__"]
    import layouts_more  # noqa: F401

    main()
