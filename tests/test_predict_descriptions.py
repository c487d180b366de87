"""`metarun predict` and `metarun.Model` where classes are told by descriptions: vectors, or names of classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL, TINY_CLIP
from PIL import Image
from same_process import Use
from torch import Tensor

from metarun import Model
from metarun.core.errors import ConfigError
from metarun.core.tasks import Batch, Examples
from metarun.data.given import find_scale
from metarun.settings.build import build_source
from metarun.settings.compose import compose
from metarun.settings.conf import list_parts
from metarun.settings.reopen import reopen
from metarun.settings.resolve import resolve

ZERO_SHOT = [
    *[word for word in SMALL if not word.startswith(("data.alph", "data.char"))],
    "algo=zero_shot", "data=described", "data.n_way=4", "logger=none",
]  # fmt: skip


def train(use: Use, run: Path, *words: object) -> Path:
    code, out, error = use(*ZERO_SHOT, f"hydra.run.dir={run}", *words)
    assert (code, error) == (0, ""), out
    return run


def draw_task(run: Path) -> tuple[Batch, dict[str, Any], Tensor]:
    """The first test task of a run's own source, the plain descriptions of its classes, and its queries' pixels."""
    source: Any = build_source(reopen(run).resolve(), torch.device("cpu"))
    batch, names = source.batch("test", np.arange(1)), source.labels("test", 0)
    [(drawn, _)] = source.source.draw_episodes("test", np.arange(1))
    rows, turn = source.source.place_images("test", drawn, drawn.query, drawn.query_y)
    known = source.source.describe_classes()
    return batch, {name: known[name.split(" turned")[0]] for name in names}, source.source.gather_images(rows, turn)[0]


def test_descriptions_are_scaled_as_in_training_and_answers_are_those_of_the_test(use: Use, tmp_path: Path) -> None:
    """Strokes of a task's characters, several for each, as they are in the source; and one vector each, in a file."""
    run = train(use, tmp_path / "run")
    batch, strokes, pixels = draw_task(run)
    model = Model.load(run)
    few = model.adapt(strokes)
    expected = model.learner.adapt_to(Examples(batch.support.x[0], batch.support.y[0]), 4)(batch.query.x[0])  # type: ignore[attr-defined]
    assert few.classes == list(strokes)
    assert torch.allclose(few.logits(pixels), expected, atol=1e-5)
    assert expected.std() > 1e-3
    firsts = {name: several[0] for name, several in strokes.items()}
    rows = [",".join([f"kind {n}", *map(repr, map(float, vector))]) for n, vector in enumerate(firsts.values())]
    (tmp_path / "kinds.csv").write_text("\n".join(rows))
    (tmp_path / "query").mkdir()
    for number, image in enumerate(pixels[:3]):
        Image.fromarray(image[0].numpy()).save(tmp_path / "query" / f"{number}.png")
    code, out, error = use(
        "predict", run, "--support", tmp_path / "kinds.csv", "--query", tmp_path / "query",
        "--csv", tmp_path / "a.csv", "--png", tmp_path / "a.png",
    )  # fmt: skip
    assert (code, error) == (0, ""), out
    assert "4 classes, 1 description each" in out
    told = np.loadtxt(tmp_path / "a.csv", str, delimiter=",")
    assert told[0][-4:].tolist() == [f"p:kind {n}" for n in range(4)]
    found = model.adapt(firsts).probabilities(pixels[:3])
    assert torch.allclose(torch.from_numpy(told[1:, -4:].astype(np.float32)), found, atol=1e-4)
    assert Image.open(tmp_path / "a.png").width > 500


def test_descriptions_of_turned_images_are_of_images_as_they_come(use: Use, tmp_path: Path) -> None:
    """Photos of new classes are not turned, and the description of a class that is not says so in four more numbers."""
    run = train(use, tmp_path / "run", "+data.members.glyphs.rotation=class", "run.steps=0")
    model, vectors = Model.load(run), np.random.default_rng(0).normal(size=(2, 8))
    mean, std = (np.array(side) for side in model.info.support_scale or ())
    found = model.adapt(dict(zip("ab", vectors, strict=True))).examples.x
    assert found.shape == (2, 12)
    assert torch.allclose(found[:, :8], torch.from_numpy((vectors - mean) / std).float(), atol=1e-5)
    assert found[:, 8:].tolist() == [[1, 0, 0, 0]] * 2
    source: Any = build_source(reopen(run).resolve(), torch.device("cpu"))
    batch, names = source.batch("test", np.arange(8)), [source.labels("test", task) for task in range(8)]
    upright = [(t, c) for t, task in enumerate(names) for c, name in enumerate(task) if "turned" not in name]
    assert upright
    for task, label in upright:
        assert (batch.support.x[task][batch.support.y[task] == label][:, 8:] == torch.tensor([1.0, 0, 0, 0])).all()


