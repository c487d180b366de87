"""CUB-200-2011 in its layout, with three random 12x8 photos of each species, and its archive on a loopback server."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data import cub
from metarun.data.cub import CUB
from metarun.data.files.splits import read_split

PLAN = EpisodePlan(EpisodeShape(5, 1, 1), EpisodeShape(5, 1, 2), 0, 0)
NAMES = sorted(name for part in read_split("cub").values() for name in part)


def make(root: Path, cache: Path) -> CUB:
    look = {"mean": (0,), "std": (1,), "augment": "none", "views": 1, "rotation": "none", "trainval": False}
    size = {"image_size": 8, "interpolation": "bicubic"}
    return CUB(PLAN, torch.device("cpu"), str(root), "crop", cache=str(cache / "cache"), **size, **look)


@pytest.fixture(scope="module")
def photos() -> dict[str, bytes]:
    """By path inside the archive; some of them are no photos of birds."""
    rng = np.random.default_rng(0)
    found = {}
    for name in NAMES:
        for i in range(3):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (12, 8, 3), np.uint8)).save(file, "PNG")
            found[f"CUB_200_2011/images/{name}/{name[4:]}_{i:04d}.png"] = file.getvalue()
    found[f"CUB_200_2011/segmentations/{NAMES[0]}/x.png"] = file.getvalue()
    found["CUB_200_2011/README"] = b"birds"
    return found


def pack(path: Path, files: dict[str, bytes]) -> str:
    """Writes a tar archive; returns its MD5 sum."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server on this machine hands out, and from which CUB is downloaded."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(cub, "URL", f"http://127.0.0.1:{server.server_port}/CUB_200_2011.tgz")
        yield folder
        server.shutdown()


def test_the_archive_is_downloaded_checked_unpacked_and_split_by_species(
    photos: dict[str, bytes], served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cub, "MD5", pack(served / "CUB_200_2011.tgz", photos))
    source = make(tmp_path / "data", tmp_path)
    assert source.info.facts["classes"] == {"train": 100, "val": 50, "test": 50}
    assert len(source.pixels) == 600
    (served / "CUB_200_2011.tgz").unlink()
    assert torch.equal(make(tmp_path / "data", tmp_path).pixels, source.pixels)


def test_an_archive_with_another_checksum_is_not_unpacked(
    photos: dict[str, bytes], served: Path, tmp_path: Path
) -> None:
    pack(served / "CUB_200_2011.tgz", photos)
    with pytest.raises(ValueError, match=r"download failed .*Put CUB_200_2011.tgz into .*METARUN_DATA"):
        make(tmp_path / "data", tmp_path)
    assert not (tmp_path / "data" / "cub" / "CUB_200_2011").exists()


def test_what_lies_under_a_name_like_the_sets_is_told_before_a_download_fails(served: Path, tmp_path: Path) -> None:
    assert served
    place = tmp_path / "data" / "Cub-200"
    place.mkdir(parents=True)
    (place / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"Cub-200 holds 1 \.txt, and nothing of it is read"):
        make(tmp_path / "data", tmp_path)


@pytest.mark.parametrize(
    ("name", "link"), [("../../evil.png", ""), ("CUB_200_2011/../../../evil.png", ""), ("CUB_200_2011/images", "/etc")]
)
def test_a_member_or_link_that_leads_out_of_the_folder_stops_the_unpacking(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, link: str
) -> None:
    with tarfile.open(served / "CUB_200_2011.tgz", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
        archive.addfile(member, io.BytesIO())
    monkeypatch.setattr(cub, "MD5", hashlib.md5((served / "CUB_200_2011.tgz").read_bytes()).hexdigest())
    with pytest.raises(ValueError, match=r"download failed .*(outside|absolute)"):
        make(tmp_path / "data", tmp_path)
    assert not list(tmp_path.rglob("evil.png"))
    assert not (tmp_path / "data" / "cub" / "CUB_200_2011").exists()


def test_half_an_unpacking_is_not_taken_for_the_birds(
    photos: dict[str, bytes], served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a killed process leaves it: some species, in the hidden folder."""
    half = tmp_path / "data" / "cub" / ".unpacking" / "CUB_200_2011" / "images" / NAMES[0]
    half.mkdir(parents=True)
    (half / "x.png").write_bytes(next(iter(photos.values())))
    monkeypatch.setattr(cub, "MD5", pack(served / "CUB_200_2011.tgz", photos))
    assert len(make(tmp_path / "data", tmp_path).pixels) == 600


def test_the_split_takes_every_second_species_and_the_others_in_turn() -> None:
    """Chen et al. number the species from 0: even trains, 1 modulo 4 validates, 3 modulo 4 tests."""
    for split, places in (("train", (0, 2)), ("val", (1,)), ("test", (3,))):
        assert read_split("cub")[split] == [name for i, name in enumerate(NAMES) if i % 4 in places]
    assert len(NAMES) == 200


@pytest.mark.parametrize(
    ("classes", "numbers"),
    [
        (None, "1 2\n3 4\n"),
        ("1 001.A\n2 002.B\n", "1 2\n"),
        ("1\n2\n", "1 2\n3 4\n"),
        ("1 001.A\n2 002.B\n", "1 x\n3 4\n"),
    ],
)
def test_attributes_that_cannot_be_read_are_told(tmp_path: Path, classes: str | None, numbers: str) -> None:
    """The names are gone, a line is, a name is, and a word stands for a number."""
    folder = tmp_path / "CUB_200_2011"
    (folder / "attributes").mkdir(parents=True)
    (folder / cub.ATTRIBUTES).write_text(numbers)
    if classes is not None:
        (folder / "classes.txt").write_text(classes)
    birds = CUB.__new__(CUB)
    birds.root = tmp_path
    with pytest.raises(ValueError, match=r"attributes of the species in .*CUB_200_2011 cannot be read"):
        birds.describe_classes()
    (folder / "classes.txt").write_text("1 001.A\n\n2 002.B\n")
    (folder / cub.ATTRIBUTES).write_text("1 2\n3 4\n")
    assert {name: row.tolist() for name, row in birds.describe_classes().items()} == {"001.A": [1, 2], "002.B": [3, 4]}
