"""Comparisons of finished runs: the statistics, what is set apart, and the command."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import finished, settings
from scipy import stats

from metarun.cli import command
from metarun.core.scores import find_sign
from metarun.report.compare import Comparison, compare, rank_groups
from metarun.report.formats import format_csv, format_latex, format_markdown
from metarun.report.groups import Group
from metarun.report.power import count_seeds
from metarun.report.runs import Run, find_runs
from metarun.report.stats import compare_paired, correct_by_holm, estimate_seed_interval
from metarun.report.two_levels import estimate_difference, estimate_equivalence

NOISE = np.random.default_rng(0).normal(0, 0.05, 40)
CENTRED = NOISE - NOISE.mean()
BASE = 0.5 + np.random.default_rng(1).normal(0, 0.1, 40)


def compared(folder: Path, by: Any = None, baseline: Any = None, metric: str = "accuracy") -> list[Comparison]:
    return compare(find_runs([folder]), by, ["seed"], metric, baseline)[0]


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, and what was printed with its white space made single."""
    code = command(["compare", *map(str, arguments)])
    out, error = capsys.readouterr()
    return code, " ".join(out.split()), " ".join(error.split())


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")


def test_the_paired_interval_is_student_t_over_differences() -> None:
    """Differences 1, 2, 3: mean 2, standard deviation 1, error 1/sqrt(3), t(0.975, 2) = 4.302653, so ± 2.484138.
    t = 2 sqrt(3), and with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2) = 1 - sqrt(12/14) = 0.0741799."""
    found = compare_paired(np.array([11.0, 22, 33]), np.array([10.0, 20, 30]))
    assert found.mean == 2
    assert found.ci95 == pytest.approx(2.484138, rel=1e-6)
    assert found.p == pytest.approx(0.0741799, rel=1e-6)


def test_the_paired_p_value_is_scipys() -> None:
    found, expected = compare_paired(BASE + 0.02 + NOISE, BASE), stats.ttest_rel(BASE + 0.02 + NOISE, BASE)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    low, high = expected.confidence_interval()
    assert (found.mean - found.ci95, found.mean + found.ci95) == pytest.approx((low, high), rel=1e-12)


def test_pairing_sees_what_two_separate_intervals_hide() -> None:
    """A difference of 0.02 on tasks that vary by 0.1: unpaired p > 0.3; the noise of the differences is 0.01."""
    other = BASE + 0.02 + NOISE / 5
    assert stats.ttest_ind(other, BASE).pvalue > 0.3
    assert compare_paired(other, BASE).p < 1e-6


@pytest.mark.parametrize(("differ", "total"), [(0, 2.0), (1, 0.12 - 0.04 / 22), (3, 0.20 - 0.36 / 22)])
def test_where_few_tasks_differ_two_more_count(differ: int, total: float) -> None:
    """20 tasks, of which some differ by 0.2: squares of 22 differences, two of them more, less those of their mean.

    Where none differs, the two differ wholly.
    """
    reference = np.ones(20)
    scores = reference - 0.2 * (np.arange(20) < differ)
    found = compare_paired(scores, reference, share=True)
    assert found.ci95 == pytest.approx(stats.t.ppf(0.975, 19) * np.sqrt(total / 21 / 20))
    assert found.mean == pytest.approx(-0.2 * differ / 20)
    assert found.p == pytest.approx(2 * stats.t.sf(0.2 * differ / 20 / np.sqrt(total / 21 / 20), 19))
    assert compare_paired(scores, reference).ci95 < found.ci95


def test_where_many_tasks_differ_the_difference_is_students() -> None:
    """19 tasks differ by 0.2, one more makes 20."""
    scores, reference = np.where(np.arange(400) < 19, 0.8, 1.0), np.ones(400)
    assert compare_paired(scores, reference, share=True).ci95 > compare_paired(scores, reference).ci95
    scores[19] = 0.8
    assert compare_paired(scores, reference, share=True) == compare_paired(scores, reference)


