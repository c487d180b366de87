"""Networks of timm: the same features as timm's own, whatever the data's look; weights of a file; and no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL
from omegaconf import DictConfig
from same_process import Use
from test_contract import meta_step, parts_of, state_of
from torch import Tensor, nn

timm = pytest.importorskip("timm")

from metarun.backbones.timm_nets import Timm  # noqa: E402
from metarun.ops import context  # noqa: E402
from metarun.ops.noise import Noise  # noqa: E402

HALF = ((0.5,), (0.5,))
SIDE = 160  # pixels that timm's test networks are made for
NETS = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "resnet10t"]


def make_trained(name: str) -> nn.Module:
    """A network of timm whose averages are those of its layers."""
    torch.manual_seed(3)
    net = timm.create_model(name, num_classes=7).train()
    with torch.no_grad():
        for _ in range(4):
            net(torch.randn(4, 3, SIDE, SIDE))
    return net.eval()


@pytest.mark.parametrize("name", NETS)
def test_features_of_a_file_of_weights_are_timms_own_of_images_scaled_and_normalised_as_it_wants(
    name: str, tmp_path: Path
) -> None:
    """The data's images are gray, of 32 pixels, and centred by a half. The file has the classifier too."""
    theirs = make_trained(name)
    file = tmp_path / "weights.pt"
    torch.save(theirs.state_dict(), file)
    ours = Timm((1, 32, 32), "running", HALF, name, str(file), True)
    pixels = torch.rand(2, 1, 32, 32)
    wanted = timm.data.resolve_model_data_config(theirs)
    assert ours.size == (wanted["input_size"][-1],) * 2
    x = F.interpolate(pixels.expand(-1, 3, -1, -1), ours.size, mode=wanted["interpolation"], align_corners=False)
    mean, std = (torch.tensor(wanted[key])[:, None, None] for key in ("mean", "std"))
    theirs.reset_classifier(0)
    with torch.no_grad():
        expected = theirs((x - mean) / std)
        found = ours.eval()((pixels - 0.5) / 0.5)
    assert ours.out_features == expected.shape[1]
    assert (found - expected).norm() < 1e-4 * expected.norm()
    assert not list(ours.parameters())


