"""`metarun predict` and `metarun.Model`: a trained run answers for somebody's images and points."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.core.global_hydra import GlobalHydra
from image_folders import write_noise
from PIL import Image
from used_runs import TINY, Say, classes_of, first_task, lay_out, queries_of

from metarun import Model
from metarun.app.answered import describe_calibration, describe_mode
from metarun.app.jobs.calibrated import Calibration
from metarun.core.calibration import find_calibration_error, fit_temperature
from metarun.core.results_file import seal
from metarun.core.whole import CannotWrite
from metarun.data.files.decode import Scale
from metarun.data.given import find_scale
from metarun.settings.build import build_source
from metarun.settings.reopen import reopen


@pytest.fixture
def task(used_runs: Path, tmp_path: Path) -> Path:
    """The first test task of `proto` as files: five classes, two support images and three queries of each."""
    return lay_out(first_task(used_runs / "proto"), tmp_path)


@pytest.mark.parametrize(("name", "bn"), [("proto", "support"), ("maml", "support"), ("running", "running")])
def test_the_answers_are_those_of_eval_bit_for_bit(
    used_runs: Path, use: Say, tmp_path: Path, task: Path, name: str, bn: str
) -> None:
    """The loss of the first test task, in float32, from the logits for files."""
    run = Path(shutil.copytree(used_runs / name, tmp_path / name))
    code, out, error = use("eval", run, f"bn={bn}", "run.test_tasks=2", "run.eval_batch_size=1")
    assert code == 0, out + error
    (file,) = (run / "evals").glob("*.npz")
    model = Model.load(run)
    assert model.bn == bn
    files = sorted(queries_of(task), key=lambda file: file.name)  # as the task has them
    logits = model.adapt(classes_of(task / "support")).logits(files)
    y = torch.tensor([int(file.parent.name[1:]) for file in files])
    with np.load(file) as found:
        assert F.cross_entropy(logits, y).item() == found["loss"][0]
        assert (logits.argmax(-1) == y).float().mean().item() == found["accuracy"][0]


def test_images_may_be_paths_open_images_arrays_or_tensors(used_runs: Path, task: Path) -> None:
    model = Model.load(used_runs / "proto")
    few, files = model.adapt(classes_of(task / "support")), queries_of(task)
    images = [Image.open(file) for file in files]
    arrays = [np.asarray(image) for image in images]
    expected = few.logits(files)
    for given in (
        [str(file) for file in files],
        images,
        arrays,
        [array[..., None].repeat(3, 2) for array in arrays],  # gray in three channels
        [array / np.float32(255) for array in arrays],
        [torch.from_numpy(array.copy()) for array in arrays],
        [torch.from_numpy(array.copy())[None].float() / 255 for array in arrays],
        torch.from_numpy(np.stack(arrays))[:, None],
        task / "query",
    ):
        assert torch.equal(few.logits(given), expected)
    ink = [array > 127 for array in arrays]
    assert torch.equal(few.logits(ink), few.logits([255 * array.astype(np.uint8) for array in ink]))
    assert torch.equal(few.logits([np.full((28, 28), 0.999)]), few.logits([np.full((28, 28), 255, np.uint8)]))  # 254.7
    others = model.adapt({label: [np.asarray(Image.open(one)) for one in own] for label, own in classes_of(task / "support").items()})  # fmt: skip # noqa: E501
    assert torch.equal(others.logits(files), expected)
    for wrong, words in (
        ([np.zeros((4, 4), np.int64) + 300], "give pixels as uint8"),
        ([np.full((4, 4), 1.5)], "fractions in 0..1, before any normalisation"),
        ([np.zeros((5, 4, 2), np.uint8)], "arrays are [H, W] or [H, W, C], tensors"),
        ([3], "image number 0 is a int"),
        (Image.new("L", (4, 4)), "put it in a list"),
        ([], "no images in the list"),
        ([task / "none.png"], f"there is no file or folder {task / 'none.png'}"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            few.predict(wrong)


def test_files_are_scaled_as_the_runs_settings_say() -> None:
    omniglot = {"interpolation": "lanczos", "invert": True, "image_size": 28, "channels": 1}
    assert find_scale(omniglot, (1, 28, 28)) == Scale(28, "lanczos", 1, "stretch", invert=True)
    folder = {"interpolation": "box", "fit": "crop", "range": [0, 4095]}
    assert find_scale(folder, (3, 84, 84)) == Scale(84, "box", 3, "crop", range=(0, 4095))
    assert find_scale({"glyph_seed": 0}, (1, 28, 28)) == Scale(28, "bicubic", 1, "crop")  # which has no files
    with pytest.raises(ValueError, match="no square images"):
        find_scale({}, (2,))


def test_gray_images_of_more_than_8_bits_are_read_by_one_range(used_runs: Path) -> None:
    """The support set goes up to 4000, so white is 4095, for a query alone too."""
    few = Model.load(used_runs / "running").adapt(
        {"a": [np.full((28, 28), 4000, np.uint16)], "b": [np.full((28, 28), 1000, np.uint16)]}
    )
    assert few.support.pixels[:, 0, 0, 0].tolist() == [249, 62]  # 255 * 4000 / 4095, 255 * 1000 / 4095
    dark, bright = np.full((28, 28), 200, np.uint16), np.full((28, 28), 4095, np.uint16)
    assert few.read([dark])[0, 0, 0, 0] == few.read([dark, bright])[0, 0, 0, 0] == 12  # 255 * 200 / 4095


def test_any_number_of_classes_and_images_where_the_method_has_no_head(used_runs: Path, task: Path) -> None:
    support = {label: files[: 1 + (label == "c1")] for label, files in list(classes_of(task / "support").items())[:3]}
    model = Model.load(used_runs / "proto")
    few, files = model.adapt(support), queries_of(task)
    assert model.n_way is None
    assert few.classes == ["c0", "c1", "c2"]
    assert few.logits(files).shape == (15, 3)
    assert few.predict(files) == [few.classes[c] for c in few.logits(files).argmax(-1)]
    alone = torch.cat([few.logits([file]) for file in files])
    assert torch.allclose(alone, few.logits(files), atol=1e-4)
    maml = Model.load(used_runs / "maml")
    assert maml.n_way == 5
    with pytest.raises(
        ValueError, match=r"this MAML has a head for 5 classes, and the support set has 3: give it 5, or "
    ):
        maml.adapt(support)
    with pytest.raises(ValueError, match=r"two classes at least; this one has 1"):
        model.adapt({"c0": support["c0"]})


def test_queries_are_answered_together_only_where_they_are_to_matter_to_each_other(used_runs: Path, task: Path) -> None:
    files, support = queries_of(task), classes_of(task / "support")
    few = Model.load(used_runs / "proto", bn="transductive").adapt(support)
    assert not torch.allclose(few.logits(files)[:1], few.logits(files[:1]), atol=1e-3)
    few = Model.load(used_runs / "running").adapt(support)
    assert torch.allclose(few.logits(files)[:1], few.logits(files[:1]), atol=1e-5)


@pytest.mark.parametrize(
    ("bn", "answers", "parts"),
    [("support", "alone", [2, 2, 1]), ("support", "together", [5]), ("transductive", "alone", [5])],
)
def test_only_queries_that_do_not_matter_to_each_other_are_answered_in_parts(
    used_runs: Path, task: Path, monkeypatch: pytest.MonkeyPatch, bn: str, answers: str, parts: list[int]
) -> None:
    few = Model.load(used_runs / "proto", bn=bn).adapt(classes_of(task / "support"))
    monkeypatch.setattr("metarun.app.adapted.QUERIES_AT_ONCE", 2)
    monkeypatch.setattr(type(few.model.learner), "answers", answers)
    asked, predict = [], few._predict
    monkeypatch.setattr(few, "_predict", lambda x: (asked.append(len(x)), predict(x))[1])
    assert few.logits(queries_of(task)[:5]).shape == (5, len(few.classes))
    assert asked == parts


def test_loading_changes_nothing_outside_and_no_weights(used_runs: Path, task: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model = Model.load(used_runs / "maml")
    weights = {name: value.clone() for name, value in model.learner.state_dict().items()}
    model.adapt(classes_of(task / "support")).predict(queries_of(task))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.learner.state_dict().items())


def test_embeddings_are_those_that_are_compared(used_runs: Path, task: Path, caplog: pytest.LogCaptureFixture) -> None:
    """ProtoNet's logits are minus squared distances to class means of embeddings."""
    files = queries_of(task)
    for name in ("proto", "running"):
        model = Model.load(used_runs / name)
        few = model.adapt(classes_of(task / "support"))
        own = few.embed([file for label in few.classes for file in classes_of(task / "support")[label]])
        means = own.view(5, 2, -1).mean(1)
        distances = torch.cdist(few.embed(files), means).square()
        assert torch.allclose(few.logits(files), -distances, rtol=1e-3, atol=1e-3)
    assert torch.allclose(model.embed(files), few.embed(files), atol=1e-6)
    assert not caplog.messages
    Model.load(used_runs / "proto").embed(files)
    assert "bn=support: the embedding of an image depends on the others" in caplog.text
    with pytest.raises(ValueError, match="MAML has no embedding that is the same for every task"):
        Model.load(used_runs / "maml").embed(files)