def test_the_interval_of_a_difference_holds_near_the_ceiling() -> None:
    """Accuracies of 0.999 and 0.99 with 5 queries, 20 tasks: without the two tasks it holds in 69 % of draws."""
    rng, held = np.random.default_rng(0), {True: 0, False: 0}
    for _ in range(300):
        ease = 2 * rng.random(20)
        one, other = (rng.binomial(5, 1 - error * ease) / 5 for error in (0.001, 0.01))
        for share in held:
            found = compare_paired(one, other, share)
            held[share] += abs(found.mean - 0.009) <= found.ci95
    assert held[True] >= 0.95 * 300
    assert held[False] < 0.8 * 300


def test_groups_that_are_always_right_are_not_known_to_be_equal_within_half_a_point() -> None:
    right = np.ones((3, 20))
    assert estimate_equivalence(right, right, 0.005, share=True) > 0.05
    assert estimate_difference(right, right, share=True).ci95 > 0.05
    assert count_seeds(right, right, 0.005, share=True) is None


def test_equal_scores_differ_by_nothing_and_one_task_proves_nothing() -> None:
    same = compare_paired(BASE, BASE)
    assert (same.mean, same.ci95, same.p) == (0, 0, 1)
    single = compare_paired(np.array([0.9]), np.array([0.1]))
    assert (single.p, np.isfinite(single.ci95)) == (1, False)


def test_holm_multiplies_the_smallest_most() -> None:
    """Of m = 4, sorted 0.005, 0.01, 0.03, 0.04: 4 x 0.005 = 0.02; 3 x 0.01 = 0.03; 2 x 0.03 = 0.06;
    1 x 0.04 = 0.04, kept at the 0.06 before it."""
    assert correct_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_by_holm([0.5, 0.9]) == [1, 1]  # 2 x 0.5, and no less than it
    assert correct_by_holm([]) == []


def test_the_seed_interval_is_student_t_over_means_of_seeds() -> None:
    """Means 0.5, 0.6, 0.7: standard deviation 0.1, over sqrt(3), times t(0.975, 2) = 4.302653. Two say nothing."""
    assert estimate_seed_interval(np.array([0.5, 0.6, 0.7])) == pytest.approx(0.1 / 3**0.5 * 4.302653, rel=1e-6)
    assert estimate_seed_interval(np.array([0.5, 0.6])) is None


def test_scores_are_averaged_over_seeds_before_they_are_paired(tmp_path: Path) -> None:
    """maml's tasks are (0.2, 0.4, 0.6) over its seeds and protonet's (0.3, 0.6, 0.9): differences -0.1, -0.2, -0.3 of
    mean -0.2, standard deviation 0.1, interval 4.302653 x 0.1 / sqrt(3). maml's seeds have the means 0.3 and 0.5.
    Over tasks each has an interval of its three means, of standard deviation 0.2 and 0.3, not of its six scores."""
    finished(tmp_path / "a0", [0.1, 0.3, 0.5], seed=0)
    finished(tmp_path / "a1", [0.3, 0.5, 0.7], seed=1)
    finished(tmp_path / "b0", [0.2, 0.5, 0.8], "protonet", seed=0)
    finished(tmp_path / "b1", [0.4, 0.7, 1.0], "protonet", seed=1)
    (found,) = compared(tmp_path)
    best, other = found.rows
    assert (found.keys, best.group.values, other.group.values) == (("algo",), ("protonet",), ("maml",))
    assert len(found.notes) == 1  # on too few seeds; maml alone has an algo.inner_lr: that follows from the algorithm
    assert found.notes[0].startswith("a difference is marked only if both groups have 3 runs or more")
    assert [(row.p_with_seeds, row.mark) for row in found.rows] == [(None, "")] * 2
    assert other.difference is not None
    assert other.difference.mean == pytest.approx(-0.2)
    assert other.difference.ci95 == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-6)
    assert other.over_tasks.mean == pytest.approx(0.4)
    assert (other.over_tasks.n_tasks, best.over_tasks.n_tasks) == (3, 3)
    assert other.over_tasks.ci95 == pytest.approx(4.302653 * 0.2 / np.sqrt(3), rel=1e-6)
    assert best.over_tasks.ci95 == pytest.approx(4.302653 * 0.3 / np.sqrt(3), rel=1e-6)
    assert other.over_seeds is None


