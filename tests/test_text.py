"""data=text: labelled lines as vectors, and tasks of them."""

from __future__ import annotations

import sys
import types
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from test_contract import parts_of

from metarun.core.errors import ConfigError
from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.files.labelled_lines import read_lines
from metarun.data.text import Text
from metarun.ops.ngrams import hash_ngrams

LETTERS = "abcdefghijklmno"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """15 classes of nine texts: words of one letter of its own, and numbers."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for letter in LETTERS:
        lines = "\n".join(f"{letter * (2 + number)} {number}" for number in range(9))
        (folder / f"class {letter}.txt").write_text(lines + "\n\n")
    return folder


def open_text(path: Path | None, **values: object) -> Text:
    plan = EpisodePlan(EpisodeShape(4, 2, 3), EpisodeShape(3, 1, 4), 0, 0)
    settings = {"split": None, "fractions": [0.4, 0.3, 0.3], "split_seed": 0, "least": 1, "buckets": 64}
    settings |= {"lengths": [1, 2], "encoder": None, **values}
    return Text(plan, torch.device("cpu"), None if path is None else str(path), **settings)  # type: ignore[arg-type]


def test_a_text_becomes_signed_counts_of_its_ngrams_of_length_one() -> None:
    """` ab ` has the 1-grams blank (twice), a, b and the 2-grams ` a`, `ab`, `b `; letters' size and blanks do not
    count. Squares 4 + 5 of one each: norm 3, if no two share a bucket of the million."""
    n = 1_000_003
    for text in ("ab", " AB\n"):
        (vector,) = hash_ngrams([text], n, [1, 2])
        expected = np.zeros(n)
        for gram, count in {" ": 2, "a": 1, "b": 1, " a": 1, "ab": 1, "b ": 1}.items():
            word = zlib.crc32(gram.encode())
            expected[(word >> 1) % n] += count * (1 if word % 2 == 0 else -1) / 3
        assert np.count_nonzero(expected) == 6
        assert np.abs(vector - expected).max() < 1e-7
    assert not hash_ngrams(["ab"], 8, [9, 9]).any()


def test_scalar_products_are_those_of_the_counts_on_average() -> None:
    """Cosine of ` ab ` and ` cb ` by 1-grams: (2 2 + 1) / 6. Over 400 numbers of buckets, all prime to each other or
    not, collisions cancel: the mean is within 4 standard errors."""
    found = [float(np.prod(hash_ngrams(["ab", "cb"], buckets, [1, 1]), 0).sum()) for buckets in range(50, 450)]
    assert abs(np.mean(found) - 5 / 6) < 4 * np.std(found) / len(found) ** 0.5 + 0.01


def test_a_folder_and_a_table_of_the_same_lines_are_the_same_tasks(place: Path, tmp_path: Path) -> None:
    rows = [f'{label}\t"{line}"\tx' for label, lines in read_lines(place).items() for line in lines]
    table = tmp_path / "table.tsv"
    table.write_text("\n".join(["label\ttext\tmore", *rows, "empty\t\tx"]))
    assert read_lines(table) == read_lines(place)
    one, other = (next(open_text(where).episodes("test", 3, 2)) for where in (place, table))
    assert torch.equal(one.query.x, other.query.x)
    assert one.support.x.shape == (2, 3, 64)
    assert one.query.y.shape == (2, 12)


def test_tasks_and_examples_are_of_the_classes_that_they_say(place: Path) -> None:
    source = open_text(place)
    rows = {
        tuple(vector.tolist()): f"class {text[0]}"
        for letter in LETTERS
        for text in [f"{letter * (2 + number)} {number}" for number in range(9)]
        for vector in hash_ngrams([text], 64, [1, 2])
    }
    for split in ("train", "val", "test"):
        batch = next(source.episodes(split, 2, 1))
        names = source.labels(split, 2)
        for side in (batch.support, batch.query):
            said = [rows[tuple(x.tolist())] for x in side.x[0]]
            assert said == [names[y] for y in side.y[0].tolist()]
    assert not source.classes["train"] & (source.classes["val"] | source.classes["test"])
    n = 9 * source.info.train_classes
    x, y = next(source.examples("train", 0, n))
    assert len({tuple(one.tolist()) for one in x}) == n  # each once before any again
    named = {int(label): rows[tuple(one.tolist())] for one, label in zip(x, y, strict=True)}
    assert len(set(named.values())) == source.info.train_classes
    later = next(source.examples("train", 7, 5))
    assert torch.equal(later.x, x[7:12])
    again = list(islice(source.episodes("train", 0, 3), 2))
    assert torch.equal(next(open_text(place).episodes("train", 3, 3)).support.x, again[1].support.x)


def test_the_split_is_written_once_and_read_from_then_on(place: Path) -> None:
    first = open_text(place)
    (file,) = place.parent.glob("texts_split_40_30_30_seed0.txt")
    lines = file.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["train"] * 7 + ["val"] * 4 + ["test"] * 4
    assert open_text(place).info.split_sha256 == first.info.split_sha256
    file.write_text("\n".join([*lines[:6], lines[6].replace("train", "test"), *lines[7:]]))
    assert open_text(place).info.train_classes == 6
    assert open_text(place).info.split_sha256 != first.info.split_sha256
    assert open_text(place, split_seed=1).info.split_sha256 != first.info.split_sha256


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"path": None}, "data=text needs data.path=FOLDER"),
        ({"path": "nowhere"}, "data.path=nowhere is not there"),
        ({"least": 10}, "one class|needs"),
        ({"encoder": "some-model"}, "needs sentence-transformers, which is not installed"),
    ],
)
def test_what_cannot_be_read_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, object], said: str
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    path = values.pop("path", place)
    if "least" in values:
        (place / "class a.txt").write_text("\n".join(map(str, range(12))))
    with pytest.raises(ValueError, match=said):
        open_text(Path(str(path)) if path else None, **values)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, content, said in (
        ("a.csv", "label,words\nx,y\n", "has no column text"),
        ("a.json", "{}", "neither a folder nor a table"),
        ("b.csv", "label,text\n", "has no samples"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=said):
            read_lines(tmp_path / name)
    (tmp_path / "c.csv").write_bytes(b"label,text\nx,\xff\xfe\n")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_lines(tmp_path / "c.csv")


def test_a_sentence_encoder_gives_the_vectors_when_it_is_installed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SentenceTransformer:
        def __init__(self, name: str, device: str) -> None:
            assert (name, device) == ("some-model", "cpu")

        def encode(self, texts: list[str], normalize_embeddings: bool) -> np.ndarray:
            assert normalize_embeddings
            return np.array([[len(text), 1.0, 2.0] for text in texts])

    module = types.ModuleType("sentence_transformers")
    monkeypatch.setattr(module, "SentenceTransformer", SentenceTransformer, raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    source = open_text(place, encoder="some-model")
    assert source.info.input_shape == (3,)
    assert set(next(source.episodes("test", 0, 1)).query.x[0, :, 0].tolist()) <= set(map(float, range(4, 13)))


def test_protonet_trains_on_texts(settings: Callable[..., DictConfig], place: Path) -> None:
    words = ["data=text", f"data.path={place}", "data.n_way=2", "data.train.n_way=3", "data.buckets=32"]
    parts = parts_of(settings("algo=protonet", "backbone=mlp", *words, "data.n_query=2", "data.train.n_query=2"))
    metrics = parts.learner.meta_step(next(parts.learner.train_stream(parts.source, 0, 2)), parts.optims)
    assert torch.isfinite(metrics["loss"])
    with pytest.raises(ConfigError, match="set backbone=mlp"):
        parts_of(settings("algo=protonet", "backbone=conv4", *words))
