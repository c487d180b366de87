"""`metarun data`: what is at hand, preparing, drawing; and every source's YAML that needs no files, as a run would."""

from __future__ import annotations

import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from commands import metarun, start
from image_folders import write_noise
from PIL import Image

from metarun.settings.conf import CONF

BLOOD = """
from pathlib import Path

class Blood:
    @staticmethod
    def find_files(path):
        return sorted(Path(path).glob("cells.npz"))
"""
"""A source of one's own, as far as `metarun data` asks it."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty classes of twenty noisy pictures."""
    return write_noise(tmp_path / "photos", [f"c{c:02d}" for c in range(20)], 20, 90, 90, 3)


def test_every_source_is_listed_with_what_is_at_hand(tmp_path: Path) -> None:
    (tmp_path / "data" / "mini_imagenet").mkdir(parents=True)
    (tmp_path / "data" / "mini_imagenet" / "part.zip").write_bytes(b"0" * 3_000_000)
    (tmp_path / "data" / "cells.npz").touch()
    (tmp_path / "blood.py").write_text(BLOOD)
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "blood.yaml").write_text("# Cells\n_target_: blood.Blood\npath: ${paths.data}\n")
    (tmp_path / "mine" / "data" / "mini.yaml").write_text("# Mini\ndefaults: [mini_imagenet, _self_]\nn_way: 3\n")
    words = ["data", "--config-dir", "mine"]
    code, out, error = metarun(*words, cwd=tmp_path, cache=tmp_path / "cache", METARUN_DATA=str(tmp_path / "data"))
    assert (code, error) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert {path.stem for path in (CONF / "data").glob("*.yaml")} <= lines.keys()
    assert "part.zip" in lines["mini_imagenet"]
    assert "3 MB" in lines["mini_imagenet"]
    assert "no" in lines["cub"].split()
    assert "cells.npz" in lines["blood"]
    assert "part.zip" in lines["mini"]


def test_links_that_lead_nowhere_and_damaged_files_do_not_end_the_list(tmp_path: Path) -> None:
    (tmp_path / "data" / "fc100").mkdir(parents=True)
    (tmp_path / "data" / "fc100" / "0.png").symlink_to("/nowhere")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cut.safetensors").write_bytes(b"cut")
    (tmp_path / "cache" / "features-0123.safetensors").write_bytes(b"0" * 2_000_000)
    code, out, error = metarun("data", cwd=tmp_path, cache=tmp_path / "cache", METARUN_DATA=str(tmp_path / "data"))
    assert (code, error) == (0, "")
    assert "0 MB" in next(line for line in out.splitlines() if line.split()[:1] == ["fc100"])
    assert "damaged" in next(line for line in out.splitlines() if "cut.safetensors" in line)
    assert "embeddings by 1 networks: 2 MB" in out
    assert "features-0123" not in out


def test_preparing_says_what_there_is_and_a_second_time_finds_it(photos: Path, tmp_path: Path) -> None:
    words = ["data", "prepare", "folder", f"data.path={photos}", "data.n_way=3"]
    for first in (True, False):
        code, out, error = metarun(*words, cwd=tmp_path, cache=tmp_path / "cache")
        assert (code, error) == (0, "")
        assert ("reading the 400 images of photos, once" in out) == first
        assert "train 13, val 3, test 4" in out
        assert "images   400, sha256 " in out


def test_the_first_tasks_are_drawn_with_the_names_of_their_classes(photos: Path, tmp_path: Path) -> None:
    words = ["data", "show", "folder", f"data.path={photos}", "data.n_way=3", "--split", "test", "--out", "look.png"]
    code, out, _ = metarun(*words, "--tasks", "2", cwd=tmp_path, cache=tmp_path / "cache")
    assert code == 0
    assert "task 1: 0 c" in out
    with Image.open(tmp_path / "look.png") as picture:
        assert picture.height > 2 * 3 * 84


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "prepare", "glyps"], "there is no data=glyps; did you mean glyphs?"),
        (["data", "show"], "metarun data show needs a NAME"),
        (["data", "fetch", "glyphs"], "invalid choice: 'fetch'"),
        (["data", "prepare", "mini_imagenet"], "no mini_imagenet in"),
        (["data", "prepare", "folder"], "needs data.path=FOLDER"),
        (["data", "prepare", "glyphs", "data.alphabet=3"], "there is no setting data.alphabet; did you mean"),
        (
            ["data", "show", "glyphs", "--out", "no/such/x.png"],
            "cannot write no/such/x.png: there is no folder no/such",
        ),
        (
            ["algo=maml", "data=folder", "data.path=photos", "data.n_way=8", "logger=none"],
            "Tasks need 8 + 8 + 8 = 24 classes in all (train, val, test)",
        ),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_message(
    photos: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    code, out, error = metarun(*words, cwd=tmp_path, cache=tmp_path / "cache", METARUN_DATA=str(tmp_path / "none"))
    assert code == 2
    assert said in " ".join((out + error).split())
    assert "Traceback" not in out + error


@pytest.mark.slow
def test_two_that_prepare_at_once_wait_and_a_killed_one_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    """The first is killed while it decodes, the other two start together; a corrupt half never counts."""
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for copy in range(10):
            for file in photos.rglob("*.png"):
                archive.write(file, f"{file.parent.name}/{copy}_{file.name}")
    words = ["data", "prepare", "folder", "data.path=many.zip", "data.n_way=3", "data.split=split.txt"]
    cache = tmp_path / "cache"
    killed = start(*words, cwd=tmp_path, cache=cache)
    wait_for_part(cache, killed)
    killed.kill()
    killed.communicate()
    assert list(cache.glob("*.part"))
    assert not list(cache.glob("*.safetensors"))
    both = [start(*words, cwd=tmp_path, cache=cache) for _ in range(2)]
    outs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("reading the 4000 images" in out for out in outs) == 1
    assert len({out.split("sha256 ")[2] for out in outs}) == 1
    assert not list(cache.glob("*.part"))


def wait_for_part(cache: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(2000):
        assert process.poll() is None, process.communicate()
        if list(cache.glob("*.part")):
            return
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    pytest.fail("decoding never began")
