"""Images beside the names of their classes, and Tip-Adapter, which reads both: equation 6 written out, its limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL, TINY_CLIP, noise_tasks
from same_process import Use
from torch import Tensor

open_clip = pytest.importorskip("open_clip")

from metarun.algos.heads.tip_adapter import TipAdapter  # noqa: E402
from metarun.algos.metric.protonet import ProtoNet  # noqa: E402
from metarun.algos.metric.zero_shot import ZeroShot  # noqa: E402
from metarun.backbones.open_clip_nets import OpenClip  # noqa: E402
from metarun.core.errors import ConfigError  # noqa: E402
from metarun.core.tasks import Batch, EpisodeShape, Examples  # noqa: E402
from metarun.data.files.class_names import tokenize_names  # noqa: E402
from metarun.data.images import ImageTasks  # noqa: E402
from metarun.data.named import Named  # noqa: E402
from metarun.data.resize import Resized  # noqa: E402
from metarun.run.evaluation import check_facts, evaluate  # noqa: E402
from metarun.run.interrupt import StopRequest  # noqa: E402

HALF = ((0.5,), (0.5,))
TEMPLATES = ("a photo of a {}.", "a drawing of the {}.")
SHAPE = EpisodeShape(5, 2, 3)


def named(descriptions: str = "names", templates: tuple[str, ...] = TEMPLATES, rotation: str = "none") -> Named:
    return Named(lambda name: noise_tasks(SHAPE, SHAPE, rotation), "noise", descriptions, templates)


def pair(text: bool = True, frozen: bool = True) -> OpenClip:
    torch.manual_seed(5)
    return OpenClip((1, 28, 28), "none", HALF, str(TINY_CLIP), None, frozen, text=text)


def tip(net: OpenClip, scale: float = 20.0, alpha: float = 1.5, chunk: int = 1, features: Any = "l2n") -> TipAdapter:
    return TipAdapter(net, 12, scale, alpha, 5.5, features, "auto", chunk).eval()


def draw(tasks: ImageTasks, split: str, first: int, n: int) -> Batch:
    batch = tasks.batch(split, np.arange(first, first + n))
    assert isinstance(batch, Batch)
    return batch


def logits_of(learner: TipAdapter | ZeroShot, batch: Batch, task: int) -> Tensor:
    support = Examples(batch.support.x[task].double(), batch.support.y[task])
    return learner.adapt_to(support, 5, **batch.facts(task))(batch.query.x[task].double())


def parts_of(backbone: OpenClip, tasks: Named, batch: Batch, task: int) -> tuple[Tensor, Tensor]:
    """Cosines of queries to open_clip's own zero-shot weights [M, N], and the cache's votes [M, N], in plain numpy."""
    words = tokenize_names(tasks.labels("test", task), TEMPLATES)
    weights = []
    with torch.no_grad():
        for name in tasks.labels("test", task):
            tokens = open_clip.SimpleTokenizer(context_length=16)([text.replace("{}", name) for text in TEMPLATES])
            assert len(words[name]) == len(TEMPLATES)
            weights.append(F.normalize(backbone.text.pair.encode_text(tokens), dim=-1).mean(0))  # type: ignore[union-attr]
        support, query = (F.normalize(backbone(x[task].double()), dim=-1) for x in (batch.support.x, batch.query.x))
    cosines = query @ F.normalize(torch.stack(weights), dim=-1).T
    known, asked, y = support.numpy(), query.numpy(), batch.support.y[task].numpy()
    votes = np.zeros((len(asked), 5))
    for row, one in enumerate(asked):
        for image, label in zip(known, y, strict=True):
            votes[row, label] += np.exp(-5.5 * (1 - one @ image))
    return cosines, torch.from_numpy(votes)


def test_logits_are_equation_6_and_its_two_limits_in_float64() -> None:
    """Without votes they are CLIP's zero-shot classifier, open_clip's own weights; without names the votes alone."""
    backbone, tasks = pair().double(), named()
    batch = draw(tasks, "test", 0, 3)
    zero_shot = ZeroShot(backbone, (77,), 8, 1, "cosine", 0.05, "auto", 1, network="texts").double().eval()
    for task in range(3):
        cosines, votes = parts_of(backbone, tasks, batch, task)
        for scale, alpha in ((20.0, 1.5), (20.0, 0.0), (0.0, 1.5)):
            found = logits_of(tip(backbone, scale, alpha).double(), batch, task)
            assert torch.allclose(found, scale * cosines + alpha * votes, atol=1e-10)
        said = Examples(batch.side["tokens"][task].flatten(0, 1), torch.arange(5).repeat_interleave(2))
        theirs = zero_shot.adapt_to(said, 5)(batch.query.x[task].double())
        assert torch.allclose(logits_of(tip(backbone, 20.0, 0.0).double(), batch, task), theirs, atol=1e-10)
        assert not torch.equal(cosines.argmax(1), votes.argmax(1))


def test_each_class_of_a_task_comes_with_its_own_name_in_the_order_of_labels() -> None:
    tasks, plain = named(rotation="class"), noise_tasks(SHAPE, SHAPE, "class")
    assert isinstance(tasks, ImageTasks)
    for split in ("train", "val", "test"):
        batch = draw(tasks, split, 4, 3)
        assert torch.equal(batch.query.x, draw(plain, split, 4, 3).query.x)
        for task in range(3):
            names = [name.split()[0] for name in tasks.labels(split, 4 + task)]  # without "turned by 90"
            wanted = torch.tensor([tokenize_names([name], TEMPLATES)[name].tolist() for name in names]).long()
            assert torch.equal(batch.side["tokens"][task], wanted)
    assert tasks.fingerprint("test", 9) == plain.fingerprint("test", 9)
    assert tasks.info.facts["descriptions_sha256"] != named(templates=("{}",)).info.facts["descriptions_sha256"]
    assert tasks.classes == {s: {f"ImageTasks/{n}" for n in names} for s, names in tasks.take_apart()[1].items()}


@pytest.mark.parametrize("chunk", [0, 1])
def test_tests_on_cached_features_answer_as_tests_on_images_and_embed_each_name_once(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 tasks of 12 classes in two texts: 24 texts, alone, together and on images of another size."""
    seen: list[int] = []
    tasks, backbone = named(), pair()
    learner, stop = tip(backbone, chunk=chunk), StopRequest()
    assert backbone.text is not None
    own = backbone.text.forward

    def count(tokens: Tensor) -> Tensor:
        seen.append(len(tokens))
        embedded: Tensor = own(tokens)
        return embedded

    monkeypatch.setattr(backbone.text, "forward", count)
    source: Any = tasks
    found = evaluate(learner, source, "test", 200, 40, stop)
    assert sum(seen) == 24
    parts = [learner.evaluate(draw(tasks, "test", first, 40)) for first in range(0, 200, 40)]
    assert np.allclose(found["loss"], torch.cat([part["loss"] for part in parts]), atol=1e-4)
    small = Resized(noise_tasks(SHAPE, SHAPE), (1, 28, 28), None)
    assert not np.allclose(evaluate(learner, small, "test", 200, 40, stop)["loss"], found["loss"], atol=1e-4)
    same = Resized(tasks, (1, 28, 28), None)
    assert np.allclose(evaluate(learner, same, "test", 200, 40, stop)["loss"], found["loss"])


