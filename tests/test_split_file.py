"""Class splits in files as people and their programs write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import PLAN, lay_out, make, picture, shades

from metarun.data.files.split_file import read_split_file, write_split_file
from metarun.data.images import ImageClasses, ImageTasks

SPLIT = {"train": ["a", "b"], "val": ["c"], "test": ["d", "e f"]}
LINES = ["train a", "train b", "val c", "test d", "test e f"]


@pytest.mark.parametrize(
    "data",
    [
        "\n".join(LINES).encode("utf-8-sig"),
        "\n".join(LINES).encode("utf-16"),
        "\r\n".join(LINES).encode(),
        "\n".join(line.replace(" ", "\t", 1) for line in LINES).encode(),
        "\n".join(f" {line.replace(' ', '  ')} " for line in LINES).encode(),
        b"# mine\n\nTraining a\nbase b\nvalid c\nNOVEL d\nmeta_test e f",
    ],
    ids=["BOM", "UTF-16", "Windows", "tabs", "blanks", "other words"],
)
def test_a_split_file_is_read_however_it_was_written(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_bytes(data)
    assert read_split_file(tmp_path / "split.txt") == SPLIT


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Base", "validation", "novel_classes")])
def test_lists_in_a_folder_are_read_by_their_names(names: tuple[str, ...], tmp_path: Path) -> None:
    for name, labels in zip(names, SPLIT.values(), strict=True):
        (tmp_path / f"{name}.txt").write_text("\ufeff" + "\n".join(labels))
    (tmp_path / "notes.txt").write_text("of nothing")
    assert read_split_file(tmp_path) == SPLIT


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["train", "val"], "one list for test, as test.txt; there is none"),
        (["train", "base", "val", "test"], "one list for train, as train.txt; there is base.txt, train.txt"),
    ],
)
def test_lists_that_lack_a_split_or_have_two_of_one_are_refused(files: list[str], said: str, tmp_path: Path) -> None:
    for number, name in enumerate(files):
        (tmp_path / f"{name}.txt").write_text(f"c{number}")
    with pytest.raises(ValueError, match=said):
        read_split_file(tmp_path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("test d", "line 6 of .*split.txt names the class 'd', which is in test, by line 4 of"),
        ("train d", "line 6 of .*split.txt names the class 'd', which is in test, by line 4 of"),
        ("val e  f ", "line 6 of .*split.txt names the class 'e f', which is in test, by line 5 of"),
        ("train", "line 6 of .*split.txt is 'train', which is not train, val or test and a class's name"),
        ("trainval g", "line 6 of .*split.txt is 'trainval g', which is not train, val or test and"),
        ("train,g", "line 6 of .*split.txt is 'train,g', which is not"),
    ],
)
def test_a_class_comes_once_and_a_line_is_a_split_and_a_class(more: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_text("\n".join([*LINES, more]))
    with pytest.raises(ValueError, match=said):
        read_split_file(tmp_path / "split.txt")


def test_a_class_that_comes_twice_in_lists_joined_together_is_refused(tmp_path: Path) -> None:
    for part, text in (("train", "a\nb\nc\na"), ("val", "d"), ("test", "e")):
        (tmp_path / f"{part}.txt").write_text(text)
    with pytest.raises(ValueError, match=r"line 4 of .*train.txt names the class 'a', .* line 1 of .*train.txt"):
        read_split_file(tmp_path)


def test_composed_and_decomposed_letters_are_the_same_class_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_text("train caf\u00e9\ntest cafe\u0301")
    with pytest.raises(ValueError, match="line 2 of"):
        read_split_file(tmp_path / "split.txt")


@pytest.mark.parametrize("data", [b"train caf\xe9", b"\xff\xfet"])
def test_a_file_that_is_no_text_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot read the class split .*save it as UTF-8"):
        read_split_file(tmp_path / "split.txt")


def test_a_source_refuses_a_class_twice_however_its_split_was_made() -> None:
    data = ImageClasses(torch.zeros(60, 1, 4, 4, dtype=torch.uint8), np.arange(7) * 10, list("abcdef"))
    split = {"train": ["a", "b"], "val": ["c", "d"], "test": ["e", "f", "e"]}
    with pytest.raises(ValueError, match="split test names 1 classes more than once, e among them"):
        ImageTasks(data, split, PLAN, "none", torch.device("cpu"))
    twice = ImageClasses(data.pixels, data.starts, list("abcdee"))
    with pytest.raises(ValueError, match="are not all different"):
        ImageTasks(twice, split | {"test": ["e"]}, PLAN, "none", torch.device("cpu"))


ODD = ["c0 ", " c1", "c\t2", "caf\u00e9", "cafe\u0301s", "c\n5", "#6", "train"]


def test_odd_names_of_classes_are_written_and_read_alike(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for c, name in enumerate(ODD):
        (photos / name).mkdir(parents=True)
        for i in range(4):
            picture(20 * c).save(photos / name / f"{i}.png")
    first = make(photos, tmp_path)
    (file,) = photos.glob("*.txt")
    second = make(photos, tmp_path)
    assert first.info.split_sha256 == second.info.split_sha256
    assert [shades(second, part) for part in SPLIT] == [shades(first, part) for part in SPLIT]
    turned = file.read_text()
    file.write_text(turned.replace("caf", "\u200bca\u00adf\ufeff"))  # as names that are copied from a page
    assert make(photos, tmp_path).info.split_sha256 == first.info.split_sha256
    for form in ("NFC", "NFD"):
        file.write_text(unicodedata.normalize(form, turned))
        assert make(photos, tmp_path).info.split_sha256 == first.info.split_sha256


@pytest.mark.parametrize(("one", "other"), [("c0", "c0 "), ("caf\u00e9", "cafe\u0301")])
def test_folders_whose_names_read_alike_are_one_class(
    one: str, other: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(1, 8)})
    for shade, name in enumerate((one, other)):
        (photos / name).mkdir()
        for i in range(2):
            picture(shade, (20 + i, 20)).save(photos / name / f"{i}.png")
    source = make(photos, tmp_path)
    assert sum(source.info.facts["classes"].values()) == 8
    assert "are one class" in caplog.text


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(7)})
    (photos / "c6").rename(photos / "caf\udce9")
    with pytest.raises(ValueError, match=r"the folder 'caf\\udce9' of .* has a name that is not UTF-8: rename it"):
        make(photos, tmp_path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_split_file(tmp_path / "split.txt", SPLIT)
    assert (tmp_path / "split.txt").read_text().splitlines() == LINES
    assert read_split_file(tmp_path / "split.txt") == SPLIT