def test_the_command_tells_names_probabilities_and_mistakes(used_runs: Path, use: Say, task: Path) -> None:
    table, picture = task / "t.csv", task / "t.png"
    run = Path(shutil.copytree(used_runs / "proto", task / "run"))
    words = ("predict", run, "--support", task / "support", "--query", task / "query", "--csv", table, "--png", picture)
    code, out, error = use(*words)
    assert (code, error) == (0, "")
    few = Model.load(run).adapt(classes_of(task / "support"))
    files = queries_of(task)
    probabilities, answers = few.probabilities(files), few.predict(files)
    lines = list(csv.DictReader(table.open()))
    assert [line["file"] for line in lines] == [str(file) for file in files]
    assert [line["class"] for line in lines] == answers
    assert [line["known class"] for line in lines] == [file.parent.name for file in files]
    told = torch.tensor([[float(line[f"p:c{c}"]) for c in range(5)] for line in lines])
    assert torch.equal(told, probabilities)
    right = sum(answer == file.parent.name for answer, file in zip(answers, files, strict=True))
    assert f"{100 * right / 15:.1f} % ({right} of 15 images)" in out
    assert "known class (rows), answer (columns)" in out
    assert "trained with bn=transductive: " in " ".join(out.split())
    assert Image.open(picture).size > (600, 300)
    again = use(*words, "bn=transductive")[1]
    assert "answer depends on the other images" in " ".join(again.split())