def test_photos_are_read_as_the_source_of_the_images_reads_them(use: Use, tmp_path: Path) -> None:
    """Of Omniglot's kind, whose paper is 0: the setting stands with the images' source, not with the wrapper."""
    run = train(use, tmp_path / "run", "run.steps=0")
    settings = Model.load(run).settings
    assert list_parts(settings.as_dict(), ())[0]["_target_"].endswith("Glyphs")
    for words, inverted in (((), True), (("+data.members.omniglot.invert=false",), False)):
        omniglot = resolve(compose(["data=named", "data.images=omniglot", *words])).as_dict()
        [part] = list_parts(omniglot, ())
        assert find_scale(part, (1, 28, 28)).invert is inverted
    assert find_scale(omniglot["data"], (1, 28, 28)).invert is False


def test_what_is_no_description_is_told(use: Use, tmp_path: Path) -> None:
    run = train(use, tmp_path / "run", "run.steps=0")
    model = Model.load(run)
    for given, told in (
        (["a", "b"], r'the run tells classes by descriptions: \{"fox": a vector of 8 numbers'),
        ({"a": [1.0] * 8, "b": [1.0] * 7}, r"the description of b has the shape \[7\]; those of the run are 8"),
        ({"a": [1.0] * 8, "b": ["x"] * 8}, r"the description of b is no vector of numbers"),
        ({"a": [1.0] * 8, "b": [float("nan")] * 8}, r"those of the run are 8 finite numbers"),
        ({"a": [1.0] * 8, "b": np.empty((0, 8))}, r"the description of b has the shape \[0, 8\]"),
        ({"a": [1.0] * 8}, r"two classes at least; this one has 1"),
        ({}, r"two classes at least; this one has 0"),
    ):
        with pytest.raises(ConfigError, match=told):
            model.adapt(given)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    Image.new("L", (28, 28)).save(tmp_path / "photos" / "a" / "0.png")
    code, out, error = use("predict", run, "--support", tmp_path / "photos", "--query", tmp_path / "photos")
    assert code == 2, out
    assert "photos must be a .csv, .tsv or .npz file of descriptions" in error


def test_a_run_that_does_not_know_how_its_descriptions_were_scaled_says_so(use: Use, tmp_path: Path) -> None:
    """As those of before November 28 do not."""
    run = train(use, tmp_path / "run", "run.steps=0")
    model = Model.load(run)
    model.info = replace(model.info, support_scale=None)
    with pytest.raises(ConfigError, match=r"does not say how its descriptions are scaled: train it again"):
        model.adapt({"a": [1.0] * 8, "b": [2.0] * 8})


def test_names_of_classes_are_enough_for_a_pair_of_image_and_text(use: Use, tmp_path: Path) -> None:
    """Of a list and of folders, by cosines to the texts over the temperature."""
    pytest.importorskip("open_clip")
    from metarun.data.files.class_names import tokenize_names

    run = train(
        use, tmp_path / "run", "run.steps=0", "algo.network=texts", "algo.distance=cosine", "algo.temperature=0.05",
        "data.descriptions=names", "data.templates=['a {}','the {}']", "backbone=open_clip",
        f"backbone.name={TINY_CLIP}", "backbone.frozen=true", "backbone.text=true", "bn=none",
    )  # fmt: skip
    model, names = Model.load(run), ["red fox", "owl", "bear"]
    images = [np.random.default_rng(n).integers(0, 255, (28, 28), np.uint8) for n in range(3)]
    net: Any = model.learner.backbone
    known = tokenize_names(names, ["a {}", "the {}"])
    with torch.no_grad():
        seen = net(model.make_inputs(model.read_pixels(images)[0]))
        texts = [F.normalize(net.text(torch.from_numpy(known[name]).long()), dim=-1).mean(0) for name in names]
    expected = F.normalize(seen, dim=-1) @ F.normalize(torch.stack(texts), dim=-1).T / 0.05
    assert torch.allclose(model.adapt(names).logits(images), expected, atol=1e-4)
    for n, name in enumerate(names):
        (tmp_path / "kinds" / name).mkdir(parents=True)
        Image.fromarray(images[n]).save(tmp_path / "kinds" / name / "0.png")
    (tmp_path / "names.txt").write_text("\nred fox\nowl \n\nbear\n")
    answers = []
    for support in ("names.txt", "kinds"):
        words = (
            "predict",
            run,
            "--support",
            tmp_path / support,
            "--query",
            tmp_path / "kinds",
            "--csv",
            tmp_path / "a.csv",
        )
        code, out, error = use(*words)
        assert (code, error) == (0, ""), out
        assert "accuracy" in out
        answers.append((tmp_path / "a.csv").read_text())
    columns = [
        {head: column for head, *column in zip(*(line.split(",") for line in answer.splitlines()), strict=True)}
        for answer in answers
    ]
    assert columns[0].keys() == columns[1].keys() >= {"class", *(f"p:{name}" for name in names)}
    assert columns[0]["class"] == columns[1]["class"]
    for name in names:
        one, other = (np.array(column[f"p:{name}"], float) for column in columns)
        assert np.allclose(one, other, atol=1e-5)
    for given in ("fox", [], ["fox", "fox"], [1, 2]):
        with pytest.raises(ConfigError, match=r'by their names: \["fox", "owl"\], each once'):
            model.adapt(given)
    (tmp_path / "names.txt").write_bytes("füchse\nowl".encode("latin-1"))
    code, out, error = use("predict", run, "--support", tmp_path / "names.txt", "--query", tmp_path / "kinds")
    assert code == 2, out
    assert "names.txt: it is no text" in error