def test_vectors_of_a_file_stand_where_the_tower_of_texts_does(tmp_path: Path) -> None:
    """The file has this pair's own embeddings, and the network has no tower: the same logits."""
    names = [f"c{i}" for i in range(36)]
    both, alone = pair().double(), pair(text=False).double()
    tokens = tokenize_names(names, TEMPLATES[:1])
    with torch.no_grad():
        vectors = np.concatenate([both.text(torch.from_numpy(tokens[name])).numpy() for name in names])  # type: ignore[misc]
    np.savez(tmp_path / "names.npz", names=np.array(names), vectors=vectors)
    torch.set_default_dtype(torch.float64)
    try:
        sources = named(str(tmp_path / "names.npz")), named(templates=TEMPLATES[:1])
        batch, said = (draw(source, "test", 0, 2) for source in sources)
    finally:
        torch.set_default_dtype(torch.float32)
    assert batch.side["vectors"].shape == (2, 5, 1, 12)
    for task in range(2):
        ours = logits_of(tip(alone).double(), batch, task)
        assert torch.allclose(ours, logits_of(tip(both).double(), said, task), atol=1e-10)
    with pytest.raises(ValueError, match=r"algo\.features=cl2n moves images away from the names"):
        logits_of(tip(alone, features="cl2n").double(), batch, 0)
    with pytest.raises(ValueError, match=r"backbone=open_clip backbone\.text=true"):
        logits_of(tip(alone).double(), said, 0)
    np.savez(tmp_path / "short.npz", names=np.array(names), vectors=vectors[:, :7])
    with pytest.raises(ValueError, match=r"vectors of 7 numbers .* the network's embeddings have 12"):
        logits_of(tip(alone), draw(named(str(tmp_path / "short.npz")), "test", 0, 1), 0)
    np.savez(tmp_path / "few.npz", names=np.array(names[2:]), vectors=vectors[2:])
    with pytest.raises(ValueError, match=r"2 classes of noise have no description in .*few\.npz: c0, c1"):
        named(str(tmp_path / "few.npz"))
    with pytest.raises(ValueError, match=r"data\.images=sinusoid is not a source of images"):
        Named(lambda name: object(), "sinusoid", "names", TEMPLATES)