def test_images_without_known_classes_and_single_files(used_runs: Path, use: Say, task: Path) -> None:
    (task / "flat").mkdir()
    for number, file in enumerate(queries_of(task)[:3]):
        shutil.copy(file, task / "flat" / f"{number}.png")
    code, out, error = use("predict", used_runs / "running", "--support", task / "support", "--query", task / "flat")
    assert (code, error) == (0, "")
    assert "accuracy" not in out and "but it is" not in out  # noqa: PT018
    words = ["--query", task / "flat" / "0.png", task / "query" / "c3", "bn=running", "device=cpu"]
    code, out, error = use("predict", used_runs / "running", "--support", task / "support", *words)
    assert (code, error) == (0, "")
    assert "of 3 images); 1 more lies in no folder named after a class of the support set" in " ".join(out.split())


def test_what_is_wrong_is_one_message(used_runs: Path, use: Say, task: Path) -> None:
    def refused(*words: str | Path, run: str = "running") -> str:
        code, out, error = use("predict", used_runs / run, *words)
        assert code == 2, out
        assert "Traceback" not in error
        return " ".join(error.split())

    support, query = ["--support", task / "support"], ["--query", task / "query"]
    bad = task / "query" / "c1" / "bad.png"
    bad.write_bytes(b"nothing")
    assert f"1 of the 16 images of the queries cannot be read: {bad} (no image)" in refused(*support, *query)
    bad.unlink()
    (task / "support" / "c1" / "bad.jpg").write_bytes(b"")
    assert "of the support set cannot be read" in refused(*support, *query)
    (task / "support" / "c1" / "bad.jpg").unlink()
    assert "there is no folder or file" in refused(*support, "--query", task / "nothing")
    assert "lie in no class's folder" in refused("--support", task / "support" / "c1", *query)
    assert "the following arguments are required: --support" in refused(*query)
    assert "bn=support: the run was trained with bn=running; it can be used with bn=running, " not in refused(
        *support, *query, "bn=none"
    )
    assert "bn=none: the run was trained with bn=running" in refused(*support, *query, "bn=none")
    assert "data.n_way is not for the use of a model, which takes bn=" in refused(*support, *query, "data.n_way=3")
    assert "bn=support,running is to be one value" in refused(*support, *query, "bn=support,running")
    assert "bn=running: the run was trained with bn=transductive" in refused(
        *support, *query, "bn=running", run="proto"
    )
    assert "there is no folder or file" in refused("--support", task / "s.csv", "--query", task / "q.csv", run="cnp")
    assert "is not the folder of a run" in refused(*support, *query, run="none")


