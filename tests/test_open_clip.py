"""Pairs of image and text of open_clip: its own features, its own zero-shot classifier, and heads that read names."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_CLIP, noise_tasks

open_clip = pytest.importorskip("open_clip")

from metarun.algos.base.texts import find_text_tower  # noqa: E402
from metarun.algos.metric.zero_shot import ZeroShot  # noqa: E402
from metarun.backbones.open_clip_nets import OpenClip  # noqa: E402
from metarun.core.tasks import EpisodePlan, EpisodeShape, Examples  # noqa: E402
from metarun.data.described import Described  # noqa: E402
from metarun.data.files.class_names import tokenize_names  # noqa: E402

TINY = str(TINY_CLIP)
HALF = ((0.5,), (0.5,))
TEMPLATES = ["a photo of a {}.", "a drawing of the {}, and of nothing else at all that is worth to be told of here."]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, str]:
    """A pair drawn by open_clip's own classes, and the file of its weights."""
    torch.manual_seed(5)
    open_clip.add_model_config(TINY)
    made = open_clip.create_model("tiny_clip").eval()
    file = tmp_path_factory.mktemp("clip") / "pair.pt"
    torch.save(made.state_dict(), file)
    return made, str(file)


def test_features_of_images_and_texts_are_open_clips_own(pair: tuple[torch.nn.Module, str]) -> None:
    """Images are gray, of 20 pixels, centred by a half; a text that is too long keeps its end."""
    theirs, file = pair
    ours = OpenClip((1, 20, 20), "none", HALF, TINY, file, True, text=True).eval()
    pixels = torch.rand(3, 1, 20, 20)
    x = F.interpolate(pixels.expand(-1, 3, -1, -1), (32, 32), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(values)[:, None, None] for values in (theirs.visual.image_mean, theirs.visual.image_std))
    texts = [template.replace("{}", "oak tree") for template in TEMPLATES]
    tokens = torch.from_numpy(tokenize_names(["plants/oak_tree"], TEMPLATES)["plants/oak_tree"])
    with torch.no_grad():
        expected = theirs.encode_image((x - mean) / std)
        assert torch.allclose(ours((pixels - 0.5) / 0.5), expected, atol=1e-5)
        cut = open_clip.SimpleTokenizer(context_length=16)(texts)
        assert torch.allclose(ours.text(tokens), theirs.encode_text(cut), atol=1e-6)
    assert ours.out_features == 12
    assert not list(ours.parameters())
    assert OpenClip((3, 32, 32), "none", HALF, TINY, file).text is None


def named_tasks() -> Described:
    """Images of random classes c0, c1, ..., told by their names in two templates."""
    plan = EpisodePlan(EpisodeShape(5, 0, 2), EpisodeShape(5, 0, 2), 0, 0)
    return Described(
        plan,
        torch.device("cpu"),
        lambda name, plan: noise_tasks(plan.train, plan.test),
        "noise",
        "names",
        False,
        TEMPLATES,
    )


def zero_shot(file: str | None, frozen: bool) -> ZeroShot:
    backbone = OpenClip((1, 28, 28), "none", HALF, TINY, file, frozen, text=True)
    return ZeroShot(backbone, (77,), 8, 1, "cosine", 0.01, "auto", 0, network="texts")


def test_zero_shot_on_names_is_open_clips_own_classifier(pair: tuple[torch.nn.Module, str]) -> None:
    """Logits of a task at CLIP's temperature of 0.01, in float64."""
    theirs, file = deepcopy(pair[0]).double(), pair[1]
    tasks, learner = named_tasks(), zero_shot(file, True).double().eval()
    batch = next(tasks.episodes("test", 0, 2))
    for task in range(2):
        weights = open_clip.build_zero_shot_classifier(
            theirs,
            open_clip.SimpleTokenizer(context_length=16),
            tasks.labels("test", task),
            [template.format for template in TEMPLATES],
        )  # [D, N]
        x = batch.query.x[task].double()
        with torch.no_grad():
            embedded = F.normalize(learner.backbone(x), dim=-1)
        found = learner.adapt_to(Examples(batch.support.x[task].double(), batch.support.y[task]), 5)(x)
        assert torch.allclose(found, 100 * embedded @ weights, atol=1e-6)
    assert torch.isfinite(zero_shot(file, True).eval().evaluate(batch)["loss"]).all()


def test_a_pair_that_is_not_frozen_learns_both_towers() -> None:
    learner = zero_shot(None, False)
    loss, _ = learner.meta_loss(next(named_tasks().episodes("train", 0, 2)))
    loss.backward()
    moved = {name for name, value in learner.named_parameters() if value.grad is not None and value.grad.abs().sum()}
    assert any(name.startswith("backbone.text.") for name in moved)
    assert any(name.startswith("backbone.net.") for name in moved)


def test_what_does_not_go_is_said(tmp_path: Path) -> None:
    def refused(name: str, weights: str | None = None, text: bool = False) -> str:
        with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
            OpenClip((3, 32, 32), "none", HALF, name, weights, text=text)
        return str(error.value)

    (tmp_path / "text.pt").write_text("<html>")
    assert "ViT-B-23 is no pair of open_clip; did you mean" in refused("ViT-B-23")
    assert "neither a file nor one of tiny_clip's" in refused(TINY, "nix")
    assert "cannot be had" in refused(TINY, str(tmp_path / "text.pt"))
    assert "reads other tokens" in refused("ViT-B-16-SigLIP", text=True)
    with pytest.raises(ValueError, match=r"set backbone=open_clip backbone\.text=true"):
        find_text_tower(torch.nn.Identity())
    with pytest.raises(ValueError, match=r"must be texts with a \{\} where"):
        tokenize_names(["one"], ["a photo"])