def group(name: str, scores: Any, seeds: int = 3) -> Group:
    """Runs that seeds do not change."""
    return Group((name,), (Run(Path(name), "finished", {}, {}, ()),) * seeds, np.stack([np.asarray(scores)] * seeds))


def test_each_table_is_of_the_score_its_runs_are_known_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracy on classes, the larger the better; squared errors on functions, the smaller the better."""
    functions = {"data": "sinusoid", "n_way": None, "k_shot": 5, "n_query": 100, "score": "mse"}
    for seed in range(3):
        for algo, gain in (("maml", 0.0), ("protonet", 0.1)):
            finished(tmp_path / f"classes-{algo}-{seed}", BASE + gain + CENTRED / 10, algo, seed)
        for algo, gain in (("maml", 0.1), ("reptile", 0.0)):
            finished(tmp_path / f"functions-{algo}-{seed}", BASE + gain + CENTRED / 10, algo, seed, **functions)
    code, out, error = said(capsys, tmp_path)
    assert (code, error) == (0, "")
    classes, sines = sorted(out.split("table ")[1:], key=lambda text: "mse" in text)
    assert "glyphs, 5-way 1-shot, 15 queries a class" in classes
    assert "sinusoid, 5-shot, 100 queries, bn=" in sines
    assert ("accuracy %" in classes, "mse" in sines) == (True, True)
    best = {text: re.search(r"(\w+) +\S+ +± \S+ +± \S+ +3 +best", text) for text in (classes, sines)}
    assert [found and found[1] for found in best.values()] == ["protonet", "reptile"]


def marks(groups: list[Group], baseline: int | None = None, metric: str = "accuracy") -> dict[str, str]:
    return {
        r.group.values[0]: r.mark
        for r in rank_groups(groups, metric, baseline, baseline is not None, find_sign(metric))
    }


def test_a_winner_beats_every_other_group() -> None:
    """c is as good as b but for noise of mean zero, so b beats a and nobody beats everyone."""
    clear = BASE + 0.1 + NOISE
    close = clear - 1e-6 + CENTRED
    assert marks([group("a", BASE), group("b", clear)]) == {"b": "best", "a": ""}
    assert set(marks([group("a", BASE), group("b", clear), group("c", close)]).values()) == {""}


def test_no_winner_is_marked_where_the_interval_contains_zero() -> None:
    """The differences' mean is a tenth of their interval."""
    tiny = 0.1 * stats.t.ppf(0.975, 39) * stats.sem(CENTRED)
    assert set(marks([group("a", BASE), group("b", BASE + CENTRED + tiny)]).values()) == {""}
    assert set(marks([group("a", BASE), group("b", BASE + CENTRED + 11 * tiny)]).values()) == {"best", ""}


def test_correction_takes_back_what_a_single_comparison_would_claim() -> None:
    """A difference with p = 0.03 alone is a finding; among three with p = 0.03, 0.03 x 3 is not."""
    weak = BASE + CENTRED - stats.t.ppf(0.985, 39) * stats.sem(CENTRED)
    assert compare_paired(weak, BASE).p == pytest.approx(0.03)
    assert marks([group("a", BASE), group("b", weak)], 0) == {"a": "baseline", "b": "worse"}
    three = [group("a", BASE), group("b", weak), group("c", weak), group("d", weak)]
    assert marks(three, 0) == {"a": "baseline", "b": "", "c": "", "d": ""}
    alone, among = (rank_groups(groups, "accuracy", 0, True, 1) for groups in (three[:2], three))
    assert [row.p for row in alone if row.p is not None] == pytest.approx([0.03])
    assert [row.p for row in among if row.p is not None] == pytest.approx([0.09] * 3)


