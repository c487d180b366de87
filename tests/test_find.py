"""Files of somebody's folders and archives: what is no image, is not there, is too large, or has changed."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import lay_out, make, picture

from metarun.data.files import find, image_file
from metarun.data.files.find import find_places, list_files, list_images, make_stamp
from metarun.data.folder import Folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "photos", {".": range(8)})


def n_classes(source: Folder) -> int:
    return sum(source.info.facts["classes"].values())


@pytest.mark.parametrize(
    "hidden",
    ["@eaDir", "__MACOSX", ".git", ".thumbnails", "#recycle", "#snapshot", "$RECYCLE.BIN", "lost+found", "c0/@eaDir",
     "System Volume Information"],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [False, True])
def test_folders_that_systems_make_are_no_classes(hidden: str, zipped: bool, photos: Path, tmp_path: Path) -> None:
    (photos / hidden).mkdir()
    picture(0).save(photos / hidden / "thumb.png")
    place = zip_up(photos, tmp_path / "zipped.zip") if zipped else photos
    assert n_classes(make(place, tmp_path)) == 8
    assert not [file for file in list_images(place) if "thumb" in file.path]


@pytest.mark.parametrize("ending", ["jfif", "JPE", "apng", "dib", "pnm", "j2k", "tga"])
def test_images_with_rarer_endings_are_read(ending: str, photos: Path, tmp_path: Path) -> None:
    forms = {"jfif": "JPEG", "JPE": "JPEG", "apng": "PNG", "dib": "DIB", "pnm": "PPM", "j2k": "JPEG2000", "tga": "TGA"}
    picture(0).save(photos / "c0" / f"more.{ending}", forms[ending])
    assert len(make(photos, tmp_path).pixels) == 33


def test_files_that_are_no_images_are_counted(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("c0/a.heic", "c1/b.HEIC", "c1/c.dcm", "c2/raw", "list.csv", ".hidden", "c0/.DS_Store"):
        (photos / name).write_bytes(b"x")
    make(photos, tmp_path)
    assert "are no images by their names are left out: 2 .heic, 1 .dcm, 1 without an ending" in caplog.text


def test_where_there_are_no_images_it_is_said_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "c0").mkdir()
    for i in range(3):
        (tmp_path / "c0" / f"{i}.heic").write_bytes(b"x")
    np.savez(tmp_path / "set.npz", images=np.zeros(3), labels=np.zeros(3))
    why = r"set.npz: its images are float64 \[3\].*: they are to be uint8.*; known are .png .* Understood are "
    held = r"there are no images in .*; it holds 3 .heic, 1 .npz; .heic are to be saved as JPEG or PNG; "
    with pytest.raises(ValueError, match=held + why):
        make(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=rf"there are no images in .*set.npz; it holds 1 .npz; {why}"):
        make(tmp_path / "set.npz", tmp_path)


def tar_up(photos: Path, path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        tar.add(photos, "./photos")
    return path


def cut_tar(photos: Path, mode: str) -> bytes:
    data = tar_up(photos, photos.parent / "whole", mode).read_bytes()
    return data[: len(data) // 2]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_archive_is_read_as_its_folder_is(mode: str, photos: Path, tmp_path: Path) -> None:
    (photos / ".hidden").mkdir()
    (photos / ".hidden" / "thumb.png").write_bytes(b"x")
    place = tar_up(photos, tmp_path / "photos.tar", mode)
    with tarfile.open(place, mode.replace("w", "r")) as tar:
        assert len([one for one in tar if one.isfile()]) == 33
    assert torch.equal(make(place, tmp_path).pixels, make(photos, tmp_path).pixels)
    files = list_files(place)
    assert [file.read() for file in reversed(files)] == [file.read() for file in files][::-1]
    assert files[0].open is not None
    assert files[0].open().read() == files[0].read()


def test_a_hard_link_in_a_tar_archive_is_the_file_and_a_link_elsewhere_is_left_out(
    photos: Path, tmp_path: Path
) -> None:
    os.link(photos / "c0" / "0.png", photos / "c0" / "9.png")
    (photos / "c0" / "away.png").symlink_to("/etc/passwd")
    place = tar_up(photos, tmp_path / "photos.tar")
    files = {file.path: file for file in list_files(place)}
    assert len(files) == 33
    assert files["photos/c0/9.png"].read() == files["photos/c0/0.png"].read()


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png"])
def test_a_tar_archive_that_leads_out_of_itself_is_refused(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match="leads out of it; do not trust this archive"):
        list_files(tmp_path / "p.tar")


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("p.tar.gz", lambda path, photos: path.write_bytes(cut_tar(photos, "w:gz")), "z is not a whole tar .*get"),
        ("p.tar", lambda path, photos: path.write_bytes(cut_tar(photos, "w")), "p.tar is not a whole tar .*; get it"),
        ("p.7z", lambda path, photos: path.write_bytes(b"7z\xbc\xaf'\x1c"), "p.7z is a 7z archive: unpack it"),
        ("p.rar", lambda path, photos: path.write_bytes(b"Rar!\x1a\x07"), "p.rar is a RAR archive: unpack it"),
        ("p.tar.zst", lambda path, photos: path.write_bytes(b"(\xb5/\xfd\x00"), "zst is packed by zstd: unpack it"),
        ("p.zip", lambda path, photos: path.write_bytes(b"PK\x03\x04"), "p.zip is not a whole zip file .*; get it"),
        ("p.csv", lambda path, photos: path.write_text("a,b"), "p.csv is neither a folder nor an archive"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_in_place_is_named_with_what_to_do(
    name: str, write: Callable[[Path, Path], object], said: str, photos: Path, tmp_path: Path
) -> None:
    write(tmp_path / name, photos)
    with pytest.raises(ValueError, match=said):
        make(tmp_path / name, tmp_path)


@pytest.mark.parametrize("target", ["../.git/annex/objects/x", "/nowhere/x.png", "own.png"])
def test_a_link_that_leads_nowhere_is_named(target: str, photos: Path, tmp_path: Path) -> None:
    (photos / "c0" / "own.png").symlink_to(target)
    with pytest.raises(ValueError, match=rf"photos holds 1 links that lead nowhere, c0/own.png -> {target} among"):
        make(photos, tmp_path)
    with pytest.raises(ValueError, match=r"git annex get, dvc pull"):
        make_stamp([photos])
    assert find_places(tmp_path, "photos") == [photos]


def test_a_class_whose_folder_is_a_link_that_leads_nowhere_is_named(photos: Path, tmp_path: Path) -> None:
    (photos / "c8").symlink_to("/nowhere")
    with pytest.raises(ValueError, match="links that lead nowhere, c8 -> /nowhere"):
        make(photos, tmp_path)


def test_a_link_beside_the_images_may_lead_nowhere(photos: Path, tmp_path: Path) -> None:
    (photos / "README.txt").symlink_to("/nowhere")
    assert n_classes(make(photos, tmp_path)) == 8


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is in Git LFS: git lfs pull"),
        (b"/annex/objects/MD5E-s1--0.png\n", "is in git-annex: git annex get"),
    ],
)
def test_a_file_that_stands_for_an_image_elsewhere_is_named(
    data: bytes, said: str, photos: Path, tmp_path: Path
) -> None:
    (photos / "c0" / "0.png").write_bytes(data)
    with pytest.raises(ValueError, match=rf"1 of the 32 images of photos cannot be read: c0/0.png \({said}\)"):
        make(photos, tmp_path)


def test_a_pipe_among_the_images_is_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "c0" / "pipe.png")
    assert len(list_images(photos)) == 32
    make_stamp([photos])


def test_a_folder_that_may_not_be_read_is_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(find.os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"cannot read the folder .*photos: Permission denied"):
        make(photos, tmp_path)


@pytest.mark.parametrize("ending", ["", ".zip", ".tar", ".tar.gz"])
def test_a_file_too_large_for_an_image_is_not_read_whole(
    ending: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, it has a thousandth of its size."""
    monkeypatch.setattr(image_file, "MAX_BYTES", 2**20)
    (photos / "c0" / "bomb.png").write_bytes(bytes(2**20 + 1))
    (photos / "c0" / "0.png").write_bytes(
        (photos / "c0" / "0.png").read_bytes().ljust(2**20, b"0")
    )  # just small enough
    place = photos
    if ending:
        path = tmp_path / f"bomb{ending}"
        place = zip_up(photos, path) if ending == ".zip" else tar_up(photos, path, "w:gz" if "gz" in ending else "w")
    with pytest.raises(ValueError, match=r"1 of the 33 images .*c0/bomb.png \(has more than 1 MiB, too many for an"):
        make(place, tmp_path)


