"""Zero-shot learning: what it is in float64, and where descriptions of classes come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise_tasks
from test_gradients import conv4
from torch import Tensor, nn

from metarun.algos.metric.protonet import ProtoNet
from metarun.algos.metric.zero_shot import ZeroShot
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples
from metarun.data.cub import CUB
from metarun.data.described import Described
from metarun.data.files.descriptions import find_descriptions, read_descriptions
from metarun.data.glyphs import Glyphs
from metarun.data.images import ImageTasks

SHAPE = EpisodeShape(4, 1, 3)
PLAN = EpisodePlan(SHAPE, SHAPE, 0, 0)


def zero_shot(size: int, backbone: nn.Module | None = None, **changed: object) -> ZeroShot:
    torch.manual_seed(0)
    own = {"width": 8, "layers": 1, "distance": "euclidean", "temperature": 0.5, "engine": "auto", "task_chunk": 0}
    return ZeroShot(backbone or conv4("none"), (size,), **(own | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_with_embedded_support_images_as_descriptions_it_is_protonet(doubles: None, distance: str) -> None:
    """Of one shot, and of two, whose embeddings are two descriptions of a class; gradients by the network too."""
    for shots in (1, 2):
        shape = EpisodeShape(4, shots, 3)
        batch = noise_tasks(shape, shape).batch("test", np.arange(3))
        net = conv4("none")
        size = net.out_features
        proto = ProtoNet(conv4("none"), distance, 0.5, "auto", 0)
        of = zero_shot(size, net, layers=0, distance=distance)
        with torch.no_grad():
            of.description[0].weight.copy_(torch.eye(size))
            of.description[0].bias.zero_()
            described = torch.stack([net(x) for x in batch.support.x])
        said = batch._replace(support=Examples(described, batch.support.y))
        one, other = proto.eval().evaluate(batch), of.eval().evaluate(said)
        assert torch.allclose(one["loss"], other["loss"], rtol=1e-10)
        assert torch.equal(one["accuracy"], other["accuracy"])


def test_a_description_is_of_the_class_whose_label_it_has() -> None:
    batch = source().batch("val", np.arange(2))
    of = zero_shot(batch.support.x.shape[-1]).eval()
    order = torch.tensor([2, 0, 3, 1])
    moved = batch._replace(support=Examples(batch.support.x[:, order], batch.support.y[:, order]))
    other = batch._replace(support=Examples(batch.support.x[:, order], batch.support.y))
    scores = [of.evaluate(each)["loss"] for each in (batch, moved, other)]
    assert torch.allclose(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])
    with pytest.raises(ValueError, match=r"bn=support needs support images"):
        zero_shot(4, conv4("support"))


def opened(name: str, plan: EpisodePlan, rotation: str = "none") -> ImageTasks | object:
    if name == "nothing":
        return object()
    tasks = noise_tasks(plan.train, plan.test, rotation)
    if name == "named":
        tasks.describe_classes = lambda: {f"c{i}": np.array([i, 5.0, -i]) for i in range(36)}  # type: ignore[attr-defined]
    return tasks


def source(
    images: str = "named", file: Path | None = None, shuffled: bool = False, rotation: str = "none"
) -> Described:
    def open_source(name: str, plan: EpisodePlan) -> object:
        return opened(name, plan, rotation)

    return Described(PLAN, torch.device("cpu"), open_source, images, str(file) if file else None, shuffled)


def undo(x: Tensor) -> Tensor:
    """The number of the class that a standardised description is of: training classes are 0 to 11."""
    return x[..., 0] * np.arange(12).std() + np.arange(12).mean()


def numbers_of(tasks: Described, split: str, n: int) -> Tensor:
    return torch.tensor([[int(name.split()[0][1:]) for name in tasks.labels(split, i)] for i in range(n)])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_task_has_the_description_of_each_of_its_classes_in_the_order_of_their_labels(split: str) -> None:
    """Standardised over the training classes; a number that never changes is 0."""
    tasks = source()
    batch = next(tasks.episodes(split, 0, 5))
    plain = noise_tasks(EpisodeShape(4, 0, 3), EpisodeShape(4, 0, 3)).batch(split, np.arange(5))
    assert tasks.info.support_shape == (3,)
    assert batch.support.x.shape == (5, 4, 3)
    assert batch.support.y.tolist() == [[0, 1, 2, 3]] * 5
    assert torch.equal(batch.query.x, plain.query.x)
    assert torch.equal(batch.query.y, plain.query.y)
    assert torch.allclose(undo(batch.support.x), numbers_of(tasks, split, 5).float(), atol=1e-4)
    assert torch.allclose(batch.support.x[..., 2], -batch.support.x[..., 0])
    assert (batch.support.x[..., 1] == 0).all()


def test_shuffled_descriptions_are_of_other_classes_of_the_same_split() -> None:
    tasks = source(shuffled=True)
    for split, first in (("train", 0), ("val", 12), ("test", 24)):
        said = undo(tasks.batch(split, np.arange(20)).support.x).round().long()
        assert (said != numbers_of(tasks, split, 20)).all()
        assert ((said >= first) & (said < first + 12)).all()
    assert torch.equal(tasks.batch("test", np.arange(2)).query.x, source().batch("test", np.arange(2)).query.x)


@pytest.mark.parametrize("rotation", ["class", "random"])
def test_the_description_of_turned_images_says_by_how_much(rotation: str) -> None:
    tasks = source(rotation=rotation)
    batch = tasks.batch("train", np.arange(6))
    [(drawn, _)] = tasks.source.draw_episodes("train", np.arange(6))
    turn = drawn.classes // 12 if rotation == "class" else drawn.rotation
    assert tasks.info.support_shape == (7,)
    assert batch.support.x[..., 3:].argmax(-1).tolist() == turn.tolist()
    assert (batch.support.x[..., 3:].sum(-1) == 1).all()
    assert len(np.unique(turn)) > 2
    if rotation == "class":
        assert torch.allclose(undo(batch.support.x), torch.from_numpy(drawn.classes % 12).float(), atol=1e-4)


def test_descriptions_come_from_a_file(tmp_path: Path) -> None:
    rows = {f"c{i}": [i / 2, 3.0] for i in range(36)}
    (tmp_path / "d.csv").write_text("".join(f"{name},{a},{b}\n" for name, (a, b) in rows.items()))
    (tmp_path / "d.tsv").write_text("".join(f"{name}\t{a}\t{b}\n\n" for name, (a, b) in rows.items()))
    np.savez(tmp_path / "d.npz", names=list(rows), vectors=np.array(list(rows.values())))
    read = [read_descriptions(str(tmp_path / f"d.{kind}")) for kind in ("csv", "tsv", "npz")]
    for known in read:
        assert {name: vector.tolist() for name, vector in known.items()} == rows
    tasks = source("plain", tmp_path / "d.csv")
    assert torch.allclose(
        undo(tasks.batch("test", np.arange(3)).support.x), numbers_of(tasks, "test", 3).float(), atol=1e-4
    )


def test_what_is_wrong_with_descriptions_is_told(tmp_path: Path) -> None:
    for text, told in (
        ("", "vectors of one length"),
        ("c0\nc1\n", "vectors of one length"),
        ("c0,1\nc1,1,2\n", "vectors of one length"),
        ("c0,1\nc1,1\n c0 ,2\n", r"d\.csv describes the class 'c0' twice"),
        ('c0,1\nc1,"' + "1" * 140_000, r"d\.csv, line 2: a quotation mark begins .* \(field larger"),
        ("c0,1\nc1,nan\n", "finite"),
        ("c0,x\n", "word among"),
    ):
        (tmp_path / "d.csv").write_text(text)
        with pytest.raises(ValueError, match=told):
            read_descriptions(str(tmp_path / "d.csv"))
    (tmp_path / "d.csv").write_bytes("c0,1\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"d\.csv cannot be read: 'utf-8' codec"):
        read_descriptions(str(tmp_path / "d.csv"))
    np.savez(tmp_path / "d.npz", vector=np.zeros(3))
    (tmp_path / "d.txt").write_text("c0,1\n")
    for name, told in (
        ("d.npz", "the arrays names and vectors"),
        ("d.txt", "a .csv, .tsv or .npz"),
        ("no.csv", "not there"),
    ):
        with pytest.raises(ValueError, match=told):
            read_descriptions(str(tmp_path / name))
    (tmp_path / "d.csv").write_text("".join(f"c{i},1\n" for i in range(34)))
    with pytest.raises(ValueError, match=r"2 classes of plain have no description in .*d.csv: c34, c35"):
        source("plain", tmp_path / "d.csv")
    with pytest.raises(ValueError, match=r"plain has no descriptions of its own: set data.descriptions"):
        source("plain")
    with pytest.raises(ValueError, match=r"data.images=nothing is not a source of images"):
        source("nothing")


@pytest.mark.parametrize(
    ("names", "vectors", "told"),
    [
        (["a", "b"], [1.0, 2.0], r"it has names <U1 \[2\] and vectors float64 \[2\]"),
        (["a", "b"], [[[1.0]], [[2.0]]], r"vectors float64 \[2, 1, 1\]"),
        (["a", "b"], [[1.0]], r"names <U1 \[2\] and vectors float64 \[1, 1\]"),
        ([["a"], ["b"]], [[1.0], [2.0]], r"names <U1 \[2, 1\]"),
        ([0, 1], [[1.0], [2.0]], r"names int64 \[2\]"),
        ([b"a", b"b"], [[1.0], [2.0]], r"names \|S1 \[2\]"),
        (["a", "b"], [["1"], ["2"]], r"vectors <U1 \[2, 1\]"),
        (["a", "b"], [[1j], [2j]], r"vectors complex128 \[2, 1\]"),
        (np.array(["a", "b"], object), [[1.0], [2.0]], r"cannot be read: Object arrays"),
        (["a", "a"], [[1.0], [2.0]], r"describes the class 'a' twice"),
    ],
)
def test_arrays_that_are_no_names_and_vectors_are_told(tmp_path: Path, names: Any, vectors: Any, told: str) -> None:
    np.savez(tmp_path / "d.npz", names=names, vectors=vectors)
    with pytest.raises(ValueError, match=told):
        read_descriptions(str(tmp_path / "d.npz"))


@pytest.mark.parametrize("damage", ["emptied", "cut", "flipped"])
def test_a_damaged_file_of_descriptions_is_named(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "d.npz"
    np.savez(file, names=["a", "b"], vectors=np.ones((2, 50)))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 64
    file.write_bytes({"emptied": b"", "cut": bytes(data[:300]), "flipped": bytes(data)}[damage])
    with pytest.raises(ValueError, match=rf"data\.descriptions={file} cannot be read: "):
        read_descriptions(str(file))


def test_descriptions_are_found_by_the_names_as_people_read_them(tmp_path: Path) -> None:
    """With a byte order mark, composed letters for two characters, blanks at an end, as class names elsewhere."""
    (tmp_path / "d.csv").write_text("Mu\u0308cke ,1\nb\xe4r,2\n", "utf-8-sig")
    found = find_descriptions(str(tmp_path / "d.csv"), ["M\xfccke", "ba\u0308r"], "folder")
    assert {name: vector.tolist() for name, vector in found.items()} == {"M\xfccke": [1.0], "ba\u0308r": [2.0]}


def test_glyphs_know_the_strokes_of_their_characters(cache: Path) -> None:
    """A drawing's ink lies near its own strokes, and not near those of most others."""
    glyphs = Glyphs(PLAN, torch.device("cpu"), str(cache), 5, 8, 6, 3, "none")
    known = glyphs.describe_classes()
    data, split = glyphs.take_apart()
    assert known.keys() == {name for names in split.values() for name in names}
    t = np.linspace(0, 1, 30)[:, None]
    bernstein = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    lines = {n: (13.5 + 10 * (bernstein @ v.reshape(4, 4, 2)).reshape(-1, 2)) for n, v in known.items()}

    def away(number: int, name: str) -> float:
        mean = data.pixels[6 * number : 6 * number + 6, 0].double().mean(0).numpy()
        row, column = np.nonzero(mean > 100)
        ink = np.stack([row, column], 1)
        return float(np.linalg.norm(ink[:, None] - lines[name][None], axis=-1).min(1).mean())

    own = [away(number, name) for number, name in enumerate(data.names)]
    others = [away(number, data.names[(number + 11) % 40]) for number in range(40)]
    assert np.mean([a < b for a, b in zip(own, others, strict=True)]) > 0.85