def test_against_a_baseline_each_finding_is_marked_and_a_loss_is_better_when_lower() -> None:
    three = [group("low", BASE - 0.1 + NOISE), group("base", BASE), group("high", BASE + 0.1 + NOISE)]
    assert marks(three, 1) == {"high": "better", "base": "baseline", "low": "worse"}
    assert marks(three, 1, "loss") == {"low": "better", "base": "baseline", "high": "worse"}
    assert marks(three, None, "loss") == {"low": "best", "base": "", "high": ""}


def test_a_direction_that_is_typed_comes_before_the_known_one(tmp_path: Path) -> None:
    for name, scores in (("low", BASE - 0.1), ("high", BASE + 0.1)):
        finished(tmp_path / name, scores, algo=name)
    found = {
        better: [
            row.group.values for row in compare(find_runs([tmp_path]), None, ["seed"], None, None, better)[0][0].rows
        ]
        for better in (None, "higher", "lower")
    }
    assert found[None] == found["higher"] == found["lower"][::-1] != found["lower"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("split_sha256", "f" * 64), ("episode_sha256", "f" * 64), ("n_way", 20), ("k_shot", 5), ("n_query", 5),
     ("bn", "running"), ("trainval", True)],
)  # fmt: skip
def test_runs_that_must_not_be_compared_get_tables_of_their_own_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: Any
) -> None:
    finished(tmp_path / "a", BASE)
    finished(tmp_path / "b", BASE + 0.2, "protonet", **{field: value})
    code, out, _ = said(capsys, tmp_path)
    assert code == 0
    assert f"table 2 of 2: protonet on glyphs, {20 if field == 'n_way' else 5}-way" in out
    assert f"not to be compared with the others: {field}={str(value)[:16]} " in out
    assert "difference" not in out


def test_a_table_without_the_baseline_compares_nothing_and_says_so(tmp_path: Path) -> None:
    for seed in range(3):
        finished(tmp_path / f"a{seed}", BASE, seed=seed)
        finished(tmp_path / f"b{seed}", BASE + 0.2, "protonet", seed)
    for name in ("anil", "reptile"):
        finished(tmp_path / name, BASE, name, bn="running")
    first, second = compared(tmp_path, baseline={"algo": "maml"})
    assert [row.mark for row in first.rows] == ["better", "baseline"]
    assert [(row.mark, row.difference) for row in second.rows] == [("", None)] * 2
    assert "the baseline was not run here: nothing is compared" in second.notes


def test_the_default_groups_are_by_what_differs_and_do_not_repeat_what_follows(tmp_path: Path) -> None:
    """inner_lr follows from the algorithm but for maml, where it varies; optim.lr follows from both and is said."""
    for place, (algo, rate, lr) in enumerate((("maml", 0.4, 1e-3), ("maml", 0.1, 1e-3), ("protonet", None, 2e-3))):
        for seed in (0, 1):
            config = settings(algo.upper(), rate, lr, seed)
            finished(tmp_path / f"{place}{seed}", BASE + place / 10, algo, seed, config)
    (found,) = compared(tmp_path)
    assert found.keys == ("algo", "algo.inner_lr")
    assert [row.group.values for row in found.rows] == [("protonet", None), ("maml", 0.1), ("maml", 0.4)]
    assert [len(row.group.runs) for row in found.rows] == [2, 2, 2]
    assert "optim.lr differs too: 0.001 (maml 0.4, maml 0.1), 0.002 (protonet)" in found.notes


