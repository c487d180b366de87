"""The largest error of tests that derive a method's numbers by hand: results/derived.json, which scripts/bars.py shows.

    uv run python scripts/derived.py            # runs the tests that are named here, and writes what they found

An error is the largest |found - expected| in float64, divided by |expected| where that is above 1, of all comparisons
of a test that are to hold closer than 1e-6: `torch.allclose`, `pytest.approx`, and `assert number < 1e-10`. Tests that
compare to the bit have none. Those of protonet are of n-grams of texts, which are float32.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "derived.json"
CLOSE = 1e-6
APPROX = type(pytest.approx(1.0))

TESTS = {
    "lstm_learner": ("learned_parts", "open_and_constant or update_is_that or vmap_learn_the_same_optimizer"),
    "learned_optimizer": ("learned_optimizer", "best_learned_rate or one_segment or segments_are_plain or evolution"),
    "hypernet": ("learned_parts", "generator_of_prototypes or generated_classifiers"),
    "snail": ("memory", "torchs_attention or whole_causal or attention_to_labels"),
    "incontext": ("memory", "torchs_attention or order_of_the_support"),
    "mann": ("memory", "as_the_equations_say or least_used or comes_with_its_own"),
    "metanet": ("fast_weights", "slow_network or nearest_image or chunks_of_gradients or loop_over_tasks"),
    "taml": ("learned_parts", "without_its_term or whole_meta_batch or inequality or entropy"),
    "abml": ("bayes", "without_spread or exact_posterior or bound_is or distance_is or means_of_softmaxes"),
    "mr_maml": ("bayes", "free_and_certain or price_is_paid"),
    "metareg": ("metareg", "penalty_learns or second_stage"),
    "hsml": ("hsml", "open_gates or tree_is or one_cluster"),
    "neural_statistician": ("generative", "exact_posteriors or nearest_posterior"),
    "metagan": ("metagan", "prototypical or losses_are or descends_its_own"),
    "metagan_maml": ("metagan", "it_is_maml or losses_are or descends_its_own"),
    "bpl": ("bpl", "one_bead or density_of_strokes"),
    "dann": ("domains", "reversed_gradient or climb_the_domain_loss or bit_for_bit or weight_rises"),
    "multitask": ("multitask", "gradients or least_lossy or least_squares_line or pcgrad"),
    "zero_shot": ("zero_shot", "it_is_protonet"),
    "protonet": ("text", "signed_counts"),
    "finetune": ("pretraining", "torchs_optimizer_makes_of_a_copy or pulled_to_its_source"),
    "meta_baseline": ("pretraining", "meta_baseline_scales"),
}
"""Of each method: tests/test_NAME.py, and which of its tests."""

SMALL = re.compile(r"(?:[\w.]+\()?(\d[\d.]*(?:e-?\d+)?)(?:, [^\n]*)?\)? < (\d[\d.]*e-\d+)")


class Errors:
    """A plugin of pytest that keeps the largest error of each test."""

    def __init__(self) -> None:
        self.largest: dict[str, float] = defaultdict(float)
        self.failed: list[str] = []
        self.now = ""

    def keep(self, error: float) -> None:
        self.largest[self.now] = max(self.largest[self.now], error)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.now = item.name

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_assertion_pass(self, expl: str) -> None:
        said = SMALL.match(expl)
        if said and float(said[2]) <= CLOSE:
            self.keep(float(said[1]))


def measure(file: str, chosen: str) -> dict[str, float]:
    """Run tests, and return the largest error of each; those that compare nothing closely are left out.

    Raises: SystemExit if one fails.
    """
    errors = Errors()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "pycache_prefix", folder)  # tests that were compiled before tell of no assertion
        patch.setattr(torch, "allclose", watch_tensors(torch.allclose, errors))
        patch.setattr(APPROX, "__eq__", watch_numbers(APPROX.__eq__, errors))
        words = ["-n", "0", "-p", "no:cacheprovider", "-o", "enable_assertion_pass_hook=true", "-m", "slow or not slow"]
        pytest.main([*words, "-k", chosen, str(HERE.parent / "tests" / f"test_{file}.py")], [errors])
    if errors.failed or not errors.largest:
        raise SystemExit(f"tests/test_{file}.py -k {chosen!r}: {errors.failed or 'nothing is compared'}")
    return dict(sorted(errors.largest.items()))


def watch_tensors(allclose: Any, errors: Errors) -> Any:
    def watched(one: torch.Tensor, other: torch.Tensor, **tolerance: Any) -> bool:
        close: bool = allclose(one, other, **tolerance)
        if close and one.dtype == other.dtype == torch.float64 and one.numel():
            errors.keep(float(((one - other).abs() / other.abs().clamp(min=1)).max().detach()))
        return close

    return watched


def watch_numbers(equals: Any, errors: Errors) -> Any:
    def watched(self: Any, found: Any) -> bool:
        close: bool = equals(self, found)
        if close and isinstance(found, float) and self.tolerance <= CLOSE * max(1, abs(self.expected)):
            errors.keep(abs(found - self.expected) / max(1, abs(self.expected)))
        return close

    return watched


def main() -> None:
    found = {method: measure(*tests) for method, tests in TESTS.items()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