def test_a_temperature_is_fitted_once_and_kept(used_runs: Path, use: Say, task: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(used_runs / "proto", tmp_path / "run"))
    (run / "calibration.json").unlink(missing_ok=True)
    few = Model.load(run).adapt(classes_of(task / "support"))
    files = queries_of(task)
    words = ["predict", run, "--support", task / "support", "--query", task / "query"]
    first = use(*words)[1]
    kept = json.loads((run / "calibration.json").read_text())["bn=support"]
    assert kept["tasks"] == 4 and kept["temperature"] != 1  # noqa: PT018
    assert torch.equal(few.probabilities(files), (few.logits(files) / kept["temperature"]).softmax(-1))
    assert "fitting the temperature of the probabilities on 4 validation tasks, once" in first
    assert "fitting" not in use(*words)[1]
    kept["temperature"] = 7.0
    (run / "calibration.json").write_text(json.dumps({"bn=support": kept}))
    assert Model.load(run).calibration.temperature == 7
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(seal(results | {"trainval": True})))
    (run / "calibration.json").unlink()
    assert "trained on its validation classes" in Model.load(run).calibration.missing
    (run / "results.json").write_text(json.dumps(results))
    kept["best_step"] = -1  # of other weights
    (run / "calibration.json").write_text(json.dumps({"bn=support": kept}))
    assert Model.load(run).calibration.temperature != 7


def test_a_temperature_that_cannot_be_read_or_kept_is_fitted_anew_and_told(
    used_runs: Path, use: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(used_runs / "proto", tmp_path / "run"))
    fitted = Model.load(run).calibration.temperature
    (run / "calibration.json").write_text("{")
    assert Model.load(run).calibration.temperature == fitted != 1
    assert f"{run / 'calibration.json'}" in caplog.text
    assert ": the temperature is fitted anew" in caplog.text
    assert json.loads((run / "calibration.json").read_text())["bn=support"]["temperature"] == fitted

    def refuse(*_: object) -> None:
        raise CannotWrite("no room")

    (run / "calibration.json").unlink()
    monkeypatch.setattr("metarun.app.jobs.calibrated.write_json", refuse)
    assert Model.load(run).calibration.temperature == fitted
    assert "the temperature is not kept: no room" in caplog.text


