"""mini-ImageNet and tiered-ImageNet in each form they are passed around in, with three 10x10 images a class."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.files.splits import SPLITS, read_split
from metarun.data.files.unpickle import unpickle
from metarun.data.imagenet import ImageNetTasks

PLAN = EpisodePlan(EpisodeShape(5, 1, 1), EpisodeShape(5, 1, 2), 0, 0)
OPTIONS = {
    "image_size": 10, "interpolation": "bicubic", "fit": "crop", "mean": (0,), "std": (1,), "augment": "none",
    "views": 1, "rotation": "none", "trainval": False,
}  # fmt: skip
Pixels = dict[str, NDArray[np.uint8]]


def make(root: Path, cache: Path, name: str = "mini_imagenet") -> ImageNetTasks:
    return ImageNetTasks(PLAN, torch.device("cpu"), name, str(root), cache=str(cache / "cache"), **OPTIONS)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Images [3, 10, 10, 3] of each class, in the order of the classes' names."""
    rng = np.random.default_rng(0)
    names = sorted(name for part in read_split("mini_imagenet").values() for name in part)
    return {name: rng.integers(0, 256, (3, 10, 10, 3), np.uint8) for name in names}


def png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def as_folders(folder: Path, pixels: Pixels) -> None:
    for split, names in read_split("mini_imagenet").items():
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for i, image in enumerate(pixels[name]):
                (folder / split / name / f"{name}{i:08d}.png").write_bytes(png(image))


def as_one_folder(folder: Path, pixels: Pixels) -> None:
    (folder / "images").mkdir(parents=True)
    for name, images in pixels.items():
        for i, image in enumerate(images):
            (folder / "images" / f"{name}{i:08d}.png").write_bytes(png(image))


def as_zip(folder: Path, pixels: Pixels) -> None:
    folder.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(f"{folder}.zip", "w") as archive:
        for name, images in pixels.items():
            for i, image in enumerate(images):
                archive.writestr(f"all/{name}/{i}.png", png(image))


def as_cache_pickles(folder: Path, pixels: Pixels) -> None:
    folder.mkdir(parents=True)
    for split, names in read_split("mini_imagenet").items():
        rows = {name: list(range(3 * c, 3 * c + 3)) for c, name in enumerate(names)}
        content = {"image_data": np.concatenate([pixels[name] for name in names]), "class_dict": rows}
        (folder / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content, protocol=2))


def as_split_pickles(folder: Path, pixels: Pixels) -> None:
    folder.mkdir(parents=True)
    for split, names in read_split("mini_imagenet").items():
        numbers = {name: c for c, name in enumerate(names)}
        data = np.concatenate([pixels[name] for name in names])
        content = {"data": data, "labels": [c for c in range(len(names)) for _ in range(3)], "catname2label": numbers}
        (folder / f"miniImageNet_category_split_{split}.pickle").write_bytes(pickle.dumps(content))


def as_parquet(folder: Path, pixels: Pixels) -> None:
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True)
    names = list(pixels)
    images = [{"bytes": png(image), "path": None} for name in names for image in pixels[name]]
    table = pyarrow.table({"image": images, "label": [c for c in range(100) for _ in range(3)]})
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), folder / "0.parquet")


FORMS = [as_folders, as_one_folder, as_zip, as_cache_pickles, as_split_pickles, as_parquet]


@pytest.mark.parametrize("write", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_pixels_class_by_class(
    write: Callable[[Path, Pixels], None], pixels: Pixels, tmp_path: Path
) -> None:
    write(tmp_path / "data" / "mini_imagenet", pixels)
    source = make(tmp_path / "data", tmp_path)
    expected = np.concatenate(list(pixels.values())).transpose(0, 3, 1, 2)
    assert torch.equal(source.pixels, torch.from_numpy(expected))
    assert source.info.facts["classes"] == {"train": 64, "val": 16, "test": 20}


def test_images_beside_packed_files_are_told_to_be_unread(
    pixels: Pixels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data" / "mini_imagenet"
    as_cache_pickles(folder, pixels)
    for i in range(3):
        (folder / f"more{i}.png").write_bytes(png(next(iter(pixels.values()))[0]))
    assert len(make(tmp_path / "data", tmp_path).pixels) == 300
    assert f"3 images in {folder} are not read beside its packed files" in caplog.text


def test_without_the_images_the_error_says_where_they_go_and_that_they_are_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no mini_imagenet in .*may not be downloaded.*METARUN_DATA"):
        make(tmp_path, tmp_path)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch evil",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini_imagenet").mkdir()
    (tmp_path / "mini_imagenet" / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"evil.pkl is not used: it would call \w+.system, which no data set needs"):
        make(tmp_path, tmp_path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html>not found</html>", "is no whole pickle|is not used"),
        (pickle.dumps({"a": np.zeros(1000)})[:500], "is no whole pickle|is not used"),
        (pickle.dumps({"train_x": 1}), "holds neither image_data and class_dict nor .*: train_x"),
        (pickle.dumps([1]), "holds neither .*: list"),
    ],
)
def test_a_damaged_or_unknown_pickle_is_said(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "mini_imagenet").mkdir()
    (tmp_path / "mini_imagenet" / "x.pkl").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        make(tmp_path, tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_are_unpickled_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    content = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "b": [1, "x", (2.5, None)], "c": np.int64(3)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    again = unpickle(tmp_path / "a.pkl")
    assert np.array_equal(again.pop("a"), content.pop("a"))
    assert again == content


def test_tiered_imagenet_takes_its_608_classes_out_of_a_larger_folder(tmp_path: Path) -> None:
    split = read_split("tiered_imagenet")
    assert [len(split[s]) for s in SPLITS] == [351, 97, 160]
    image = png(np.zeros((10, 10, 3), np.uint8))
    for name in [*(name for part in split.values() for name in part), "n99999999"]:
        (tmp_path / "tiered_imagenet" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "tiered_imagenet" / name / f"{name}_{i}.JPEG").write_bytes(image)
    source = make(tmp_path, tmp_path, "tiered_imagenet")
    assert source.info.facts["classes"] == {"train": 351, "val": 97, "test": 160}
    assert len(source.pixels) == 3 * 608
