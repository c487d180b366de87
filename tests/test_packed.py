"""Packed files, row by row, and tables of labels: what their columns are, what they lack."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from image_folders import lay_out, make, picture

from metarun.data.files.find import list_files
from metarun.data.files.labelled import find_part
from metarun.data.files.packed import read_packed
from metarun.data.files.splits import SPLITS
from metarun.data.files.stream import KEPT, Stream


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("mini-imagenet-cache-validation.pkl", "val"),
        ("miniImageNet_category_split_train_phase_train.pickle", "train"),
        ("FC100_test.pickle", "test"),
        ("data/train-00003-of-00013.parquet", "train"),
        ("default/test/0000.parquet", "test"),
        ("bloodmnist.npz", ""),
        ("train_and_test.npz", ""),
        ("latest.npz", ""),
    ],
)
def test_the_split_of_a_file_is_read_off_its_name_or_its_folder(path: str, part: str) -> None:
    assert find_part(path) == part


def test_a_stream_begins_anew_only_for_what_it_no_longer_keeps() -> None:
    begun: list[int] = []

    def begin() -> Iterator[int]:
        begun.append(1)
        return iter(range(200))

    stream = Stream(begin, 200)
    assert [stream.get(n) for n in (5, 4, 3, 70)] == [5, 4, 3, 70]
    assert len(begun) == 1
    assert [stream.get(n) for n in (70 - KEPT, 199, 199 - KEPT + 1)] == [70 - KEPT, 199, 200 - KEPT]
    assert len(begun) == 2
    threads = [threading.Thread(target=stream.get, args=(n,)) for n in range(KEPT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 3


def read(folder: Path) -> tuple[list[tuple[str, str | int]], dict[str, str]]:
    packed = read_packed(list_files(folder))
    return [(one.part, one.label) for one in packed.images], packed.left_out


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.float32), "labels": [0, 1]}, r"float32 \[2, 4, 4, 3\]: they are to"),
        ({"images": np.zeros((2, 3, 4, 4), np.uint8), "labels": [0, 1]}, r"uint8 \[2, 3, 4, 4\]: they are to"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0, 1, 2]}, "has 2 images and 3 labels"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.eye(2)}, r"labels have the shape \[2, 2\]"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0.5, 1]}, "labels are 0.5, no names or whole numbers"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "holds no labels of its images: images"),
        ({"images": np.asfortranarray(np.zeros((2, 4, 4), np.uint8)), "labels": [0, 1]}, "stored by columns"),
        ({"weights": np.zeros(3)}, "holds no arrays of images and labels: weights"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([Path("x"), 1], object)}, "allow_pickle"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images_and_labels_are_told(tmp_path: Path, arrays: dict[str, object], said: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    images, left_out = read(tmp_path)
    assert not images
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(left_out["set.npz"])


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        pair.split()
        for pair in ("Images Labels", "IMAGES LABEL", "X Y", "Data targets", "X_Test Y_Test", "Test_Images TEST_Y")
    ],
)
def test_arrays_are_found_in_whichever_letters_they_are_written(tmp_path: Path, images: str, labels: str) -> None:
    np.savez(tmp_path / "set.npz", **{images: np.zeros((3, 4, 4), np.uint8), labels: np.array([1, 0, 1])})
    part = "test" if "_" in images else ""
    assert read(tmp_path) == ([(part, 1), (part, 0), (part, 1)], {})


def test_a_damaged_archive_of_arrays_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((9, 40, 40), np.uint8), labels=np.zeros(9, int))
    data = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(data[: len(data) // 2])
    assert "it is no whole npz file" in read(tmp_path)[1]["set.npz"]


def test_names_of_labels_may_be_bytes_or_strings_and_pairs_need_no_order(tmp_path: Path) -> None:
    content = {
        b"data": np.zeros((3, 4, 4, 3), np.uint8),
        b"labels": np.array([1, 0, 1]),
        b"catname2label": {b"a": 0, "b": 1},
    }
    (tmp_path / "x_val.pickle").write_bytes(pickle.dumps(content))
    assert read(tmp_path)[0] == [("val", "b"), ("val", "a"), ("val", "b")]


def test_names_beside_images_are_told_apart_where_two_classes_share_one(tmp_path: Path) -> None:
    content = {"label_specific": [7, 8, 9, 8], "label_specific_str": ["crane", b"n01530575", "crane"]}
    (tmp_path / "train_labels.pkl").write_bytes(pickle.dumps(content))
    (tmp_path / "train_images_png.pkl").write_bytes(pickle.dumps([np.zeros((3, 1), np.uint8)] * 4))
    found, left_out = read(tmp_path)
    assert [label for _, label in found] == ["0000 crane", "n01530575", "0002 crane", "n01530575"]
    assert not left_out


ENCODED = [b"\x89PNG" + bytes([number]) * 200_000 for number in range(9)]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kept", [bytes, lambda one: np.frombuffer(one, np.uint8)[:, None]])
def test_encoded_images_in_a_pickle_are_read_one_by_one(
    tmp_path: Path, protocol: int, kept: Callable[[bytes], object]
) -> None:
    """1.8 MB of images, of which a small part is in memory at once; nothing in the file is run."""
    (tmp_path / "test_images_png.pkl").write_bytes(pickle.dumps([kept(one) for one in ENCODED], protocol))
    (tmp_path / "test_labels.pkl").write_bytes(pickle.dumps({"label_specific": [0] * 9}))
    files = [one.file for one in read_packed(list_files(tmp_path)).images]
    assert [file.order[1] for file in files] == list(range(9))
    assert len({file.order[0] for file in files}) == 1
    tracemalloc.start()
    found = [hashlib.sha256(file.read()).digest() for file in files]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [hashlib.sha256(one).digest() for one in ENCODED]
    assert peak < 1_300_000


def test_encoded_images_of_another_number_than_their_labels_or_cut_off_are_told(tmp_path: Path) -> None:
    path = tmp_path / "test_images_png.pkl"
    path.write_bytes(pickle.dumps([np.frombuffer(ENCODED[0], np.uint8)]))
    (tmp_path / "test_labels.pkl").write_bytes(pickle.dumps({"label_specific": [0, 1]}))
    images = read_packed(list_files(tmp_path)).images
    images[0].file.read()
    with pytest.raises(ValueError, match=r"png.pkl holds 1 images \(PNG, JPEG\), and 2 labels lie beside it"):
        images[1].file.read()
    path.write_bytes(path.read_bytes()[:-9])
    images = read_packed(list_files(tmp_path)).images
    images[0].file.read()
    with pytest.raises(ValueError, match=r"test_images_png.pkl is no whole pickle .*; get it again"):
        images[1].file.read()


@pytest.mark.parametrize("parts", [("train", "test"), SPLITS])
def test_numbers_that_begin_anew_in_each_pickle_are_asked_about(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        content = {"data": np.zeros((8, 4, 4, 3), np.uint8), "labels": [0, 1, 2, 3] * 2}
        (tmp_path / f"my_{part}.pickle").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"my_test.pickle, my_train.pickle.* number their classes .* not told"):
        make(tmp_path, tmp_path / "c")


def test_parquet_without_images_in_it_is_told(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a"], "label": [0]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    parquet.write_table(pyarrow.table({"image": [{"bytes": None, "path": "x"}], "label": [0]}), tmp_path / "c.parquet")
    packed = read_packed(list_files(tmp_path))
    assert "has no column image or img, or none of labels: text, label" in packed.left_out["a.parquet"]
    assert "is no whole parquet file" in packed.left_out["b.parquet"]
    with pytest.raises(ValueError, match="its bytes are not in the file"):
        packed.images[0].file.read()


def put_flat(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    names = [f"{c}{i}.png" for c in "abcdefgh" for i in range(3)]
    for number, name in enumerate(names):
        picture(number, (20, 20)).save(folder / name)
    return names


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("l.csv", lambda names: "id,kind\n" + "".join(f"{n[:-4]},{n[0]}\n" for n in names)),
        ("l.csv", lambda names: "kind;file\n" + "".join(f"{n[0]};C:\\x\\images\\{n}\n" for n in names)),
        ("l.tsv", lambda names: "n\tfile\tspecies\n" + "".join(f"{i}\t/a/{n}\t{n[0]}\n" for i, n in enumerate(names))),
        ("l.txt", lambda names: "".join(f"{n} {n[0]}\n" for n in names)),
        ("l.json", lambda names: json.dumps({n: n[0] for n in names})),
        ("l.json", lambda names: json.dumps([{"file": n, "category": n[0], "size": 3} for n in names])),
        ("l.json", lambda names: json.dumps({
            "images": [{"id": i, "file_name": n} for i, n in enumerate(names)],
            "annotations": [{"image_id": i, "category_id": ord(n[0])} for i, n in enumerate(names)],
            "categories": [{"id": ord(c), "name": c} for c in "abcdefgh"]})),
    ],
)  # fmt: skip
def test_a_table_tells_the_classes_whatever_its_columns_are_called(tmp_path: Path, name: str, rows: object) -> None:
    names = put_flat(tmp_path / "images")
    (tmp_path / name).write_text(rows(names))
    source = make(tmp_path / "images", tmp_path, labels=str(tmp_path / name))
    assert source.info.facts["images"] == {"least": 3, "most": 3, "total": 24}
    assert sorted(label.split("/")[-1] for part in SPLITS for label in source.classes[part]) == list("abcdefgh")


@pytest.mark.parametrize("head", ["", "file,label\n"])
def test_a_table_that_a_spreadsheet_wrote_begins_with_a_mark_which_is_no_part_of_it(tmp_path: Path, head: str) -> None:
    names = put_flat(tmp_path / "images")
    (tmp_path / "l.csv").write_text(head + "".join(f"{n},{n[0]}\n" for n in names), encoding="utf-8-sig")
    source = make(tmp_path / "images", tmp_path, labels=str(tmp_path / "l.csv"))
    assert source.info.facts["images"] == {"least": 3, "most": 3, "total": 24}


def test_the_classes_of_a_changed_table_are_read_anew(tmp_path: Path) -> None:
    names = put_flat(tmp_path / "images")
    for table, place in (("one.csv", 0), ("other.csv", -1)):
        shifted = [*names[place:], *names[:place]]
        (tmp_path / table).write_text("".join(f"{n},{of[0]}\n" for n, of in zip(names, shifted, strict=True)))
    one, other = (make(tmp_path / "images", tmp_path, labels=str(tmp_path / f"{n}.csv")) for n in ("one", "other"))
    assert (one.pixels != other.pixels).any()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("x,y\n1,2\n", "names none of the images in any of its 2 columns: x, y"),
        ("file,one,other\na0.png,1,2\n", "has the columns file, one, other, and it is not clear which"),
        ("a0.png,1\na0.png,2\n", "says that a0.png is 1 and 2"),
    ],
)
def test_a_table_that_does_not_tell_the_classes_is_refused(tmp_path: Path, rows: str, said: str) -> None:
    put_flat(tmp_path / "images")
    (tmp_path / "l.csv").write_text(rows)
    with pytest.raises(ValueError, match=said):
        make(tmp_path / "images", tmp_path, labels=str(tmp_path / "l.csv"))
    with pytest.raises(ValueError, match=r"cannot read data.labels=.*none.csv: No such file"):
        make(tmp_path / "images", tmp_path, labels=str(tmp_path / "none.csv"))


def test_lines_without_an_image_and_images_without_a_line_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = put_flat(tmp_path / "images")
    lines = [f"{n},{n[0]}" for n in names if n != "a2.png"]
    (tmp_path / "l.csv").write_text("\n".join(["file,label", *lines, "gone.png,a", "gone2.png,b"]))
    make(tmp_path / "images", tmp_path, labels=str(tmp_path / "l.csv"), least=3)
    assert "2 of the 25 lines of" in caplog.text
    assert "1 images are in no line of" in caplog.text
    assert "a2.png among them" in caplog.text


def test_a_folder_of_lists_of_images_is_a_split_wherever_it_lies(tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(8)})
    (tmp_path / "lists").mkdir()
    for part, classes in zip(SPLITS, ([0, 1, 2, 3], [4, 5], [6, 7]), strict=True):
        rows = "".join(f"c{c}/{i}.png,{c}\n" for c in classes for i in range(4))
        (tmp_path / "lists" / f"{part}.csv").write_text(f"filename,label\n{rows}")
    source = make(photos, tmp_path, split=str(tmp_path / "lists"))
    assert source.classes["test"] == {"Folder/c6", "Folder/c7"}
    assert source.classes["val"] == {"Folder/c4", "Folder/c5"}
