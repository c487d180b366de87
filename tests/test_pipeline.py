"""scripts/pipeline.py: which runs its stages are, and by what it chooses a step size."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from run_folders import finished

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import pipeline


def test_each_stage_starts_from_the_one_before_and_the_step_size_is_of_best_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.01 is best by validation; no other step size is tested. Stage three gains 0.02 on each task of each seed, stage
    two after stage one .2 and .1."""
    asked: list[list[str]] = []
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 40)
    tests = {"one": 0.3, "two": 0.4, "both": 0.5, "tuned0.01": 0.52}

    def command(words: Sequence[str]) -> int:
        asked.append(list(words))
        place = Path(words[-1].partition("=")[2])
        name, _, seed = place.name.partition("-s")
        folder = finished(place, list(tests.get(name, 0.2) + noise), seed=int(seed))
        results = json.loads((folder / "results.json").read_text())
        results["val"]["accuracy"] = {"try0.01": 0.7, "try0.03": 0.1}.get(name, 0.5)
        (folder / "results.json").write_text(json.dumps(results))
        return 0

    words = [str(tmp_path), "--seeds", "0,1,2", "--steps", "7", "data=glyphs"]
    scores = pipeline.main(words, command)
    assert {name: values.shape for name, values in scores.items()} == dict.fromkeys(
        ("one", "two", "both", "tuned"), (3, 40)
    )
    assert np.allclose(scores["tuned"] - scores["both"], 0.02)
    said = capsys.readouterr().out
    assert "both - one: +20.00 ± 0.00" in said
    assert "both - two: +10.00 ± 0.00" in said
    assert "tuned - both: +2.00 ± 0.00" in said
    first = {Path(words[-1].partition("=")[2]).name: words for words in asked[: len(asked) // 3]}
    assert first["one-s0"][1:4] == ["algo=meta_baseline", "algo.pretraining=1", "run.steps=7"]
    assert first["two-s0"][1:4] == ["algo=meta_baseline", "algo.pretraining=0", "run.steps=14"]
    assert {f"backbone.weights={tmp_path / 'one-s0'}", pipeline.SLOWER} < set(first["both-s0"])
    assert pipeline.SLOWER not in first["one-s0"] + first["two-s0"]
    for size in pipeline.STEP_SIZES:
        assert f"backbone.weights={tmp_path / 'both-s0'}" in first[f"try{size}-s0"]
        assert {f"algo.inner_lr={size}", "run.test_tasks=2"} < set(first[f"try{size}-s0"])
    assert [name for name in first if name.startswith("tuned")] == ["tuned0.01-s0"]
    assert "run.test_tasks=2" not in first["tuned0.01-s0"]
    before = len(asked)
    pipeline.main(words, command)
    assert len(asked) == before  # finished runs are kept


def test_a_stage_that_fails_ends_the_script(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="one-s0 failed"):
        pipeline.main([str(tmp_path), "--seeds", "0", "data=glyphs"], lambda words: 1)