@pytest.mark.parametrize("known", [{"tokens": 1}, {}])
def test_facts_that_a_method_has_no_use_for_are_told_before_anything_is_scored(known: dict[str, int]) -> None:
    """Names for a network without a tower of texts. Tasks without facts, and methods that ask for none, are not drawn
    where none is asked for."""
    tasks, drawn = named(templates=TEMPLATES[:1]), list[str]()
    learner = tip(pair(text=False)).train()
    if not known:
        tasks.told = {split: {} for split in tasks.told}
        check_facts(learner, tasks, "val")
    else:
        with pytest.raises(ConfigError, match=r"names of classes need a tower of texts: set backbone=open_clip"):
            check_facts(learner, tasks, "val")
    assert learner.training
    tasks.episodes = lambda *place: drawn.append(str(place))  # type: ignore[method-assign, assignment]
    check_facts(ProtoNet(pair(text=False), "euclidean", 1.0, "vectorized", 0), tasks, "val")
    assert not drawn


def test_without_names_the_class_means_stand_in_their_place() -> None:
    backbone, tasks = pair().double(), noise_tasks(SHAPE, SHAPE)
    batch = draw(tasks, "test", 0, 1)
    support, query = (F.normalize(backbone(x[0].double()), dim=-1) for x in (batch.support.x, batch.query.x))
    means = torch.stack([support[batch.support.y[0] == label].mean(0) for label in range(5)])
    found = logits_of(tip(backbone, alpha=0.0).double(), batch, 0)
    assert torch.allclose(found, 20 * query @ F.normalize(means, dim=-1).T)


def test_photos_are_told_by_the_names_of_folders_and_by_the_photos_in_them(use: Use, tmp_path: Path) -> None:
    """A frozen pair, no step of training: the run's scores and its answers change with the texts."""
    photos = noise_tasks(SHAPE, SHAPE, size=32, classes=5)
    from PIL import Image

    for kind, first, last in (("support", 0, 2), ("query", 5, 9)):
        for c in range(3):
            for number in range(first, last):
                place = tmp_path / kind / f"kind_{c}" / f"{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(photos.pixels[20 * c + number, 0].numpy()).save(place)
    answers = {}
    for words in ("a {}", "the very opposite of a {} in any way"):
        run = tmp_path / words.split()[0]
        code, out, error = use(
            *[w for w in SMALL if not w.startswith(("run.steps", "data.alph", "data.char"))],
            "algo=tip_adapter", "algo.alpha=0", "data=named",
            "data.images=glyphs", "+data.members.glyphs.alphabets=5",
            "+data.members.glyphs.characters=6", "+data.members.glyphs.drawings=8",
            f"data.templates=['{words}']", "backbone=open_clip", f"backbone.name={TINY_CLIP}", "backbone.frozen=true",
            "backbone.text=true", "bn=none", "run.steps=0", "logger=none", f"hydra.run.dir={run}",
        )  # fmt: skip
        assert (code, error) == (0, ""), out
        code, out, error = use("predict", run, "--support", tmp_path / "support", "--query", tmp_path / "query", "--csv", tmp_path / "a.csv")  # fmt: skip # noqa: E501
        assert (code, error) == (0, ""), out
        scores = json.loads((run / "results.json").read_text())["test"]["loss"]
        answers[words] = (scores["mean"], (tmp_path / "a.csv").read_text())
    one, other = answers.values()
    assert one[0] != other[0]
    assert one[1] != other[1]
