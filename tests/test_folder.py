"""A person's own images: layouts, splits, what is said of too little and of broken files."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import make, picture, shades
from PIL import Image

from metarun.data.files.decode import Scale, decode_image
from metarun.data.files.find import list_images, make_stamp
from metarun.data.files.split_file import read_split_file
from metarun.data.files.splits import SPLITS, draw_split

SCALE = Scale(16, "nearest", fit="crop")


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten classes c0..c9 of four pictures; all pictures of a class have its shade."""
    root = tmp_path / "photos"
    for c in range(10):
        (root / f"c{c}").mkdir(parents=True)
        for i in range(4):
            picture(20 * c, (20 + i, 30)).save(root / f"c{c}" / f"{i}.png")
    return root


def test_classes_are_split_once_and_the_same_way_on_every_start(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = make(photos, tmp_path)
    (file,) = photos.glob("*.txt")
    assert file.name == "photos_split_50_25_25_seed0.txt"
    assert f"split the classes 6/2/2 into train, val, test: {file}" in caplog.text
    caplog.clear()
    again = make(photos, tmp_path)
    assert "split the classes" not in caplog.text
    assert torch.equal(first.batch("train", np.arange(9)).query.x, again.batch("train", np.arange(9)).query.x)
    chosen = read_split_file(file)
    assert [len(chosen[s]) for s in SPLITS] == [6, 2, 2]
    for split in SPLITS:
        assert shades(first, split) == {int(name[1:]) for name in chosen[split]}


def test_another_seed_splits_otherwise_and_keeps_both_files(photos: Path, tmp_path: Path) -> None:
    one, other = make(photos, tmp_path), make(photos, tmp_path, split_seed=1)
    assert one.info.split_sha256 != other.info.split_sha256
    assert len(list(photos.glob("*.txt"))) == 2


def test_an_edited_or_given_split_is_obeyed_and_classes_outside_it_are_named(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["# mine", *(f"train c{c}" for c in range(4)), "val c4", "val c5", "test c6", "test c7"]
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    source = make(photos, tmp_path, split=str(tmp_path / "mine.txt"))
    assert shades(source, "test") == {6, 7}
    assert "2 classes are in no part of" in caplog.text
    assert "c8, c9" in caplog.text
    (tmp_path / "lists").mkdir()
    for split, names in (("train", "c0 c1"), ("val", "c2 c3"), ("test", "c4 c5")):
        (tmp_path / "lists" / f"{split}.txt").write_text(names.replace(" ", "\n"))
    assert shades(make(photos, tmp_path, split=str(tmp_path / "lists")), "val") == {2, 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train c0\ncat c1", "line 2 of .*mine.txt is 'cat c1', which is not train, val or test and a class's name"),
        ("train c0\ntrain c1\nval c2\nval cX\ntest c4\ntest c5", "1 classes of the split have no images, cX among"),
    ],
)
def test_a_wrong_split_file_is_refused(photos: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ValueError, match=said):
        make(photos, tmp_path, split=str(tmp_path / "mine.txt"))


def test_folders_train_val_and_test_are_the_split_if_they_share_no_class(photos: Path, tmp_path: Path) -> None:
    for c, part in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 2):
        (photos / part).mkdir(exist_ok=True)
        (photos / f"c{c}").rename(photos / part / f"c{c}")
    source = make(photos, tmp_path)
    assert shades(source, "test") == {8, 9}
    assert not list(photos.glob("*.txt"))


def test_a_file_that_is_asked_for_is_the_split_though_folders_are_laid_out(photos: Path, tmp_path: Path) -> None:
    """It is not there yet, so that it is written by the fractions."""
    for c, part in enumerate(["train"] * 4 + ["val"] * 3 + ["test"] * 3):
        (photos / part).mkdir(exist_ok=True)
        (photos / f"c{c}").rename(photos / part / f"c{c}")
    source = make(photos, tmp_path, split=str(tmp_path / "mine.txt"))
    assert source.info.facts["classes"] == {"train": 6, "val": 2, "test": 2}
    assert read_split_file(tmp_path / "mine.txt") == draw_split([f"c{c}" for c in range(10)], (0.5, 0.25, 0.25), 0)


