from __future__ import annotations

import hashlib
import io
import shutil
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from PIL import Image
from safetensors import safe_open
from torchvision.datasets import Omniglot as Download

from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data import omniglot
from metarun.data.files import cache as cache_files
from metarun.data.files.cache import create_cache_file, open_or_make
from metarun.data.files.splits import SPLITS, read_split
from metarun.data.glyphs import Glyphs, draw_all
from metarun.data.images import ImageClasses, ImageTasks
from metarun.data.omniglot import Omniglot
from metarun.data.places.omniglot import find_files

CPU = torch.device("cpu")
PLAN = EpisodePlan(EpisodeShape(5, 1, 1), EpisodeShape(5, 1, 2), 0, 0)


def drawing(rng: np.random.Generator) -> bytes:
    """A 105x105 1-bit PNG, as Omniglot's are."""
    file = io.BytesIO()
    Image.fromarray(rng.random((105, 105)) > 0.1).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def small_omniglot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every character of the real lists, in the archives' layout, with 3 random drawings shared between them."""
    root = tmp_path_factory.mktemp("data")
    (root / "omniglot").mkdir()
    rng = np.random.default_rng(0)
    files = [drawing(rng) for _ in range(3)]
    lake = read_split("omniglot_lake")
    for part, names in (("images_background", lake["train"] + lake["val"]), ("images_evaluation", lake["test"])):
        with zipfile.ZipFile(root / "omniglot" / f"{part}.zip", "w") as archive:
            for name in names:
                for i, data in enumerate(files):
                    archive.writestr(f"{part}/{name}/0001_{i + 1:02d}.png", data)
    return root


def make_omniglot(root: Path, cache: Path, **changes: object) -> Omniglot:
    options = {
        "split": "vinyals", "within_alphabet": False, "rotation": "class", "image_size": 28, "channels": 1,
        "interpolation": "lanczos", "invert": True, "mean": (0,), "std": (1,), "trainval": False,
    }  # fmt: skip
    ways = changes.pop("plan", None)
    plan = PLAN if ways is None else replace(PLAN, test=EpisodeShape(ways, 1, 1))
    return Omniglot(plan, CPU, str(root), str(cache), **(options | changes))


def test_omniglot_is_read_from_zip_files_and_split_as_vinyals_did(small_omniglot: Path, cache: Path) -> None:
    source = make_omniglot(small_omniglot, cache)
    assert source.info.facts["classes"] == {"train": 4 * 1028, "val": 4 * 172, "test": 4 * 423}
    assert source.info.input_shape == (1, 28, 28)
    batch = source.batch("test", np.arange(3))
    assert batch.support.x.shape == (3, 5, 1, 28, 28)
    assert batch.query.x.shape == (3, 10, 1, 28, 28)
    assert 0 <= batch.query.x.min() < batch.query.x.max() <= 1


def test_omniglot_lake_split_has_background_train_and_evaluation_test(small_omniglot: Path, cache: Path) -> None:
    source = make_omniglot(small_omniglot, cache, split="lake", rotation="none")
    assert source.info.facts["classes"] == {"train": 812, "val": 152, "test": 659}