def test_a_member_larger_than_its_archive_says_is_no_way_around(photos: Path, tmp_path: Path) -> None:
    (photos / "c0" / "bomb.png").write_bytes(bytes(2**22))
    path = zip_up(photos, tmp_path / "bomb.zip")
    data = path.read_bytes()
    assert data.count((2**22).to_bytes(4, "little")) >= 2
    path.write_bytes(data.replace((2**22).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(ValueError, match=r"1 of the 33 images .*c0/bomb.png"):
        make(path, tmp_path)


def test_an_encrypted_member_is_named(photos: Path, tmp_path: Path) -> None:
    path = zip_up(photos, tmp_path / "p.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # of the first member, in the table of contents
    data[data.index(b"PK\x03\x04") + 6] |= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"1 of the 32 images .*\(File .* is encrypted, password required"):
        make(path, tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_replaced_by_another_of_equal_size_and_time_makes_a_new_stamp(
    zipped: bool, photos: Path, tmp_path: Path
) -> None:
    for c in range(8):
        for i in range(4):
            picture(20 * c).save(photos / f"c{c}" / f"{i}.png")
            (photos / f"c{c}" / f"{i}.png").rename(photos / f"c{c}" / f"{i}.bmp")
            picture(20 * c).save(photos / f"c{c}" / f"{i}.bmp")
    place = zip_up(photos, tmp_path / "p.zip", zipfile.ZIP_STORED) if zipped else photos
    changed = place if zipped else photos / "c0" / "0.bmp"
    os.utime(changed, ns=(1, 1))
    before, size, first = make_stamp([place]), changed.stat().st_size, make(place, tmp_path)
    picture(77).save(photos / "c0" / "0.bmp")
    if zipped:
        zip_up(photos, place, zipfile.ZIP_STORED)
    os.utime(changed, ns=(1, 1))
    assert changed.stat().st_size == size
    assert make_stamp([place]) != before
    assert (make(place, tmp_path).pixels[0] != first.pixels[0]).any()


def zip_up(photos: Path, path: Path, packed: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for file in sorted(photos.rglob("*")):
            if file.is_file() and file.suffix != ".txt":
                member = zipfile.ZipInfo(f"photos/{file.relative_to(photos)}")
                member.compress_type = packed
                archive.writestr(member, file.read_bytes())
    return path
