"""conf/algo/README.md has a line for each method, made by scripts/methods.py from what there is."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import bars
import derived
import methods
from reproduction.outcomes import read_outcomes
from reproduction.targets import read_targets

from metarun.settings.conf import list_shipped


def test_the_page_is_up_to_date() -> None:
    assert methods.make_page() == methods.README.read_text(), "python scripts/methods.py writes it"


def test_the_bars_are_up_to_date() -> None:
    assert bars.make_page() == bars.README.read_text(), "python scripts/bars.py writes it"
    assert {bar.method for bar in bars.read_bars()} <= set(list_shipped("algo"))


def test_a_method_without_a_papers_number_shows_its_first_small_experiment() -> None:
    rows = {line.split("`")[1]: line.split(" | ") for line in methods.list_lines() if line.startswith("| `")}
    assert rows["incontext"][5] == "Omniglot 5w1s: 94.8 ± 0.5 %"  # and not that on Gaussian processes
    assert rows["hsml"][5] == "four families of functions: mse 2.891 ± 0.213"
    assert rows["tim"][5].endswith(": 67.5 %")
    lines = [line for line in bars.list_lines() if line.startswith("| `")]
    assert len(lines) == sum(bar.bar is not None for bar in bars.read_bars()) < len(bars.read_bars())


def test_every_method_has_one_line_with_its_idea_and_what_it_needs() -> None:
    rows = [line.split(" | ") for line in methods.list_lines() if line.startswith("| `")]
    assert sorted(row[0].strip("| `") for row in rows) == list_shipped("algo")
    for row in rows:
        assert len(row) == len(methods.HEADS)
        assert row[1].strip()
        assert row[3].strip()


def test_a_number_of_ours_is_that_of_the_target_and_a_method_without_one_says_so() -> None:
    rows = {line.split("`")[1]: line.split(" | ") for line in methods.list_lines() if line.startswith("| `")}
    (outcome,) = [one for key, one in read_outcomes().items() if key[0] == ("+experiment=maml_omniglot_5w1s",)]
    ours, theirs = outcome.test["accuracy"]["mean"], read_targets()["maml_omniglot_5w1s"].paper
    assert theirs
    assert rows["maml"][5].startswith(f"{100 * ours:.2f} % ± ")
    assert rows["maml"][6] == f"{100 * theirs.value:.2f} %"
    assert rows["boil"][5] == "not run yet"
    assert re.match(r"84\.7 ± 0\.7 \(1, 3\)", rows["maml"][4])


def test_an_experiment_is_its_methods_even_where_another_file_says_so() -> None:
    found = {
        name: methods.find_algo(name)
        for name in ("maml_omniglot_5w1s", "anil_omniglot_20w1s", "protonet_cifar_fs_5w5s")
    }
    assert found == {"maml_omniglot_5w1s": "maml", "anil_omniglot_20w1s": "anil", "protonet_cifar_fs_5w5s": "protonet"}


def test_the_largest_error_is_kept_of_what_is_to_be_close() -> None:
    """Of 200 + 4e-10 it is 2e-12; what is bounded by more than 1e-6, is not close or is no float64 tells nothing."""
    errors = derived.Errors()
    one = torch.tensor([1.0, 200.0], dtype=torch.float64)
    close = derived.watch_tensors(torch.allclose, errors)
    assert close(one + torch.tensor([1e-12, 4e-10]).double(), one)
    assert errors.largest[""] == pytest.approx(2e-12, rel=1e-3)
    assert not close(one + 1, one)
    assert close(one.float() * (1 + 1e-6), one.float())
    errors.pytest_assertion_pass("tensor(2.5000, dtype=torch.float64) < 5.0\n{tensor(2.5000) = f()}")
    errors.pytest_assertion_pass("0.3 < 1e-1")
    assert errors.largest[""] < 1e-11
    for said, error in (("tensor(2.5e-11, grad_fn=<Max>) < 1e-10\n{x}", 2.5e-11), ("7.1e-10 < 1e-09", 7.1e-10)):
        errors.pytest_assertion_pass(said)
        assert errors.largest[""] == error
    equals = derived.watch_numbers(derived.APPROX.__eq__, errors)
    assert equals(pytest.approx(4.0, rel=1e-8), 4.0 + 4e-9)
    assert errors.largest[""] == pytest.approx(1e-9, rel=1e-3)
    assert equals(pytest.approx(4.0, rel=0.1), 4.1)
    assert errors.largest[""] < 1e-8


def test_the_tests_whose_errors_are_shown_exist() -> None:
    for file, chosen in derived.TESTS.values():
        names = re.findall(r"def (test_\w+)", (Path(__file__).parent / f"test_{file}.py").read_text())
        for part in chosen.split(" or "):
            assert any(part in name for name in names), (file, part)
    found = json.loads(derived.RESULTS.read_text())
    assert found.keys() == derived.TESTS.keys()
    assert max(error for tests in found.values() for error in tests.values()) < derived.CLOSE