@pytest.mark.parametrize(
    "other",
    [
        {"device": "cuda"},
        {"deterministic": True},
        {"threads": 2},
        {"run": {**settings()["run"], "processes": 2}},
        {"precision": "tf32"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_where_and_how_a_run_is_computed_makes_no_group_but_for_its_precision(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    """Of four seeds, two as the other setting has them."""
    rounding = {"deterministic": False, "threads": 1, "precision": "float32"}
    for seed in range(4):
        finished(tmp_path / str(seed), BASE, config=settings(seed=seed) | rounding | (other if seed > 1 else {}))
    (found,) = compared(tmp_path)
    assert found.keys == (("precision",) if "precision" in other else ())


def test_a_duplicate_seed_is_said_and_not_averaged_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = finished(tmp_path / "z_old", BASE)
    new = finished(tmp_path / "a_new", BASE + 0.1)
    os.utime(old / "results.json", (time.time() - 1000,) * 2)
    finished(tmp_path / "other", BASE, "protonet")
    (found,) = compared(tmp_path)
    assert found.rows[0].group.values == ("maml",)
    assert found.rows[0].group.runs[0].folder == new
    assert found.rows[0].over_tasks.mean == pytest.approx(BASE.mean() + 0.1)
    assert f"algo=maml: seed 0 was run 2 times; {new} is the newest and counts, not {old}" in said(capsys, tmp_path)[1]


def test_a_group_that_mixes_settings_and_groups_of_other_seeds_are_said(tmp_path: Path) -> None:
    finished(tmp_path / "a", BASE, seed=0, config=settings(lr=0.1))
    finished(tmp_path / "b", BASE, seed=1, config=settings(lr=0.2, seed=1))
    finished(tmp_path / "c", BASE, "protonet")
    (found,) = compared(tmp_path, by=["algo"])
    assert any("algo=maml mixes runs that differ in optim.lr" in note for note in found.notes)
    assert any("do not have the same values of seed" in note for note in found.notes)


def test_the_papers_number_is_held_against_the_wider_interval(tmp_path: Path) -> None:
    """Over tasks ± 0.03; over the means of seeds at 0.4, 0.5 and 0.6 ± 0.25: 0.6 is inside that, not in the first."""
    paper = {"value": 0.6, "ci95": None, "source": "Somebody 2020, Table 1"}
    finished(tmp_path / "a", BASE, paper=paper)
    (alone,) = compared(tmp_path)
    finished(tmp_path / "b", BASE + 0.1, seed=1, paper=paper)
    finished(tmp_path / "c", BASE - 0.1, seed=2, paper=paper)
    (both,) = compared(tmp_path)
    assert (alone.rows[0].in_interval, both.rows[0].in_interval) == (False, True)
    assert "| 60.00 | yes |" in format_markdown([both])


@pytest.mark.parametrize("other", [None, {"value": 0.7, "ci95": None, "source": "Somebody else 2021, Table 2"}])
def test_a_group_whose_runs_name_other_papers_or_none_is_held_against_no_paper(tmp_path: Path, other: Any) -> None:
    """Each run by itself is within the interval of the paper it names."""
    paper = {"value": 0.5, "ci95": None, "source": "Somebody 2020, Table 1"}
    for seed, named in enumerate((paper, other)):
        finished(tmp_path / f"a{seed}", [0.3, 0.5, 0.7], seed=seed, paper=named)
    (found,) = compared(tmp_path)
    assert found.rows[0].in_interval is None
    (alone,) = compared(tmp_path / "a0")
    assert alone.rows[0].in_interval is True


def write_tasks(run: Path, index: list[int], scores: list[float]) -> None:
    np.savez_compressed(run / "test_tasks.npz", index=np.array(index), accuracy=np.array(scores))


@pytest.mark.parametrize("index", [[0, 1, 7], [1, 0, 2], [0, 1]], ids=["other tasks", "another order", "fewer tasks"])
def test_a_run_whose_tasks_are_not_numbered_as_the_others_is_left_out_and_said(
    tmp_path: Path, index: list[int]
) -> None:
    """Of three runs of one table the second: as another group, which then has no run, and as a seed of a group."""
    finished(tmp_path / "a", [0.1, 0.2, 0.3])
    seed, group = finished(tmp_path / "b", [0.9] * 3, seed=1), finished(tmp_path / "c", [0.9] * 3, "protonet")
    for run in (seed, group):
        write_tasks(run, index, [0.9] * len(index))
    (found,) = compared(tmp_path)
    for run in (seed, group):
        assert f"{run} is left out: test_tasks.npz numbers its tasks in another way" in found.notes
    (row,) = found.rows
    assert (row.group.values, len(row.group.runs), row.over_tasks.mean) == (("maml",), 1, pytest.approx(0.2))


@pytest.fixture
def two_tables(tmp_path: Path) -> list[Comparison]:
    for seed in (0, 1, 2):
        finished(tmp_path / f"a{seed}", BASE + 0.01 * seed, seed=seed, backbone="conv_4&5%")
        finished(tmp_path / f"b{seed}", BASE + 0.1 + NOISE, "protonet", seed)
    finished(tmp_path / "c", BASE, bn="running")
    return compared(tmp_path)


def test_csv_reads_back_to_the_numbers_in_full(two_tables: list[Comparison]) -> None:
    lines = list(csv.DictReader(io.StringIO(format_csv(two_tables))))
    assert [(line["table"], line["algo"], line["bn"]) for line in lines] == [
        ("1", "protonet", "transductive"), ("1", "maml", "transductive"), ("2", "", "running")
    ]  # fmt: skip
    row = two_tables[0].rows[1]
    assert row.difference is not None
    assert float(lines[1]["mean"]) == row.over_tasks.mean
    assert float(lines[1]["difference"]) == row.difference.mean
    assert float(lines[1]["p_holm"]) == row.p
    assert float(lines[1]["p_holm_with_seeds"]) == row.p_with_seeds != row.p
    assert (lines[0]["mark"], lines[2]["ci95_seeds"], lines[2]["difference"]) == ("best", "", "")


def test_a_formula_among_the_settings_of_somebody_else_s_run_is_text_in_the_csv(tmp_path: Path) -> None:
    finished(tmp_path / "a", BASE, backbone="=cmd|x!A1")
    finished(tmp_path / "b", BASE + 0.1 + NOISE, backbone="mlp")
    lines = csv.DictReader(io.StringIO(format_csv(compared(tmp_path))))
    assert {line["backbone"] for line in lines} == {"'=cmd|x!A1", "mlp"}


def test_markdown_reads_back_line_by_line(two_tables: list[Comparison]) -> None:
    text = format_markdown(two_tables)
    assert text.count("### table ") == 2
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    head, rule, *rows = lines[:4]
    assert len({len(line) for line in lines[:4]}) == 1
    assert set(rule) == {"---", "---:"}
    read = dict(zip(head, rows[0], strict=True))
    assert read["accuracy %"] == f"{100 * two_tables[0].rows[0].over_tasks.mean:.2f}"
    assert (read["algo"], read["seeds"], read["step"], read["training"]) == ("protonet", "3", "30", "1:20")


def test_latex_is_balanced_escaped_and_has_as_many_cells_as_columns(two_tables: list[Comparison]) -> None:
    text = format_latex(two_tables)
    tabulars = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S)
    assert len(tabulars) == text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    for columns, body in tabulars:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(columns)}
    body = text.split("\n", 1)[1]
    assert not re.search(r"(?<!\\)[%#_]|±", body)
    assert body.count("{") - body.count("}") == 0


def test_the_command_prints_the_table_and_writes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2):
        finished(tmp_path / f"a{seed}", BASE + 0.01 * seed, seed=seed)
        finished(tmp_path / f"b{seed}", BASE + 0.1 + NOISE, "protonet", seed)
    files = [f"--{form}={tmp_path / form}" for form in ("csv", "markdown", "latex")]
    code, out, error = said(capsys, tmp_path, "--baseline", "algo=maml", *files)
    assert (code, error) == (0, "")
    assert "glyphs, 5-way 1-shot, 15 queries a class, bn=transductive, 40 test tasks" in out
    assert "difference to algo=maml, paired over the same test tasks" in out
    assert "over tasks at these seeds" in out
    assert re.search(r"protonet .* <0.001 0\.0\d\d better 30 1:20", out)
    assert (tmp_path / "csv").read_text().startswith("table,data,")
    assert "| protonet |" in (tmp_path / "markdown").read_text()
    assert r"\toprule" in (tmp_path / "latex").read_text()


def test_unfinished_and_unscored_runs_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "a", BASE)
    finished(tmp_path / "b", BASE, "protonet", status="interrupted")
    (finished(tmp_path / "c", BASE, "anil") / "test_tasks.npz").write_bytes(b"cut off")
    code, out, _ = said(capsys, tmp_path)
    assert code == 0
    assert "left out: 1 interrupted" in out
    assert f"{tmp_path / 'c'} is left out: its test_tasks.npz is missing, damaged or changed" in out
    assert "protonet" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/outputz"], "there is no folder {}/outputz; did you mean {}/outputs?"),
        (["{}/empty"], "no finished run is under {}/empty"),
        (["{}/half"], "no finished run is under {}/half, only 1 interrupted"),
        (["{}/outputs", "--metric", "acuracy"], "no run has the score acuracy; did you mean accuracy?; there is"),
        (["{}/outputs", "--by", "algo,inner_lrr"], "no run has this setting; did you mean algo.inner_lr?"),
        (["{}/outputs", "--over", "sed"], "--over sed: no run has this setting; did you mean seed?"),
        (["{}/outputs", "--by", "seed"], "seed is in --by and in --over"),
        (["{}/outputs", "--baseline", "algo=proto"], "--baseline algo=proto is no group; did you mean algo=protonet?"),
        (["{}/outputs", "--baseline", "alg=maml"], "--baseline alg: no run has this setting; did you mean algo?"),
        (["{}/outputs", "--baseline", "bn=transductive"], "bn=transductive is 2 groups: algo=maml; algo=protonet"),
        (["{}/outputs", "--baseline", "maml"], "--baseline maml is not KEY=VALUE"),
        (["{}/outputs", "--csv", "{}/no/where.csv"], "cannot write {}/no/where.csv"),
        (["{}/outputs", "--html", "{}/no/where.html"], "cannot write {}/no/where.html: No such file or directory"),
        (["{}/outputs", "--html", "{}/outputs"], "cannot write {}/outputs: Is a directory"),
        (["{}/outputs", "--png", "{}/no/where.png"], "cannot write {}/no/where.png: No such file or directory"),
        (["{}/outputs/a", "--png", "{}/a.png"], "there is nothing to draw for {}/a.png"),
        (["{}/outputs", "--metrc", "loss"], "unrecognized arguments: --metrc loss; did you mean --metric?"),
        ([], "the following arguments are required: PATH"),
    ],
)  # fmt: skip
def test_wrong_input_ends_with_code_2_and_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (finished(tmp_path / "outputs" / "a", BASE) / "metrics.jsonl").unlink()
    finished(tmp_path / "outputs" / "b", BASE, "protonet")
    finished(tmp_path / "half" / "c", BASE, status="interrupted")
    (tmp_path / "empty").mkdir()
    code, _, error = said(capsys, *(argument.format(tmp_path) for argument in arguments))
    assert message.format(*[tmp_path] * 2) in error
    assert code == 2
    assert error.count("metarun: ") == 1


def test_comparing_on_the_screen_needs_no_torch_and_draws_nothing(tmp_path: Path) -> None:
    finished(tmp_path / "a", BASE)
    call = f"import sys; from metarun.cli import command; code = command(['compare', {str(tmp_path)!r}])"
    slow = {"torch", "hydra", "scipy.stats", "altair", "vl_convert", "jinja2"}
    script = f"{call}; sys.exit(code or bool({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "glyphs, 5-way" in done.stdout