@pytest.mark.parametrize("second", ["train", "val"])
def test_folders_with_the_same_classes_are_merged(photos: Path, tmp_path: Path, second: str) -> None:
    for c in range(10):
        for i, part in enumerate(("train", second, "train", "test")):
            (photos / part / f"c{c}").mkdir(parents=True, exist_ok=True)
            (photos / f"c{c}" / f"{i}.png").rename(photos / part / f"c{c}" / f"{i}.png")
        (photos / f"c{c}").rmdir()
    source = make(photos, tmp_path)
    assert source.info.facts["classes"] == {"train": 6, "val": 2, "test": 2}
    assert len(source.pixels) == 40


def test_one_setting_makes_images_gray(photos: Path, tmp_path: Path) -> None:
    source = make(photos, tmp_path, channels=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert source.info.input_shape == (1, 16, 16)
    assert source.info.normalisation == (pytest.approx((0.449,)), pytest.approx((0.226,)))
    assert source.batch("test", np.arange(1)).query.x.isfinite().all()


def test_a_zip_of_the_folder_gives_the_same_tasks(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        for file in photos.rglob("*.png"):
            archive.write(file, f"photos/{file.relative_to(photos)}")
        archive.writestr("__MACOSX/photos/c0/._0.png", b"resource fork")
    zipped, folder = make(tmp_path / "other.zip", tmp_path), make(photos, tmp_path)
    assert torch.equal(zipped.pixels, folder.pixels)
    assert zipped.info.split_sha256 == folder.info.split_sha256


def test_a_new_image_makes_a_new_cache(photos: Path, tmp_path: Path) -> None:
    before = make(photos, tmp_path)
    picture(20).save(photos / "c1" / "new.png")
    assert len(make(photos, tmp_path).pixels) == len(before.pixels) + 1


def test_too_little_is_said_before_anything_is_decoded(photos: Path, tmp_path: Path) -> None:
    for i in range(2):
        (photos / "c3" / f"{i}.png").unlink()
    (photos / "c0" / "3.png").write_bytes(b"never read")
    (photos / "s.txt").write_text("\n".join(["train c0", "train c1", "val c2", "test c3", "test c4"]))
    with pytest.raises(ValueError, match="n_way") as error:
        make(photos, tmp_path, split=str(photos / "s.txt"))
    said = str(error.value)
    assert "data.n_way=2 needs 2 classes; split 'val' has 1" in said
    assert "need 3 images of a class; 'c3' of split 'test' has 2. Set data.n_query=1 or less" in said
    assert "10 classes, 38 images" in said
    assert "data.least=N" in said


def test_classes_with_fewer_images_than_asked_for_are_left_out(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "c3" / "0.png").unlink()
    assert sum(make(photos, tmp_path, least=4).info.facts["classes"].values()) == 9
    assert "1 classes with fewer than 4 images are left out: c3" in caplog.text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cut.jpg", encoded(Image.effect_noise((64, 64), 50), "JPEG")[:700]),
        ("cut.png", encoded(Image.effect_noise((64, 64), 50))[:700]),
        ("text.webp", b"<html>404</html>"),
        ("empty.gif", b""),
    ],
)
def test_each_unreadable_file_is_named(photos: Path, tmp_path: Path, name: str, data: bytes) -> None:
    for c in (0, 7):
        (photos / f"c{c}" / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"2 of the 42 images of photos cannot be read: c0/{name} .*; c7/{name} "):
        make(photos, tmp_path)
    assert not list((tmp_path / "cache").glob("*.safetensors")) + list((tmp_path / "cache").glob("*.part"))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda photos: None, "there is no folder or archive .*photos"),
        (lambda photos: photos.mkdir(), "there are no images in .*photos; known are .png"),
        (lambda photos: photos.write_bytes(encoded(picture(0))), "photos is neither a folder nor an archive"),
        (
            lambda photos: (photos.mkdir(), picture(0).save(photos / "a.png")),
            "1 images .* no class's folder, a.png",
        ),
    ],
)
def test_a_place_without_classes_is_said(tmp_path: Path, prepare: Callable[[Path], object], said: str) -> None:
    prepare(tmp_path / "photos")
    with pytest.raises(ValueError, match=said):
        make(tmp_path / "photos", tmp_path)