def test_safetensors_are_read_and_other_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    def error(weights: str, name: str = "test_resnet") -> str:
        with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
            Timm((3, 64, 64), "running", HALF, name, weights)
        return str(caught.value)

    net = make_trained("test_resnet")
    save_file(net.state_dict(), tmp_path / "whole.safetensors")
    save_file({"one": torch.ones(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("<html>")
    ours = Timm((3, 64, 64), "running", HALF, "test_resnet", str(tmp_path / "whole.safetensors"))
    assert torch.equal(ours.net.conv1[0].weight, net.conv1[0].weight)
    assert len(list(ours.parameters())) == len(list(net.parameters())) - 2
    assert "conv1.0.weight is missing" in error(str(tmp_path / "other.safetensors"))
    assert "cannot be read" in error(str(tmp_path / "text.safetensors"))
    assert "neither a file nor DEFAULT" in error("IMAGENET1K_V1")
    assert "test_resnt is no network of timm; did you mean test_resnet?" in error("DEFAULT", "test_resnt")

    def refuse(*args: object, pretrained: bool = False, **more: object) -> nn.Module:
        assert pretrained
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", refuse)
    assert "of test_resnet cannot be had (no network): set backbone.weights=FILE" in error("DEFAULT")


def test_a_run_that_is_opened_again_fetches_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, plain = [], timm.create_model

    def create(*args: object, pretrained: bool, num_classes: int) -> nn.Module:
        asked.append(pretrained)
        return plain(*args, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", create)
    with context.restoring():
        ours = Timm((3, 32, 32), "running", HALF, "test_resnet", "DEFAULT")
    assert (asked, ours.size) == ([False], (SIDE, SIDE))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_methods_by_gradient_and_by_comparison_train_it(settings: Callable[..., DictConfig], name: str) -> None:
    for algo in ("maml", "protonet")[: 2 if name == "test_resnet" else 1]:
        words = ["backbone=timm", f"backbone.name={name}", "algo.task_chunk=2", "run.meta_batch_size=2"]
        parts = parts_of(settings(f"algo={algo}", *words))
        before = state_of(parts.learner)
        assert torch.isfinite(meta_step(parts, 0)["loss"])
        trained = [n for n, value in parts.learner.named_parameters() if not torch.equal(value, before[n])]
        assert len(trained) > 20
        assert torch.isfinite(parts.learner.eval().evaluate(next(parts.source.episodes("val", 0, 2)))["loss"]).all()


def test_layers_that_drop_branches_are_off_in_inner_loops() -> None:
    net = Timm((3, 32, 32), "none", HALF, "test_convnext")
    from metarun.backbones.trained_network import replace_layers

    other = nn.ModuleDict({"path": timm.layers.DropPath(0.5)})
    replace_layers(other, "none", False)
    assert isinstance(other["path"], Noise)
    assert net.out_features > 1


class Described:
    """Ten photos of two classes that anybody can tell apart, in folders."""

    def __init__(self, root: Path) -> None:
        from PIL import Image

        rng = torch.Generator().manual_seed(0)
        for side, n in (("support", 2), ("query", 3)):
            for label, colour in (("fox", (220, 90, 20)), ("owl", (30, 60, 200))):
                for number in range(n):
                    noise: Tensor = torch.randint(-25, 25, (40, 50, 3), generator=rng)
                    place = root / side / label / f"{number}.png"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    pixels = (torch.tensor(colour) + noise).clamp(0, 255).byte().numpy()
                    Image.fromarray(pixels).save(place)
        self.support, self.query = root / "support", root / "query"


NO_TRAINING = [
    *[word for word in SMALL if not word.startswith("run.steps")], "backbone=timm", "backbone.name=test_resnet",
    "run.steps=0", "backbone.frozen=true", "bn=running", "data.alphabets=5", "data.characters=6", "data.drawings=8",
    "logger=none", "backbone.image_size=32",
]  # fmt: skip
"""A frozen network of timm's on tiny data, without an outer step; backbone.weights is a file of the test's own."""


def test_ten_photos_get_labels_without_any_training(use: Use, tmp_path: Path) -> None:
    """A frozen network of a file, zero steps, a head that answers queries together; then predict."""
    file = tmp_path / "weights.pt"
    torch.save(make_trained("test_resnet").state_dict(), file)
    photos, run = Described(tmp_path), tmp_path / "run"
    words = [*NO_TRAINING, "algo=bd_cspn", f"backbone.weights={file}", f"hydra.run.dir={run}"]
    code, out, error = use(*words)
    assert (code, error) == (0, ""), out
    results = json.loads((run / "results.json").read_text())
    assert (results["steps"], results["best_step"], results["answers"]) == (0, 0, "together")
    file.unlink()  # the run has what it needs
    code, out, error = use("predict", run, "--support", photos.support, "--query", photos.query)
    assert (code, error) == (0, "")
    assert "6 of 6" in out or "100.0 %" in out, out
    assert "an image's answer depends on the other images" in out
    code, _, error = use(*[w for w in words if "algo=" not in w], "algo=protonet", f"hydra.run.dir={run}2")
    assert code == 2, "the file is gone"


HEADS = (
    "protonet", "simpleshot", "matchingnet", "r2d2", "meta_baseline", "bd_cspn", "laplacian_shot", "tim", "alpha_tim",
    "pt_map", "tip_adapter", "frn", "baseline_pp", "distill", "finetune", "proto_maml", "baseline algo.inner_lr=1.0",
    "metaoptnet algo.penalty=1.0",
)  # fmt: skip
"""Methods that need no training on a frozen network, so that photos that anybody can tell apart are told apart.

The last two fit a linear head to embeddings as they are, whose lengths nobody trained: with the rate and the penalty of
a trained network they stay near products with the class means, and the class of the longer embeddings gets all photos.
"""


@pytest.mark.slow
@pytest.mark.parametrize("algo", HEADS)
def test_photos_get_their_labels_from_every_head_on_a_frozen_network(use: Use, tmp_path: Path, algo: str) -> None:
    file, photos, run = tmp_path / "weights.pt", Described(tmp_path), tmp_path / "run"
    torch.save(make_trained("test_resnet").state_dict(), file)
    words = [*NO_TRAINING, *f"algo={algo}".split(), f"backbone.weights={file}", f"hydra.run.dir={run}"]
    code, out, error = use(*words)
    assert (code, error) == (0, ""), out
    code, out, error = use("predict", run, "--support", photos.support, "--query", photos.query)
    assert (code, error) == (0, ""), out
    assert "accuracy  100.0 % (6 of 6 images)" in out


@pytest.mark.parametrize(("algo", "instead"), [("pmf", "algo.inner_lr=0 for its cosines alone"), ("boil", "algo=anil")])
def test_a_method_that_adapts_its_network_refuses_a_frozen_one(
    use: Use, tmp_path: Path, algo: str, instead: str
) -> None:
    file = tmp_path / "weights.pt"
    torch.save(make_trained("test_resnet").state_dict(), file)
    words = [*NO_TRAINING, f"algo={algo}", f"backbone.weights={file}", f"hydra.run.dir={tmp_path / 'run'}"]
    code, _, error = use(*words)
    assert code == 2
    assert "adapts its network to each task, and this one is frozen: set backbone.frozen=false, or" in error
    assert instead in error
    if algo == "pmf":
        assert use(*words, "algo.inner_lr=0")[0] == 0