def test_omniglot_may_be_split_as_mamls_code_does_or_by_a_file_of_ones_own(
    small_omniglot: Path, cache: Path, tmp_path: Path
) -> None:
    source = make_omniglot(small_omniglot, cache, split="random", rotation="none")
    assert source.info.facts["classes"] == {"train": 1100, "val": 100, "test": 423}
    both = make_omniglot(small_omniglot, cache, split="random", rotation="none", trainval=True)
    assert both.info.facts["classes"]["train"] == 1200
    assert both.classes["test"] == source.classes["test"]
    names = sorted(name.partition("/")[2] for name in source.classes["test"])[:15]
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"{part} {name}\n" for k, name in enumerate(names) for part in [SPLITS[k // 5]]))
    own = make_omniglot(small_omniglot, cache, split=str(file), rotation="none")
    assert own.classes["val"] == {f"Omniglot/{name}" for name in names[5:10]}
    with pytest.raises(ValueError, match=r"data.split=vinyls is not one of vinyals, lake, random, and no file"):
        make_omniglot(small_omniglot, cache, split="vinyls")


@pytest.mark.parametrize("rotation", ["none", "class"])
def test_within_alphabet_draws_all_characters_of_a_task_from_one(
    small_omniglot: Path, cache: Path, rotation: str
) -> None:
    changes = {"split": "lake", "rotation": rotation}
    within = make_omniglot(small_omniglot, cache, within_alphabet=True, **changes)
    across = make_omniglot(small_omniglot, cache, **changes)
    names = read_split("omniglot_lake")["test"]

    def alphabets(source: Omniglot) -> list[set[str]]:
        classes = source.draw_episodes("test", np.arange(200))[0][0].classes % len(names)
        return [{names[c].split("/")[0] for c in task} for task in classes]

    assert {len(found) for found in alphabets(within)} == {1}
    assert len(set.union(*alphabets(within))) == 20  # every evaluation alphabet comes up
    assert max(len(found) for found in alphabets(across)) > 1


def test_within_alphabet_says_when_no_alphabet_is_large_enough(small_omniglot: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match="the largest has 40"):
        make_omniglot(small_omniglot, cache, within_alphabet=True, split="lake", plan=50)


def test_a_second_start_reads_the_cache_and_not_the_images(
    small_omniglot: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_omniglot(small_omniglot, cache)
    monkeypatch.setattr(omniglot, "_by_character", lambda *arguments: pytest.fail("images were read again"))
    assert torch.equal(make_omniglot(small_omniglot, cache).pixels, first.pixels)


def test_resize_filter_and_inversion_change_the_pixels(small_omniglot: Path, cache: Path) -> None:
    first = make_omniglot(small_omniglot, cache).pixels
    assert torch.equal(make_omniglot(small_omniglot, cache, invert=False).pixels, 255 - first)
    assert not torch.equal(make_omniglot(small_omniglot, cache, interpolation="nearest").pixels, first)


def test_ink_is_bright_and_paper_dark(small_omniglot: Path, cache: Path) -> None:
    """One pixel in ten of the drawings is ink, black on white; `invert` is on, see the test above for off."""
    batch = make_omniglot(small_omniglot, cache).batch("train", np.arange(8))
    assert batch.support.x.mean().item() == pytest.approx(0.1, abs=0.02)


def test_unpacked_folders_give_the_same_images_as_zip_files(small_omniglot: Path, cache: Path, tmp_path: Path) -> None:
    for part in omniglot.PARTS:
        zipfile.ZipFile(small_omniglot / "omniglot" / f"{part}.zip").extractall(tmp_path)
    folder, archive = make_omniglot(tmp_path, cache), make_omniglot(small_omniglot, cache)
    assert torch.equal(folder.pixels, archive.pixels)
    assert folder.fingerprint("test", 9) == archive.fingerprint("test", 9)


def test_without_omniglot_and_without_a_network_the_error_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("Connection refused")

    monkeypatch.setattr("torchvision.datasets.Omniglot.download", refuse)
    with pytest.raises(ValueError, match=r"download failed .Connection refused.*images_background.zip.*METARUN_DATA"):
        make_omniglot(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="in a folder that does not exist"):
        make_omniglot(tmp_path / "no" / "such", tmp_path)


@pytest.mark.parametrize("honest", [True, False])
def test_omniglot_is_downloaded_with_its_checksums(
    small_omniglot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: bool
) -> None:
    """From a server on this machine, with the checksums of what it serves, or of something else."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(small_omniglot / "omniglot"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sums = {
            part: hashlib.md5((small_omniglot / "omniglot" / f"{part}.zip").read_bytes()).hexdigest()
            if honest
            else "0" * 32
            for part in omniglot.PARTS
        }
        monkeypatch.setattr(Download, "download_url_prefix", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(Download, "zips_md5", sums)
        if honest:
            source = make_omniglot(tmp_path / "new", tmp_path)
            monkeypatch.setattr(Download, "__init__", lambda *arguments, **options: pytest.fail("downloaded again"))
            assert make_omniglot(tmp_path / "new", tmp_path).fingerprint("val", 9) == source.fingerprint("val", 9)
            assert source.fingerprint("test", 9) == make_omniglot(small_omniglot, tmp_path).fingerprint("test", 9)
        else:
            with pytest.raises(ValueError, match="download failed"):
                make_omniglot(tmp_path / "new", tmp_path)
            assert not (tmp_path / "new" / "omniglot-py" / "complete").exists()
        server.shutdown()


def test_what_a_killed_download_left_is_not_taken_for_omniglot(small_omniglot: Path, tmp_path: Path) -> None:
    """Both archives lie there, but the lock says that nobody has checked the second."""
    folder = shutil.copytree(small_omniglot / "omniglot", tmp_path / "omniglot-py")
    assert len(find_files(str(tmp_path))) == 2
    (folder / "lock").touch()
    assert find_files(str(tmp_path)) == []
    (folder / "complete").touch()
    assert len(find_files(str(tmp_path))) == 2


@pytest.mark.parametrize("split", ["omniglot_vinyals", "omniglot_lake"])
def test_shipped_splits_are_disjoint_and_cover_every_character(split: str) -> None:
    names = [name for part in read_split(split).values() for name in part]
    assert len(names) == len(set(names)) == 1623


def test_an_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="omniglot_lake, omniglot_vinyals"):
        read_split("omniglot_official")


def test_glyphs_are_the_same_for_a_seed_and_disjoint_in_alphabets(cache: Path) -> None:
    assert torch.equal(draw_all(2, 3, 4, 7).pixels, draw_all(2, 3, 4, 7).pixels)
    assert not torch.equal(draw_all(2, 3, 4, 7).pixels, draw_all(2, 3, 4, 8).pixels)
    source = Glyphs(PLAN, CPU, str(cache), 10, 12, 20, 0, "none")
    assert source.info.facts["classes"] == {"train": 72, "val": 24, "test": 24}


def test_large_files_that_were_just_written_are_not_hashed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_files, "MAX_HASHED", 0)
    images = ImageClasses(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), np.array([0, 2]), ["a"])
    open_or_make(tmp_path, "x", "k" * 16, lambda: images)
    monkeypatch.setattr(cache_files, "_hash_pixels", lambda _: pytest.fail("hashed again"))
    assert open_or_make(tmp_path, "x", "k" * 16, lambda: pytest.fail("made again")).names == ["a"]


def test_two_processes_that_want_the_same_images_make_them_once(tmp_path: Path) -> None:
    made = []

    def make() -> ImageClasses:
        made.append(1)
        return ImageClasses(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), np.array([0, 2]), ["a"])

    threads = [threading.Thread(target=open_or_make, args=(tmp_path, "x", "k" * 16, make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_cache_holds_the_hash_of_its_pixels(tmp_path: Path) -> None:
    pixels = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2)
    kept = open_or_make(tmp_path, "x", "k" * 16, lambda: ImageClasses(pixels, np.array([0, 2]), ["a"]))
    assert torch.equal(kept.pixels, pixels)
    (file,) = tmp_path.glob("*.safetensors")
    with safe_open(file, framework="numpy") as opened:
        assert opened.metadata()["sha256"] == hashlib.sha256(bytes(range(8))).hexdigest()


def test_a_half_made_cache_is_never_used(tmp_path: Path) -> None:
    def fail() -> ImageClasses:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_or_make(tmp_path, "x", "k" * 16, fail)
    assert not list(tmp_path.glob("*.safetensors"))


def test_images_that_need_more_memory_than_there_is_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has holes in place of its images, 1.1 TB of them."""
    names, starts = [f"c{i:02d}" for i in range(15)], np.arange(16) * 1_000_000
    create_cache_file(tmp_path / "small", names, starts, (1, 1, 1, 1))
    start = (tmp_path / "small").read_bytes()[:-1]
    size = 15_000_000 * 3 * 160 * 160
    header = start[8:].replace(b"[1, 1, 1, 1]", b"[15000000, 3, 160, 160]").replace(b"[0, 1]", f"[0, {size}]".encode())
    with open(tmp_path / f"big-{'k' * 16}.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    monkeypatch.setattr(cache_files, "find_damage", lambda path: "")  # there are no pixels to be hashed
    data = open_or_make(tmp_path, "big", "k" * 16, lambda: pytest.fail("made again"))
    source = ImageTasks(data, dict(zip(SPLITS, (names[:5], names[5:10], names[10:]), strict=True)), PLAN, "none", CPU)
    assert source.batch("test", np.arange(2)).query.x.shape == (2, 10, 3, 160, 160)


def cut(data: bytes) -> bytes:
    return data[:-1]


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def rename_class(data: bytes) -> bytes:
    return data.replace(b'"a\\"', b'"b\\"', 1)


def blank_header(data: bytes) -> bytes:
    return data[:8] + b" " * (len(data) - 8)


def forget_hash(data: bytes) -> bytes:
    return data.replace(b'"sha256"', b'"sha255"')


@pytest.mark.parametrize("damage", [cut, flip, rename_class, blank_header, forget_hash])
@pytest.mark.parametrize("hashed", [2**28, 4])
def test_a_damaged_cache_is_told_and_made_again(
    damage: Callable[[bytes], bytes],
    hashed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Small files are compared with their hash at each start, larger ones whenever they were written to."""
    monkeypatch.setattr(cache_files, "MAX_HASHED", hashed)
    whole = ImageClasses(torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2), np.array([0, 2]), ["a"])
    open_or_make(tmp_path, "x", "k" * 16, lambda: whole)
    open_or_make(tmp_path, "x", "k" * 16, lambda: pytest.fail("made again"))
    assert not caplog.text
    (file,) = tmp_path.glob("*.safetensors")
    before = file.read_bytes()
    assert damage(before) != before
    file.write_bytes(damage(before))
    again = open_or_make(tmp_path, "x", "k" * 16, lambda: whole)
    assert torch.equal(again.pixels, whole.pixels)
    assert again.names == ["a"]
    assert f"{file} are made again: " in caplog.text
    assert file.read_bytes() == before


def test_rotation_class_makes_four_classes_of_one_and_turns_their_images() -> None:
    plain, turned = noise_tasks(), noise_tasks(rotation="class")
    assert turned.info.facts["classes"]["train"] == 4 * plain.info.facts["classes"]["train"]
    assert turned.info.split_sha256 == plain.info.split_sha256
    stored = {image.numpy().tobytes() for image in turned.pixels}
    quarters = {torch.rot90(image, q, (-2, -1)).numpy().tobytes(): q for image in turned.pixels for q in range(4)}
    batch = turned.batch("train", np.arange(8))
    seen = [
        quarters[(255 * image).round().to(torch.uint8).numpy().tobytes()] for image in batch.support.x.flatten(0, 1)
    ]
    assert set(seen) == {0, 1, 2, 3}
    assert len(stored) == len(turned.pixels)


def test_rotation_train_makes_classes_of_turns_in_training_alone() -> None:
    everywhere, training, plain = noise_tasks(rotation="class"), noise_tasks(rotation="train"), noise_tasks()
    assert training.info.train_classes == 48
    assert training.info.facts["classes"] == {"train": 48, "val": 12, "test": 12}
    numbers = np.arange(6)
    assert torch.equal(training.batch("train", numbers).query.x, everywhere.batch("train", numbers).query.x)
    assert torch.equal(training.batch("test", numbers).query.x, plain.batch("test", numbers).query.x)


def test_rotation_random_turns_the_images_of_a_class_alike() -> None:
    source = noise_tasks(rotation="random")
    quarters = {torch.rot90(image, q, (-2, -1)).numpy().tobytes(): q for image in source.pixels for q in range(4)}
    batch = source.batch("train", np.arange(6))
    x, y = (
        torch.cat(pair, 1) for pair in zip(*((side.x, side.y) for side in (batch.support, batch.query)), strict=True)
    )
    for images, labels in zip(x, y, strict=True):
        turns = [quarters[(255 * image).round().to(torch.uint8).numpy().tobytes()] for image in images]
        assert len({(int(label), turn) for label, turn in zip(labels, turns, strict=True)}) == 5


def test_rotation_random_turns_each_class_of_a_task_for_itself() -> None:
    """All 5 of a task alike by one chance in 4^4: of 200 tasks about 199 have two turns or more, and all turns come."""
    source = noise_tasks(rotation="random")
    [(drawn, _)] = source.draw_episodes("train", np.arange(200))
    _, turns = source.place_images("train", drawn, drawn.support, drawn.support_y)  # one image of each of the 5 classes
    assert sum(len(set(task)) > 1 for task in turns.tolist()) > 190
    assert (np.bincount(turns.flatten(), minlength=4) > 200).all()  # 250 each


def test_too_few_classes_or_images_are_said_with_what_would_do() -> None:
    with pytest.raises(
        ValueError, match=r"data.n_way=13 needs 13 classes; split 'val' has 12. Set data.n_way=12 or less"
    ):
        noise_tasks(test=EpisodeShape(13, 1, 1))
    with pytest.raises(
        ValueError,
        match=r"data.train.n_query=20 need 21 images .* has 20, and 11 more have too few. Set data.train.n_query=19",
    ):
        noise_tasks(train=EpisodeShape(5, 1, 20))


@pytest.mark.parametrize(("one", "two"), [*combinations(SPLITS, 2)])
def test_classes_shared_between_splits_are_refused(one: str, two: str) -> None:
    data = ImageClasses(torch.zeros(60, 1, 4, 4, dtype=torch.uint8), np.array([0, 20, 40, 60]), ["a", "b", "c"])
    plan = replace(PLAN, train=EpisodeShape(1, 1, 1), test=EpisodeShape(1, 1, 1))
    split = {"train": ["a"], "val": ["b"], "test": ["c"]}
    ImageTasks(data, split, plan, "none", CPU)
    with pytest.raises(ValueError, match=f"splits {one} and {two} share 1 classes, {split[one][0]} among them"):
        ImageTasks(data, split | {two: split[one]}, plan, "none", CPU)
