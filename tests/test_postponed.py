"""What a source writes beside the data, as the split that it drew, is written once its command is accepted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from image_folders import write_noise
from same_process import Use

from metarun.core.errors import ConfigError
from metarun.core.postponed import postponed, write_later

SHAPES = ["data.n_way=2", "data.k_shot=1", "data.n_query=2", "data.train.n_query=2"]
RUN = ["run.steps=1", "run.meta_batch_size=1", "run.val_tasks=2", "run.test_tasks=2", "logger=none"]
IMAGES = ["data=folder", "data.path=photos", "data.image_size=8", "backbone.hidden=4", "backbone.layers=1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that one is in, with eight classes of images, and of lines."""
    monkeypatch.chdir(tmp_path)
    write_noise(tmp_path / "photos", [f"c{number}" for number in range(8)], 4, 8, 8)
    (tmp_path / "lines").mkdir()
    for number in range(8):
        (tmp_path / "lines" / f"c{number}.txt").write_text("\n".join(f"word{number} {line}" for line in range(4)))
    return tmp_path


def list_splits(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*split*.txt"))


def test_what_is_written_later_waits_for_the_end_and_is_left_out_after_an_error() -> None:
    written: list[str] = []
    write_later(lambda: written.append("alone"))
    assert written == ["alone"]
    with postponed():
        write_later(lambda: written.append("first"))
        with postponed():
            write_later(lambda: written.append("within"))
        write_later(lambda: written.append("last"))
        assert written == ["alone"]
    assert written == ["alone", "first", "within", "last"]
    with suppress(RuntimeError), postponed():
        write_later(lambda: written.append("refused"))
        raise RuntimeError
    with postponed(by_another=True):
        write_later(lambda: written.append("another's"))
    write_later(lambda: written.append("again"))
    assert written == ["alone", "first", "within", "last", "again"]


def test_what_cannot_be_written_is_the_settings_fault() -> None:
    def fail() -> None:
        raise ValueError("cannot write it")

    with pytest.raises(ConfigError, match="cannot write it"), postponed():
        write_later(fail)


@pytest.mark.parametrize(
    ("words", "wrong", "split"),
    [
        ([*IMAGES, "algo=protonet"], ["logger=wandb", f"logger.tags=[{'x' * 70}]"], "photos_split_64_16_20_seed0.txt"),
        (
            [*IMAGES, "algo=protonet"],
            ["data.split=mine_split.txt", "logger=wandb", "logger.project=a/b"],
            "mine_split.txt",
        ),
        (["data=text", "data.path=lines", "algo=protonet", "backbone=mlp"], ["backbone=conv4"], "lines_split_"),
    ],
)
def test_a_refused_run_leaves_no_split_and_one_that_begins_does(
    use: Use, here: Path, words: list[str], wrong: list[str], split: str
) -> None:
    code, _, errors = use(*words, *SHAPES, *RUN, *wrong, "hydra.run.dir=run")
    assert code == 2, errors
    assert list_splits(here) == []
    right = [word for word in wrong if word.startswith("data.")]
    code, _, errors = use(*words, *SHAPES, *RUN, *right, "hydra.run.dir=run")
    assert code == 0, errors
    assert [name.startswith(split) for name in list_splits(here)] == [True]


def test_so_does_a_refused_test_of_other_data(use: Use, here: Path) -> None:
    code, _, errors = use(*IMAGES, "algo=protonet", *SHAPES, *RUN, "hydra.run.dir=run")
    assert code == 0, errors
    write_noise(here / "more", [f"d{number}" for number in range(8)], 4, 8, 8)
    told = list_splits(here)
    for head, done in (("feat", 2), ("matchingnet", 0)):
        code, _, errors = use("eval", "run", "data.path=more", f"algo={head}")
        assert (code, list_splits(here) == told) == (done, done == 2), errors


def test_a_split_that_cannot_be_written_is_told_before_the_test_and_not_after(
    use: Use, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, errors = use(*IMAGES, "algo=protonet", *SHAPES, *RUN, "hydra.run.dir=run")
    assert code == 0, errors
    write_noise(here / "more", [f"d{number}" for number in range(8)], 4, 8, 8)

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("metarun.data.files.split_file.write_bytes", refuse)
    code, _, errors = use("eval", "run", "data.path=more")
    assert code == 2
    assert "cannot write the class split" in errors
    assert not list((here / "run").glob("evals/*"))