def test_without_a_path_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs data.path=FOLDER"):
        make(None, tmp_path)


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
def test_an_archive_with_names_that_lead_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        member = zipfile.ZipInfo("x")
        member.filename = member.orig_filename = name
        archive.writestr(member, encoded(picture(0)))
    with pytest.raises(ValueError, match="leads out of it; do not trust this archive"):
        list_images(tmp_path / "evil.zip")


def test_a_truncated_archive_is_refused(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        for file in photos.rglob("*.png"):
            archive.write(file, str(file.relative_to(photos)))
    (tmp_path / "cut.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut.zip is not a whole zip file .*get it again"):
        make(tmp_path / "cut.zip", tmp_path)


def test_links_are_followed_in_a_folder_but_not_for_ever_and_not_in_an_archive(photos: Path, tmp_path: Path) -> None:
    (photos / "c0" / "up").symlink_to(photos)
    (photos / "linked").symlink_to(photos / "c1")
    names = [file.path for file in list_images(photos)]
    assert "linked/0.png" in names
    assert "c1/0.png" in names
    assert not [name for name in names if name.startswith("c0/up/")]
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        link = zipfile.ZipInfo("c0/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("c0/real.png", encoded(picture(0)))
    assert [file.path for file in list_images(tmp_path / "l.zip")] == ["c0/real.png"]


def test_a_stamp_changes_with_a_file_and_not_with_the_order_of_reading(photos: Path) -> None:
    before = make_stamp([photos])
    assert before == make_stamp([photos])
    os.utime(photos / "c0" / "0.png", ns=(1, 1))
    assert make_stamp([photos]) != before


def test_pictures_of_every_mode_become_the_same_eight_bit_pixels() -> None:
    """A picture of one shade, 100, in each mode that can hold it."""
    gray = Image.new("L", (30, 20), 100)
    deep = Image.fromarray(np.full((20, 30), 100 * 257, np.uint16))
    forms = {
        "L": encoded(gray),
        "RGB": encoded(gray.convert("RGB")),
        "RGBA": encoded(gray.convert("RGBA")),
        "P": encoded(gray.quantize(4)),
        "I;16": encoded(deep),
        "I;16 TIFF": encoded(deep, "TIFF"),
        "F": encoded(Image.fromarray(np.full((20, 30), 100 / 255, np.float32)), "TIFF"),
        "LA": encoded(gray.convert("LA")),
        "GIF": encoded(gray, "GIF"),
        "WEBP": encoded(gray.convert("RGB"), "WEBP", lossless=True),
        "JPEG": encoded(gray, "JPEG"),
    }
    for name, data in forms.items():
        pixels = decode_image(data, SCALE)
        assert pixels.shape == (3, 16, 16), name
        assert np.abs(pixels.astype(int) - 100).max() <= 1, name


def test_transparent_parts_are_white_and_a_rotated_photo_stands_upright() -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert (decode_image(encoded(clear), SCALE) == 255).all()
    wide = Image.new("L", (40, 40))
    wide.paste(255, (0, 0, 40, 10))  # the top is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right: the stored top is the true right
    upright = decode_image(encoded(wide, "PNG", exif=exif), SCALE)
    assert (upright[:, :, -2:] == 255).all()
    assert (upright[:, :, :8] == 0).all()


def test_crop_keeps_the_middle_square_and_stretch_all_of_it() -> None:
    sides = Image.new("L", (60, 20), 255)
    sides.paste(0, (20, 0, 40, 20))
    assert (decode_image(encoded(sides), SCALE) == 0).all()
    assert (decode_image(encoded(sides), Scale(16, "nearest", fit="stretch")) == 255).any()


def test_fractions_must_be_three_and_sum_to_one() -> None:
    assert draw_split(["a", "b", "c", "d"], (0.5, 0.25, 0.25), 3) == draw_split(list("dcba"), (0.5, 0.25, 0.25), 3)
    for fractions in ((0.5, 0.5), (0.5, 0.5, 0.0), (0.6, 0.2, 0.3)):
        with pytest.raises(ValueError, match=r"must be three numbers above 0 that sum to 1"):
            draw_split(["a"], fractions, 0)
