"""How many images a source has: told, and told when a published set is not whole; images that are there twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_folders import lay_out, make, picture

from metarun.data.counts import count_images, describe_images, join_counts, warn_if_not_whole
from metarun.report.groups import COMPARABLE_FIELDS, split_comparable
from metarun.report.runs import Run


def test_a_source_counts_the_images_of_the_classes_it_uses(tmp_path: Path) -> None:
    photos = lay_out(tmp_path / "photos", {".": range(8)})
    picture(0, (30, 30)).save(photos / "c0" / "more.png")
    (photos / "split.txt").write_text("train c0\ntrain c1\nval c2\nval c3\ntest c4\ntest c5")
    facts = make(photos, tmp_path, split=str(photos / "split.txt"), trainval=True).info.facts
    assert facts["images"] == {"least": 4, "most": 5, "total": 25}
    assert describe_images(facts) == "4 to 5 a class, 25 in all"


def test_counts_are_joined_and_told_of_sources_that_have_none() -> None:
    joined = join_counts([count_images([3, 5]), count_images([4])])
    assert joined == {"least": 3, "most": 5, "total": 12}
    assert count_images([]) == {"least": 0, "most": 0, "total": 0}
    assert describe_images({}) is None


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ([600] * 100, ""),
        ([20] * 36 + [50] * 64, "mini has 20 to 50 images a class here, 600 in the published set"),
        ([1300] * 100, "mini has 1300 images a class here, 600 in the published set"),
        ([599, 601] * 50, "mini has 599 to 601 images a class here"),
        ([600] * 99 + [601], "mini has 600 to 601 images a class here"),
        ([599] + [600] * 99, "mini has 599 to 600 images a class here"),
        ([600] * 90, "mini has 54,000 images here, 60,000 in the published set"),
    ],
)
def test_a_published_set_that_is_not_whole_is_told(
    sizes: list[int], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_not_whole("mini", count_images(sizes), 60_000, of_class=600)
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


def test_a_set_of_uneven_classes_is_compared_by_its_total(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_not_whole("cub", {"least": 41, "most": 60, "total": 11_788}, 11_788)
    assert not caplog.text
    warn_if_not_whole("cub", {"least": 41, "most": 60, "total": 11_700}, 11_788)
    assert "cub has 11,700 images here, 11,788 in the published set: numbers are not comparable" in caplog.text


def test_copies_are_left_out_of_a_second_folder_and_told_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The pictures of c0 stand in two folders, one of c1 twice in its folder, and one of c2 in c3 too."""
    photos = lay_out(tmp_path / "photos", {"train": range(8)})
    for i in range(4):
        copy(photos / f"train/c0/{i}.png", photos / f"val/c0/other{i}.png")
    copy(photos / "train/c1/0.png", photos / "train/c1/9.png")
    copy(photos / "train/c2/0.png", photos / "train/c3/9.png")
    source = make(photos, tmp_path, split="draw")
    assert len(source.pixels) == 8 * 4 + 2
    assert "4 of the 38 images of photos are copies of images in other folders, and left out: val/c0" in caplog.text
    assert "1 of the 38 images of photos are copies of others in the same folder, train/c1/9.png of" in caplog.text
    assert "1 of the 38 images of photos stand in two classes, train/c3/9.png of train/c2/0.png" in caplog.text


def copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(path.read_bytes())


def make_run(name: str, images: str | None) -> Run:
    """A run of which only what it is compared by is known."""
    results = {field: 1 for field in COMPARABLE_FIELDS} | {"images": images}
    return Run(Path(name), "finished", results, {}, ())


def test_runs_on_other_images_are_not_compared_and_early_runs_are_with_the_only_set_they_fit() -> None:
    many, few, early = make_run("many", "600 a class"), make_run("few", "50 a class"), make_run("early", None)
    assert sorted(map(len, split_comparable([many, few]).values())) == [1, 1]
    assert sorted(map(len, split_comparable([early, many]).values())) == [2]
    assert sorted(map(len, split_comparable([early, many, few]).values())) == [1, 1, 1]
