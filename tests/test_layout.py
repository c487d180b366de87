"""Folders of images that are named after splits, and what is asked where it is unclear what is to be tested on."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_folders import PLAN, lay_out, make, picture, shades

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.files.split_words import find_parts
from metarun.data.files.splits import SPLITS, count_ways, draw_split

TRAIN, VAL, TEST = [0, 1, 2, 3], [4, 5], [6, 7]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", ["train", "Train", "TRAINING", "meta_train", "metatrain", "Meta-Train", "base", "base classes",
                   "train_images", "trainset", "train2017", "images_background"]),
        ("val", ["val", "Valid", "validation", "dev", "Development", "metaval", "meta-val", "val_set"]),
        ("test", ["test", "Testing", "novel", "meta_test", "novel-classes", "images_evaluation", "testset", "unseen"]),
    ],
)  # fmt: skip
def test_splits_are_known_by_their_usual_names(part: str, names: list[str]) -> None:
    for name in names:
        assert find_parts(name) == {part}, name


@pytest.mark.parametrize("name", ["c0", "trains", "baseball", "database", "novelist", "images", "contest", "00", "été"])
def test_other_words_are_no_names_of_splits(name: str) -> None:
    assert find_parts(name) == set()


@pytest.mark.parametrize("name", ["trainval", "train_val", "devtest"])
def test_a_name_of_two_splits_is_of_both(name: str) -> None:
    assert len(find_parts(name)) == 2


@pytest.mark.parametrize(
    "folders",
    [
        {"train": TRAIN, "val": VAL, "test": TEST},
        {"Train": TRAIN, "Val": VAL, "Test": TEST},
        {"base": TRAIN, "val": VAL, "novel": TEST},
        {"meta_train": TRAIN, "meta-val": VAL, "META TEST": TEST},
        {"training": TRAIN, "dev": VAL, "testing": TEST},
        {"train": TRAIN[:2], "base": TRAIN[2:], "val": VAL, "test": TEST},
        {"images/train": TRAIN, "images/val": VAL, "images/test": TEST},
        {"{}/train": TRAIN, "{}/val": VAL, "{}/test": TEST},
    ],
)
def test_folders_of_the_usual_names_are_the_split(folders: dict[str, list[int]], tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", folders)
    source = make(photos, tmp_path)
    assert {part: shades(source, part) for part in ("train", "val", "test")} == {
        "train": set(TRAIN), "val": set(VAL), "test": set(TEST)
    }  # fmt: skip
    assert not list(photos.rglob("*.txt"))


UNCLEAR = {
    "no val": ({"train": [*TRAIN, *VAL], "test": TEST}, "no folder of it is named after val"),
    "no test": ({"Train": TRAIN, "Valid": [*VAL, *TEST]}, "no folder of it is named after test"),
    "no train": ({"val": [*TRAIN, *VAL], "novel": TEST}, "no folder of it is named after train"),
    "test alone": ({"test": [*TRAIN, *VAL, *TEST]}, "all of its images lie in test"),
    "others beside": (
        {"train": TRAIN, "val": VAL, "test": TEST[:1], "more": TEST[1:]},
        "test among them, and others not",
    ),
    "trainval": ({"trainval": [*TRAIN, *VAL], "test": TEST}, "test among them, and others not"),
    "some shared": (
        {"train": TRAIN, "val": TRAIN, "test": [*VAL, *TEST]},
        "share 4 classes, c0 among them, but not all",
    ),
    "deeper": ({"a/train": TRAIN, "a/test": VAL, "b": TEST}, "test among them, and others not"),
}


@pytest.mark.parametrize(("folders", "said"), UNCLEAR.values(), ids=UNCLEAR)
def test_where_it_is_unclear_what_is_tested_on_that_is_asked_and_nothing_written(
    folders: dict[str, list[int]], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = lay_out(tmp_path / "photos", folders)
    with pytest.raises(ValueError, match=said) as error:
        make(photos, tmp_path)
    assert "data.split=FILE" in str(error.value)
    assert "data.split=draw" in str(error.value)
    assert not list(photos.rglob("*.txt"))
    drawn = make(photos, tmp_path, split="draw")
    assert drawn.info.facts["classes"] == {"train": 4, "val": 2, "test": 2}
    assert len(list(photos.glob("*.txt"))) == 1
    tests = {c for name, classes in folders.items() for c in classes if find_parts(name.split("/")[-1]) == {"test"}}
    told = "classes that have images below a folder of test classes are trained on" in caplog.text
    assert told == bool(shades(drawn, "train") & tests)
    assert make(photos, tmp_path).info.split_sha256 == drawn.info.split_sha256  # asked once


@pytest.mark.parametrize(("absent", "sizes"), [("val", (4, 2, 2)), ("test", (4, 2, 2))])
def test_folders_asked_for_keep_what_they_name_and_draw_the_rest_from_train(
    absent: str, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    kept = "test" if absent == "val" else "val"
    photos = lay_out(tmp_path / "photos", {"train": [*TRAIN, *VAL], kept: TEST})
    with pytest.raises(ValueError, match=r"data.split=folders: .* \(train 4, val 2, test 2\)"):
        make(photos, tmp_path)
    source = make(photos, tmp_path, split="folders")
    assert tuple(source.info.facts["classes"].values()) == sizes
    assert shades(source, kept) == set(TEST)
    assert shades(source, absent) | shades(source, "train") == {*TRAIN, *VAL}
    assert make(photos, tmp_path, split="folders", split_seed=1).info.split_sha256 != source.info.split_sha256


@pytest.mark.parametrize("folders", [{"photos": [*TRAIN, *VAL]}, {"train": TRAIN, "val": TRAIN}])
def test_folders_are_no_split_where_none_are_named_so(folders: dict[str, list[int]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folders with classes of their own are named train, val, test"):
        make(lay_out(tmp_path / "photos", folders), tmp_path, split="folders")


@pytest.mark.parametrize("names", [("train.csv", "val.csv", "test.csv"), ("lists/base.json", "lists/novel.json")])
def test_lists_of_splits_beside_the_images_are_not_passed_over(names: tuple[str, ...], tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", {"images": [*TRAIN, *VAL, *TEST]})
    for name in (*names, "classes.txt"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_text("c0\n")
    with pytest.raises(ValueError, match=rf"lists of splits lie beside the images \({', '.join(sorted(names))}\)"):
        make(photos, tmp_path)
    assert sum(make(photos, tmp_path, split="draw").info.facts["classes"].values()) == 8


def test_an_ordinary_data_set_is_merged_and_what_was_its_test_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = lay_out(tmp_path / "photos", {"train": range(8), "test": range(7)})
    source = make(photos, tmp_path)
    assert len(source.pixels) == 4 * (8 + 7)
    assert "4 classes that have images below a folder of test classes are trained on" in caplog.text


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    for name in ("novel", "poem", "essay", "story", "play", "song"):
        lay_out(tmp_path, {f"photos/{name}/{{}}": [0]})
        (tmp_path / "photos" / name / "c0").rename(tmp_path / "c0")
        (tmp_path / "photos" / name).rmdir()
        (tmp_path / "c0").rename(tmp_path / "photos" / name)
    assert sum(make(tmp_path / "photos", tmp_path).info.facts["classes"].values()) == 6


def test_images_that_lie_in_the_folders_of_splits_themselves_have_no_class(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        picture(0).save(tmp_path / "photos" / part / "0.png")
    with pytest.raises(ValueError, match="lie in the folders test, train, which name no classes"):
        make(tmp_path / "photos", tmp_path)


def test_a_refused_draw_leaves_no_file_so_that_its_remedies_work(tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(8)})
    (photos / "c3" / "0.png").unlink()
    (photos / "c3" / "1.png").unlink()
    plan = EpisodePlan(PLAN.test, PLAN.test, 0, 0)
    with pytest.raises(ValueError, match=r"'c3' of split '.*' has 2"):
        make(photos, tmp_path, plan)
    assert not list(photos.glob("*.txt"))
    assert sum(make(photos, tmp_path, plan, least=4).info.facts["classes"].values()) == 7


def test_classes_left_out_may_stand_in_the_file_of_an_earlier_run(tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(8)})
    make(photos, tmp_path)
    (photos / "c3" / "0.png").unlink()
    assert sum(make(photos, tmp_path, least=4).info.facts["classes"].values()) == 7


def test_images_that_cannot_be_read_leave_no_file_of_the_split(tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(8)})
    (photos / "c8").mkdir()
    (photos / "c8" / "0.png").write_bytes(b"")
    (photos / "c8" / "1.png").write_bytes(b"")
    (photos / "c8" / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match="3 of the 35 images of photos cannot be read"):
        make(photos, tmp_path)
    assert not list(photos.glob("*.txt"))


WAYS = EpisodePlan(EpisodeShape(5, 1, 1), EpisodeShape(5, 1, 1), 0, 0)


@pytest.mark.parametrize(
    ("plan", "n_classes", "advice"),
    [
        (PLAN, 2, "Tasks need 2 + 2 + 2 = 6 classes in all (train, val, test), and 6 at the least: add classes"),
        (PLAN, 5, "6 at the least: add classes"),
        (WAYS, 7, "= 15 classes in all (train, val, test). Add classes, or set data.n_way=2 data.train.n_way=2"),
        (WAYS, 14, "Add classes, or set data.n_way=4 data.train.n_way=4"),
    ],
)
def test_too_few_classes_are_refused_with_what_can_be_done(
    plan: EpisodePlan, n_classes: int, advice: str, tmp_path: Path
) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(n_classes)})
    with pytest.raises(ValueError, match=f"{n_classes} classes") as error:
        make(photos, tmp_path, plan, fractions=(0.8, 0.1, 0.1))
    assert advice in str(error.value)
    assert "n_way=1" not in str(error.value)
    assert not list(photos.glob("*.txt"))
    words = dict(word.split("=") for word in advice.split() if "data." in word)
    if words:  # and it works
        ways = int(words["data.n_way"])
        shape = EpisodeShape(ways, 1, 1)
        make(photos, tmp_path, EpisodePlan(shape, shape, 0, 0), fractions=(0.8, 0.1, 0.1))


@pytest.mark.parametrize(
    ("n_classes", "ways", "counts"),
    [
        (25, (5, 5), (15, 5, 5)),  # 64/16/20 would be 16/4/5
        (28, (5, 5), (17, 5, 6)),
        (29, (5, 5), (18, 5, 6)),
        (100, (5, 5), (64, 16, 20)),
        (15, (5, 5), (5, 5, 5)),
        (20, (9, 5), (10, 5, 5)),
        (20, (10, 5), (10, 5, 5)),
        (14, (5, 5), (9, 2, 3)),  # too few in any case
    ],
)
def test_a_drawn_split_has_the_ways_of_its_tasks_where_there_are_enough_classes(
    n_classes: int, ways: tuple[int, int], counts: tuple[int, int, int]
) -> None:
    plan = EpisodePlan(EpisodeShape(ways[0], 1, 1), EpisodeShape(ways[1], 1, 1), 0, 0)
    names = [f"c{c:03d}" for c in range(n_classes)]
    split = draw_split(names, (0.64, 0.16, 0.2), 0, count_ways(plan))
    assert tuple(len(split[part]) for part in SPLITS) == counts
    assert sorted(name for part in SPLITS for name in split[part]) == names
    if counts == tuple(len(labels) for labels in draw_split(names, (0.64, 0.16, 0.2), 0).values()):
        assert split == draw_split(names, (0.64, 0.16, 0.2), 0)
