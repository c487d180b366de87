"""CIFAR-FS and FC100 on a CIFAR-100 of the real class names and 20 random images a class."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR100

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.cifar100 import CIFAR100Tasks
from metarun.data.files.splits import read_split

PLAN = EpisodePlan(EpisodeShape(5, 1, 1), EpisodeShape(5, 1, 2), 0, 0)
OPTIONS: dict[str, object] = {
    "image_size": 32, "interpolation": "bicubic", "mean": (0,), "std": (1,), "augment": "none", "views": 1,
    "rotation": "none", "trainval": False, "name": "cifar_fs",
}  # fmt: skip
PARTS = {"train": 15, "test": 5}
Images = dict[str, dict[str, list[tuple[str, NDArray[np.uint8]]]]]


@pytest.fixture(scope="module")
def images() -> Images:
    """By part and class: file name and pixels [32, 32, 3]."""
    rng = np.random.default_rng(0)
    names = sorted(name for part in read_split("cifar_fs").values() for name in part)
    return {
        part: {
            name: [
                (f"{name}_s_{rng.integers(10**6):06d}.png", rng.integers(0, 256, (32, 32, 3), np.uint8))
                for _ in range(n)
            ]
            for name in names
        }
        for part, n in PARTS.items()
    }


@pytest.fixture(scope="module")
def zipped(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cifar_fs/train.zip, val.zip and test.zip, with the pictures as PNG."""
    root = tmp_path_factory.mktemp("zipped")
    (root / "cifar_fs").mkdir()
    for split, names in read_split("cifar_fs").items():
        with zipfile.ZipFile(root / "cifar_fs" / f"{split}.zip", "w") as archive:
            for part, classes in images.items():
                for name in names:
                    for file, pixels in classes[name]:
                        png = io.BytesIO()
                        Image.fromarray(pixels).save(png, "PNG")
                        archive.writestr(f"{split}/{name}/{part}_{file}", png.getvalue())
    return root


