"""torchvision's sets as targets: Fashion-MNIST with eight random pictures a class, from a loopback server."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.datasets import FashionMNIST

from metarun.core.errors import ConfigError
from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.images import Rotation
from metarun.data.torchvision_sets import Torchvision

PLAN = EpisodePlan(EpisodeShape(60, 1, 1), EpisodeShape(5, 1, 2), 0, 0)
RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat(np.arange(10, dtype=np.uint8), 8))
PICTURES = RNG.integers(0, 256, (80, 28, 28), np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array in MNIST's file format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "served"
    folder.mkdir()
    resources = []
    for name, _ in FashionMNIST.resources:
        (folder / name).write_bytes(gzip.compress(idx(PICTURES if "images" in name else LABELS)))
        resources.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield folder
        server.shutdown()


def make(
    root: Path,
    dataset: str = "FashionMNIST",
    transpose: bool = False,
    split: str | None = None,
    rotation: Rotation = "none",
    trainval: bool = False,
    plan: EpisodePlan = PLAN,
) -> Torchvision:
    where = str(root / "data"), str(root / "cache")
    look = 28, 1, "bicubic", (0,), (1,)
    cpu, options = torch.device("cpu"), {"train": False}
    return Torchvision(plan, cpu, dataset, options, *where, split, rotation, transpose, *look, trainval)


def test_all_classes_are_for_testing_and_none_for_training(served: Path, tmp_path: Path) -> None:
    source = make(tmp_path)
    assert source.info.facts["classes"] == {"train": 0, "val": 0, "test": 10}
    batch = source.batch("test", np.arange(3))
    stored = {picture.tobytes(): label for picture, label in zip(PICTURES, LABELS, strict=True)}
    for task in range(3):
        seen = (255 * batch.query.x[task, :, 0]).round().to(torch.uint8).numpy()
        labels = [stored[image.tobytes()] for image in seen]
        pairs = {(int(y), label) for y, label in zip(batch.query.y[task], labels, strict=True)}
        assert len(pairs) == 5  # one class of Fashion-MNIST behind each label of the task
    with pytest.raises(ConfigError, match=r"no classes to train on: .* data\.split=random splits"):
        next(source.episodes("train", 0, 1))


TWO_WAYS = EpisodePlan(EpisodeShape(4, 1, 2), EpisodeShape(2, 1, 2), 0, 0)


def test_classes_that_are_split_at_random_train_too_and_four_times_as_many_are_turned(
    served: Path, tmp_path: Path
) -> None:
    source = make(tmp_path, split="random", plan=TWO_WAYS)
    assert source.info.facts["classes"] == {"train": 6, "val": 2, "test": 2}
    assert not source.classes["train"] & (source.classes["val"] | source.classes["test"])
    assert all(name.startswith("FashionMNIST/") for part in source.classes.values() for name in part)
    assert next(source.episodes("train", 0, 3)).query.x.shape == (3, 8, 1, 28, 28)
    again = make(tmp_path, split="random", plan=replace(TWO_WAYS, test=EpisodeShape(2, 3, 1), seed=9))
    assert again.classes == source.classes  # whatever tasks are drawn
    turned = make(tmp_path, split="random", plan=TWO_WAYS, rotation="class", trainval=True)
    assert turned.info.facts["classes"] == {"train": 32, "val": 8, "test": 8}


def test_classes_are_split_as_a_file_says_and_a_class_that_is_none_is_told_with_some_that_are(
    served: Path, tmp_path: Path
) -> None:
    file = tmp_path / "split.txt"
    trained = ["Ankle boot", "Bag", "Coat", "Dress", "Pullover", "Shirt"]
    lines = [f"train {name}" for name in trained] + ["val Sandal", "val Sneaker", "test Trouser", "test T-shirt/top"]
    file.write_text("\n".join(lines))
    source = make(tmp_path, split=str(file), plan=TWO_WAYS)
    assert source.classes["train"] == {f"FashionMNIST/{name}" for name in trained}
    assert {name for task in range(9) for name in source.labels("test", task)} == {"Trouser", "T-shirt/top"}
    file.write_text("\n".join(lines).replace("Trouser", "Trousers"))
    with pytest.raises(ValueError, match=r"1 classes .* have no images, Trousers among them; classes .* are \S+"):
        make(tmp_path, split=str(file), plan=TWO_WAYS)
    with pytest.raises(ValueError, match=r"data.split=vinyals is not random, and no file"):
        make(tmp_path, split="vinyals", plan=TWO_WAYS)


def test_rows_and_columns_are_swapped_where_the_files_have_them_swapped(served: Path, tmp_path: Path) -> None:
    assert torch.equal(make(tmp_path, transpose=True).pixels, make(tmp_path).pixels.transpose(2, 3))


def test_a_download_that_was_cut_off_or_changed_is_never_used(served: Path, tmp_path: Path) -> None:
    name = FashionMNIST.resources[2][0]
    whole = (served / name).read_bytes()
    (served / name).write_bytes(whole[:-50])
    with pytest.raises(ValueError, match=r"no FashionMNIST in .*download failed .*METARUN_DATA"):
        make(tmp_path)
    assert not (tmp_path / "data").exists()
    (served / name).write_bytes(whole)
    assert len(make(tmp_path).pixels) == 80


def test_what_torchvision_unpacked_before_is_used_and_what_is_not_whole_is_told(
    served: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = make(tmp_path).pixels
    (folder,) = (tmp_path / "data").iterdir()
    (folder / "data" / "FashionMNIST").rename(tmp_path / "data" / "FashionMNIST")
    shutil.rmtree(folder)
    shutil.rmtree(served)
    assert torch.equal(make(tmp_path).pixels, pixels)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["FashionMNIST"]
    (tmp_path / "data" / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(ValueError, match=r"download failed .*FashionMNIST holds 4 .gz, 3 .*nothing of it is read"):
        make(tmp_path)
    assert "nothing of it is read" in caplog.text


def test_a_set_that_torchvision_does_not_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.dataset=FashionNIST is not in torchvision.datasets"):
        make(tmp_path, "FashionNIST")