def test_a_model_needs_nothing_but_its_folder(use: Say, tmp_path: Path, cache: Path) -> None:
    """A run on somebody's images, which are gone afterwards: temperature 1, and why."""
    write_noise(tmp_path / "photos", [f"k{label:02d}" for label in range(12)], 6, 30, 40, 3)
    words = [word for word in TINY if not word.startswith(("data.al", "data.ch", "data.train.n_way", "data.k_shot"))]
    own = ["data=folder", f"data.path={tmp_path / 'photos'}", "data.image_size=20", "data.n_way=2", "data.n_query=2"]
    own += ["data.fractions=[0.5,0.25,0.25]", "algo=protonet", "bn=running", "backbone=conv4_strided"]
    own += ["data.fit=crop", "data.interpolation=box", "data.channels=1"]
    GlobalHydra.instance().clear()
    code, out, error = use(*words, *own, f"paths.cache={cache}", f"hydra.run.dir={tmp_path / 'own'}")
    assert code == 0, out + error
    files = sorted((tmp_path / "photos").glob("k0[0-3]/*.png"))
    support = {label: [file for file in files if file.parent.name == label][:2] for label in ("k00", "k01", "k02")}
    model = Model.load(tmp_path / "own")
    source = build_source(reopen(tmp_path / "own").resolve(), torch.device("cpu"))
    assert torch.equal(model.read_pixels(files)[0], source.pixels[: len(files)])
    before = model.adapt(support).logits(files)
    assert Model.load(tmp_path / "own").calibration.tasks == 4
    elsewhere = Path(shutil.move(tmp_path / "own", tmp_path / "elsewhere"))
    (elsewhere / "calibration.json").unlink()
    kept = {str(file): np.asarray(Image.open(file)) for file in files}
    shutil.rmtree(tmp_path / "photos")
    model = Model.load(elsewhere)
    few = model.adapt({label: [kept[str(file)] for file in own] for label, own in support.items()})
    assert torch.equal(few.logits(list(kept.values())), before)
    assert model.calibration.temperature == 1
    assert f"data.path={tmp_path / 'photos'} is not there" in model.calibration.missing
    assert not (elsewhere / "calibration.json").exists()


def test_trained_weights_of_a_network_are_in_the_run_and_not_asked_for_again(
    use: Say, tmp_path: Path, cache: Path
) -> None:
    from torchvision import models

    torch.save(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "weights.pth")
    words = [*TINY, "algo=simpleshot", "bn=running", "backbone=torchvision", "backbone.name=shufflenet_v2_x0_5"]
    words = [word for word in words if word not in ("backbone.hidden=8", "data.train.n_way=5")]
    words += [f"backbone.weights={tmp_path / 'weights.pth'}", "backbone.image_size=32", "backbone.frozen=true"]
    GlobalHydra.instance().clear()
    code, out, error = use(
        *words, "run.steps=1", "run.val_every=1", f"paths.cache={cache}", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert code == 0, out + error
    images = [np.full((28, 28), shade, np.uint8) for shade in (0, 120, 255)]
    before = Model.load(tmp_path / "run").embed(images)
    (tmp_path / "weights.pth").unlink()
    assert torch.equal(Model.load(tmp_path / "run").embed(images), before)


def test_of_functions_points_go_in_and_predictions_with_deviation_come_out(
    used_runs: Path, use: Say, tmp_path: Path
) -> None:
    for name in ("cnp", "gp"):
        batch = first_task(used_runs / name)
        (x, y), (asked, values) = ([part[0] for part in side] for side in (batch.support, batch.query))
        support, query, table = tmp_path / "s.csv", tmp_path / "q.csv", tmp_path / "t.csv"
        support.write_text("x,y\n" + "".join(f"{a},{b}\n" for a, b in torch.cat([x, y], 1).tolist()))
        query.write_text("".join(f"{a!r}\n" for (a,) in asked.tolist()))
        model = Model.load(used_runs / name)
        found = model.adapt((x, y)).predict(asked)
        expected = model.learner.predictions(batch)  # type: ignore[operator]
        assert torch.equal(found.mean, expected.mean[0])
        assert torch.equal(found.std, expected.std[0])
        words = ["predict", used_runs / name, "--support", support, "--query", query]
        code, out, error = use(*words, "--csv", table)
        assert (code, error) == (0, "")
        assert "mse" not in out
        told = torch.tensor([[float(cell) for cell in row] for row in list(csv.reader(table.open()))[1:]])
        assert table.read_text().splitlines()[0] == "x,y,deviation of y"
        assert torch.allclose(told, torch.cat([asked, found.mean, found.std], 1), rtol=1e-6)
        query.write_text("".join(f"{a},{b}\n" for a, b in torch.cat([asked, values], 1).tolist()))
        assert f"mse  {(found.mean - values).square().mean():.4f} of {len(asked)} points" in use(*words)[1]


@pytest.mark.slow
def test_points_that_cannot_be_read_are_named_with_their_line(used_runs: Path, use: Say, tmp_path: Path) -> None:
    support, query = tmp_path / "s.csv", tmp_path / "q.csv"
    query.write_text("1\n2\n")
    for text, words in (
        ("1,2\n1,abc\n", "line 2: 'abc' is not a finite number"),
        ("x,y\n1,nan\n", "line 2: 'nan' is not a finite number"),
        ("1,2\nx,y\n", "line 2: 'x' is not a finite number"),  # heads stand in the first line alone
        ("1,2,3\n", "line 1, has 3 columns, not 2"),
        ("x,y\n\n", "has no points"),
    ):
        support.write_text(text)
        code, _, error = use("predict", used_runs / "cnp", "--support", support, "--query", query)
        assert code == 2
        assert words in error
    with pytest.raises(ValueError, match=r"learned functions \(data=sinusoid\), and no classes"):
        Model.load(used_runs / "cnp").adapt_to_classes({"a": [], "b": []})
    with pytest.raises(ValueError, match=r"points are x \[S, 1\] and y \[S, 1\]"):
        Model.load(used_runs / "cnp").adapt((torch.zeros(3), torch.zeros(3)))


def test_the_temperature_makes_the_labels_likeliest() -> None:
    """Labels are drawn from softmax(z), so the temperature of 3 z is 3."""
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(20_000, 4, generator=generator)
    y = torch.multinomial(z.softmax(-1), 1, generator=generator)[:, 0]
    assert fit_temperature(3 * z, y) == pytest.approx(3, rel=0.03)
    assert fit_temperature(z / 50, y) == pytest.approx(0.02, rel=0.03)
    certain = torch.eye(3)[torch.arange(300) % 3]
    assert 0.05 < fit_temperature(certain, torch.arange(300) % 3) < 0.5  # finite, though no answer is wrong


def test_the_calibration_error_is_worked_out_by_hand() -> None:
    """Four answers at 0.9, three right: |0.75 - 0.9|; one at 0.6, right: |1 - 0.6|; weighted 4/5 and 1/5."""
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6], dtype=torch.float64)
    probabilities = torch.stack([confidence, 1 - confidence], 1)
    expected = 0.8 * 0.15 + 0.2 * 0.4
    assert math.isclose(find_calibration_error(probabilities, torch.tensor([0, 0, 0, 1, 0])), expected, rel_tol=1e-12)