@pytest.fixture
def server(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of cifar-100-python.tar.gz on this machine, whose checksums torchvision is made to expect."""
    names = sorted(images["train"])
    rng = np.random.default_rng(1)
    content: dict[str, object] = {"meta": {"fine_label_names": names}}
    for part, classes in images.items():
        rows = [(label, *item) for label, name in enumerate(names) for item in classes[name]]
        order = rng.permutation(len(rows))
        content[part] = {
            "fine_labels": [rows[i][0] for i in order],
            "filenames": [rows[i][1] for i in order],
            "data": np.stack([rows[i][2].transpose(2, 0, 1).reshape(-1) for i in order]),
        }
    served = tmp_path / "served"
    served.mkdir()
    sums = {}
    with tarfile.open(served / "cifar-100-python.tar.gz", "w:gz") as archive:
        for file, values in content.items():
            data = pickle.dumps(values, protocol=2)
            sums[file] = hashlib.md5(data).hexdigest()
            member = tarfile.TarInfo(f"cifar-100-python/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5((served / "cifar-100-python.tar.gz").read_bytes()).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(served))) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR100, "url", f"http://127.0.0.1:{httpd.server_port}/cifar-100-python.tar.gz")
        yield
        httpd.shutdown()


def make(root: Path, cache: Path, **changes: object) -> CIFAR100Tasks:
    return CIFAR100Tasks(PLAN, torch.device("cpu"), root=str(root), cache=str(cache), **(OPTIONS | changes))


def test_cifar_fs_has_64_16_and_20_classes_and_the_pixels_of_its_files(
    images: Images, zipped: Path, tmp_path: Path
) -> None:
    source = make(zipped, tmp_path)
    assert source.info.facts["classes"] == {"train": 64, "val": 16, "test": 20}
    assert source.info.input_shape == (3, 32, 32)
    known = {
        pixels.tobytes(): name for classes in images.values() for name, items in classes.items() for _, pixels in items
    }
    batch = source.batch("test", np.arange(4))
    seen = (255 * batch.support.x).round().to(torch.uint8).flatten(0, 1).permute(0, 2, 3, 1)
    assert {known[image.numpy().tobytes()] for image in seen} <= set(read_split("cifar_fs")["test"])


def test_the_download_is_checked_and_gives_the_same_tasks_as_the_zip_files(
    zipped: Path, tmp_path: Path, server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded, archived = make(tmp_path / "new", tmp_path), make(zipped, tmp_path)
    assert torch.equal(downloaded.pixels, archived.pixels)
    monkeypatch.setattr(CIFAR100, "url", "http://127.0.0.1:1/none")
    assert torch.equal(make(tmp_path / "new", tmp_path).pixels, archived.pixels)
    (tmp_path / "new" / "cifar100" / "cifar-100-python" / "train").write_bytes(pickle.dumps("other"))
    with pytest.raises(ValueError, match="cifar-100-python is not what was published; delete it"):
        make(tmp_path / "new", tmp_path)


def test_files_that_were_exchanged_for_others_of_their_size_are_read_anew(tmp_path: Path, server: None) -> None:
    """The first two images get each other's label; each time the sum that torchvision expects is that of the file."""
    make(tmp_path / "new", tmp_path)
    file = tmp_path / "new" / "cifar100" / "cifar-100-python" / "train"
    content, pixels, sizes = pickle.loads(file.read_bytes()), [], []
    labels = content["fine_labels"]
    other = next(place for place, label in enumerate(labels) if label != labels[0])
    for second in range(2):
        labels[0], labels[other] = labels[other], labels[0]
        file.write_bytes(pickle.dumps(content, protocol=2))
        os.utime(file, (1_700_000_000 + second,) * 2)
        CIFAR100.train_list[0][1] = hashlib.md5(file.read_bytes()).hexdigest()
        sizes.append(file.stat().st_size)
        pixels.append(make(tmp_path / "new", tmp_path).pixels.clone())
    assert sizes[0] == sizes[1]
    assert not torch.equal(*pixels)


def test_a_download_with_another_checksum_is_never_unpickled(
    tmp_path: Path, server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR100, "tgz_md5", "0" * 32)
    monkeypatch.setattr("metarun.data.cifar100.unpickle", lambda path: pytest.fail("unpickled"))
    with pytest.raises(ValueError, match=r"download failed .*cifar-100-python.tar.gz.*METARUN_DATA"):
        make(tmp_path / "new", tmp_path)


def test_inputs_are_normalised_channel_by_channel(zipped: Path, tmp_path: Path) -> None:
    """(x - mean) / std, worked out from the plain inputs."""
    plain = make(zipped, tmp_path).batch("val", np.arange(2)).query.x
    batch = make(zipped, tmp_path, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.5)).batch("val", np.arange(2))
    for channel, (mean, std) in enumerate(((0.5, 0.1), (0.4, 0.2), (0.3, 0.5))):
        assert torch.allclose(batch.query.x[:, :, channel], (plain[:, :, channel] - mean) / std, atol=1e-6)


def test_trainval_adds_the_validation_classes_to_training_and_changes_the_split_hash(
    zipped: Path, tmp_path: Path
) -> None:
    plain, both = make(zipped, tmp_path), make(zipped, tmp_path, trainval=True)
    assert both.info.facts["classes"] == {"train": 80, "val": 16, "test": 20}
    assert (plain.info.facts["trainval"], both.info.facts["trainval"]) == (False, True)
    assert plain.info.split_sha256 != both.info.split_sha256
    assert plain.fingerprint("test", 9) == both.fingerprint("test", 9)


def test_fc100_splits_the_same_cached_images_by_superclass(
    zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = make(zipped, tmp_path).pixels
    monkeypatch.setattr("metarun.data.cifar100.read_set", lambda *places: pytest.fail("images were read again"))
    source = make(zipped, tmp_path, name="fc100")
    assert source.info.facts["classes"] == {"train": 60, "val": 20, "test": 20}
    assert torch.equal(source.pixels, pixels)


def test_the_shipped_splits_of_cifar_100_are_disjoint_and_complete() -> None:
    for split, sizes in (("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20))):
        parts = read_split(split)
        assert tuple(map(len, parts.values())) == sizes
        assert len({name for names in parts.values() for name in names}) == 100
