"""What methods draw lies in the run's folder and arrives in W&B, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import TINY, metarun, results_of
from PIL import Image
from wandb_server import wandb_server

SMALL_NET, RUN = "backbone.hidden=8", [word for word in TINY if word.startswith(("run.", "device"))]
GLYPHS = [word for word in TINY if word.startswith("data.")]

ROUNDS = ["run.updates=1", "run.hindsight_steps=2"]

DRAWN = {
    "samples of classes": ([*GLYPHS, SMALL_NET, "algo=neural_statistician"], {"samples"}),
    "reconstructed and new drawings": ([*GLYPHS, "algo=bpl"], {"drawings", "characters"}),
    "images of a generator": ([*GLYPHS, SMALL_NET, "algo=metagan"], {"generated"}),
    "images of a generator, with inner loops": ([*GLYPHS, SMALL_NET, "algo=metagan_maml"], {"generated"}),
    "the boundary on two moons": (["algo=dann", "data=moons"], {"boundary"}),
    "paths of policies": (["algo=maml_rl", "data=navigation", "data.episodes=2"], {"paths"}),
    "regret over pulls": (["algo=rl2", "data=bandits", "algo.hidden=8"], {"regret"}),
    "accuracies by task and time": (
        ["run=continual", "algo=oml", *GLYPHS, SMALL_NET, "run.tasks=2", "run.streams=2"],
        {"continual"},
    ),
    "regret of a stream": (
        ["run=online", "algo=follow_leader", "data=sinusoid", *ROUNDS],
        {"predictions", "regret"},
    ),
    "predictions of functions": (["algo=multitask", "data=sinusoid"], {"predictions"}),
}
"""Settings, and what is drawn beside episodes and curves."""

OF_TESTS = ("run.val_tasks", "run.test_tasks", "run.eval_batch_size")
NOT_OF = {"run=continual": OF_TESTS, "run=online": (*OF_TESTS, "run.val_every")}
"""Settings that other kinds of run do not have."""


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "drawn"), DRAWN.values(), ids=DRAWN)
def test_what_a_method_draws_is_in_its_folder_and_in_wandb(
    tmp_path: Path, cache: Path, chosen: list[str], drawn: set[str]
) -> None:
    with wandb_server() as server:
        short = [word for word in RUN if word.partition("=")[0] not in NOT_OF.get(chosen[0], ())]
        typed = [*short, *chosen, "logger.finish_timeout=60", "hydra.run.dir=r"]
        code, out, error = metarun(*typed, cwd=tmp_path, cache=cache, **server.environment)
        assert code == 0, out + error
        rows = server.runs[results_of(tmp_path / "r")["wandb_id"]]
    pictures = {name: value for row in rows for name, value in row.items() if isinstance(value, dict)}
    assert {*pictures} - {"episodes", "curves"} == drawn
    for name, picture in pictures.items():
        file = tmp_path / "r" / f"{name}.png"
        assert picture["_type"] == "image-file"
        assert (picture["width"], picture["height"]) == Image.open(file).size
        assert server.files[picture["path"]] == file.read_bytes()
