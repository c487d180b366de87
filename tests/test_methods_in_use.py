"""Methods that read, generate or learn optimizers, in use: a run, `metarun eval` and `metarun predict` by each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import NARROW, SMALL, has
from hydra.core.global_hydra import GlobalHydra
from used_runs import Say, first_task, lay_out

from metarun import Model
from metarun.settings.compose import compose

FEW = [
    "algo.inner_steps=2", "algo.test_inner_steps=3", "algo.test_samples=4", "algo.units=6", "algo.filters=4",
    "algo.rows=8", "algo.size=4",
]  # fmt: skip
IMAGES = {
    "abml": [], "mr_maml": ["data.labels=fixed"], "metanet": [], "hypernet": ["algo.film=true"], "snail": [],
    "mann": [], "incontext": [], "lstm_learner": [], "taml": [],
}  # fmt: skip
FUNCTIONS = {
    "abml": "sinusoid", "learned_optimizer": "quadratics", "hsml": "mixture", "incontext": "gp", "snail": "sinusoid",
    "mann": "sinusoid", "lstm_learner": "sinusoid", "mr_maml": "sinusoid", "taml": "mixture",
}  # fmt: skip
PLAIN = [("metanet", "glyphs")]


def train(use: Say, cache: Path, run: Path, *words: str) -> None:
    """A run of four outer steps on a tiny network."""
    GlobalHydra.instance().clear()
    known = compose([word for word in words if "." not in word.partition("=")[0]])
    narrow = [] if "data=quadratics" in words else NARROW  # where the model is linear
    few = [word for word in (*SMALL, *narrow, *FEW) if has(known, word.partition("=")[0])]
    code, out, error = use(*few, f"paths.cache={cache}", f"hydra.run.dir={run}", "logger=none", *words)
    assert code == 0, out + error
    code, out, error = use("eval", run, "run.test_tasks=13")
    assert code == 0, out + error
    assert "13" in out


def one(algo: str, data: str) -> object:
    return pytest.param(algo, data, marks=[] if (algo, data) in PLAIN else [pytest.mark.slow])


@pytest.mark.parametrize(("algo", "data"), [one(algo, "glyphs") for algo in IMAGES])
def test_a_method_trained_on_images_answers_for_files(
    use: Say, cache: Path, tmp_path: Path, algo: str, data: str
) -> None:
    run = tmp_path / "run"
    train(use, cache, run, f"algo={algo}", f"data={data}", "bn=support", *IMAGES[algo])
    task = lay_out(first_task(run), tmp_path)
    code, out, error = use("predict", run, "--support", task / "support", "--query", task / "query")
    assert code == 0, out + error
    assert "c4" in out


@pytest.mark.parametrize(("algo", "data"), [one(algo, data) for algo, data in FUNCTIONS.items()])
def test_a_method_trained_on_functions_answers_for_points(
    use: Say, cache: Path, tmp_path: Path, algo: str, data: str
) -> None:
    run = tmp_path / "run"
    train(use, cache, run, f"algo={algo}", f"data={data}")
    batch = first_task(run)
    function = Model.load(run).adapt((batch.support.x[0], batch.support.y[0]))
    found = function.predict(batch.query.x[0])
    mean = torch.as_tensor(getattr(found, "mean", found))
    assert mean.shape == batch.query.y[0].shape
    assert torch.isfinite(mean).all()