def test_bins_of_confidence_are_closed_above() -> None:
    """Of 15 bins, 0.6 ends the ninth, which 0.58 is in too: |1/2 - 0.59|."""
    confidence = torch.tensor([0.6, 0.58], dtype=torch.float64)
    found = find_calibration_error(torch.stack([confidence, 1 - confidence], 1), torch.tensor([0, 1]))
    assert math.isclose(found, 0.09, rel_tol=1e-12)


def test_what_is_said_of_the_probabilities_and_of_bn_has_each_number_in_its_place() -> None:
    known = Calibration(
        temperature=1.5, tasks=40, task="5-way 1-shot", accuracy=0.71, accuracy_transductive=0.83, error_before=0.12,
        error_after=0.034, missing="", best_step=7,
    )  # fmt: skip
    model: Any = SimpleNamespace(
        calibration=known, bn="support", run=SimpleNamespace(modes=["transductive", "support"]),
        learner=SimpleNamespace(answers="alone"),
    )  # fmt: skip
    assert describe_calibration(model) == (
        "temperature 1.5, fitted on 20 5-way 1-shot validation tasks; on 20 others the calibration error is 12.0 % "
        "without it, 3.4 % with it"
    )
    assert describe_mode(model).endswith(
        "; trained with bn=transductive: 71.0 % instead of 83.0 % right in 40 validation tasks"
    )


def test_using_a_model_imports_no_torchvision() -> None:
    code = (
        "import sys, metarun.app.commands.predict as p; sys.exit(bool({'torchvision', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