def test_birds_are_described_by_their_attributes_where_these_are(tmp_path: Path) -> None:
    cub = CUB.__new__(CUB)
    cub.root = tmp_path
    with pytest.raises(
        ValueError, match=r"there is no CUB_200_2011/attributes/class_attribute_labels_continuous.txt in"
    ):
        cub.describe_classes()
    folder = tmp_path / "cub" / "CUB_200_2011"
    (folder / "attributes").mkdir(parents=True)
    (folder / "classes.txt").write_text("1 001.Albatross\n2 002.Auklet\n")
    (folder / "attributes" / "class_attribute_labels_continuous.txt").write_text("0.0 2.5 100\n1 0 7\n")
    found = cub.describe_classes()
    assert {name: vector.tolist() for name, vector in found.items()} == {
        "001.Albatross": [0, 2.5, 100],
        "002.Auklet": [1, 0, 7],
    }


def test_the_learner_is_a_method_for_batches_whose_support_is_no_images() -> None:
    tasks = source()
    of = zero_shot(3, conv4("transductive")).train()
    batch: Batch = next(tasks.episodes("train", 0, 2))
    loss, metrics = of.meta_loss(batch)
    loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in of.parameters())
    assert 0 <= metrics["accuracy"] <= 1


def test_a_class_may_have_several_descriptions_and_lies_at_their_mean() -> None:
    """Two vectors for each class: the one has its number, the other the same number negated."""

    def open_source(name: str, plan: EpisodePlan) -> object:
        tasks = noise_tasks(plan.train, plan.test, "class")
        tasks.describe_classes = lambda: {f"c{i}": np.array([[i, 1.0], [-i, 1.0]]) for i in range(36)}  # type: ignore[attr-defined]
        return tasks

    tasks = Described(PLAN, torch.device("cpu"), open_source, "parts", None, False)
    batch, [(drawn, _)] = tasks.batch("val", np.arange(3)), tasks.source.draw_episodes("val", np.arange(3))
    assert batch.support.x.shape == (3, 8, 6)
    assert batch.support.y.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 3
    assert torch.allclose(batch.support.x[:, ::2, 0], -batch.support.x[:, 1::2, 0])  # both ends of a range around 0
    std = np.array([[i, -i] for i in range(12)]).std()
    number = (batch.support.x[:, ::2, 0] * std).numpy()
    assert np.allclose(number, 12 + drawn.classes % 12, atol=1e-4)
    assert batch.support.x[:, ::2, 2:].argmax(-1).tolist() == (drawn.classes // 12).tolist()
    of = zero_shot(6)
    support = Examples(batch.support.x[0], batch.support.y[0])
    parts = of.description(support.x).unflatten(0, (4, 2))
    assert torch.allclose(of.adapt(of.theta(), support, 4), parts.mean(1), atol=1e-6)
