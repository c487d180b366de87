"""Numbers of every method as metarun of November 2026 (commit b25c6f5) gave them: tests/data/snapshot.json.

Bit for bit where torch, numpy, Python and the processor are those they were made with. Elsewhere, tried with what
keeps torch, MKL and oneDNN from newer instructions, functions agree to 2e-3. Images do so where the glyphs are drawn
alike (at most 9e-4 apart: Proto-MAML). MKL_CBWR=COMPATIBLE draws one pixel in 2,500 a level of gray lighter or darker,
and the first steps of Adam make losses that are up to 4e-2 apart of it; accuracies were one or two answers of 15 apart.
All cases, some of which are more touchy than that, and what differs
in each: python scripts/snapshot.py
"""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import snapshot

TOLERANCE, OF_IMAGES, TWO_ANSWERS = 2e-3, 0.08, 0.14

KEPT = json.loads(snapshot.KEPT.read_text())
CASES = snapshot.cases()
CHOSEN = [
    *(name for name in CASES if name.endswith(" glyphs")),
    "anp sinusoid",
    "cnp sinusoid",
    "np sinusoid",
    "gp_oracle gp",
    "maml sinusoid",
    "maml sinusoid optim=adam linear",
    "maml sinusoid optim=adamw step",
    "maml sinusoid optim=sgd cosine_restarts",
    "maml glyphs bn=running algo.task_chunk=2",
    "maml glyphs bn=support",
    "simpleshot glyphs bn=running",
    "protonet glyphs backbone=resnet12",
    "protonet glyphs backbone=vit",
]  # fmt: skip


@pytest.mark.parametrize("name", CHOSEN)
def test_the_numbers_are_as_they_were(cache: Path, name: str) -> None:
    exactly = snapshot.made_with() == KEPT["made_with"]
    tolerance = OF_IMAGES if "glyphs" in name else TOLERANCE
    found = snapshot.numbers_of(*CASES[name], cache)
    apart = [
        f"{place}: {said}"
        for place, how_far, said in snapshot.differences(KEPT["cases"][name], found, bits=exactly)
        if exactly or how_far > (TWO_ANSWERS if "accuracy" in place else tolerance)
    ]
    assert not apart, f"{len(apart)} differ; see: python scripts/snapshot.py '{name}'"


def test_every_case_is_kept_and_every_algorithm_and_backbone_has_one() -> None:
    assert list(KEPT["cases"]) == list(CASES)
    assert {name.split()[0] for name in CASES} == set(snapshot.ALGOS)
    assert all(any(f"backbone={name}" in case for case in CASES) for name in snapshot.BACKBONES if name != "none")


def test_a_difference_is_told_by_its_place_and_size() -> None:
    """A loss of 1.5 moved by 3e-4 of it, a rate by a tenth, another digest, and two tensors that change names."""
    kept = {
        "start": "aa",
        "steps": [{"metrics": {"loss": 1.5, "lr_outer": 0.001}}, {"metrics": {"loss": 1.25, "lr_outer": 0.0005}}],
        "tensors": {"net.weight": 2.5, "net.bias": 0.5},
    }
    now = deepcopy(kept)
    assert list(snapshot.differences(kept, now)) == []
    now["tensors"] = {"body.bias": 0.5, "body.weight": 2.5}
    assert list(snapshot.differences(kept, now)) == []
    now["start"], now["steps"][0]["metrics"]["loss"], now["steps"][1]["metrics"]["lr_outer"] = "ab", 1.50045, 0.00045
    found = {place: how_far for place, how_far, _ in snapshot.differences(kept, now)}
    assert found == {
        "start": 0.0,
        "steps 1 metrics loss": pytest.approx(0.00045 / 1.50045),
        "steps 2 metrics lr_outer": pytest.approx(0.1),
    }
    assert "start" not in {place for place, *_ in snapshot.differences(kept, now, bits=False)}
    now["tensors"]["body.weight"] = 2.75
    assert {"tensors net.weight", "tensors body.weight"} <= {place for place, *_ in snapshot.differences(kept, now)}
