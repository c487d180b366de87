"""Planned comparisons, equality within a margin, and how many seeds would show a difference."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from run_folders import finished, settings
from scipy import stats

from metarun.cli import command
from metarun.report.compare import Comparison, compare
from metarun.report.pair_table import make_pair_caption, make_pair_cells
from metarun.report.planned import Plan
from metarun.report.power import count_seeds, count_tasks, find_power
from metarun.report.runs import find_runs
from metarun.report.stats import correct_by_holm
from metarun.report.tables import find_answers, make_sheets
from metarun.report.two_levels import Part, estimate_difference, estimate_equivalence

DRAWS = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test draws the same numbers, whichever ran before."""
    monkeypatch.setitem(globals(), "DRAWS", np.random.default_rng(0))


def draw(mean: float, seeds: int = 4, tasks: int = 200, spread: float = 0.005) -> NDArray[np.float64]:
    """Scores [S, T]: every seed and every task has its own difficulty, the tasks the same in each call."""
    difficulty = np.random.default_rng(7).normal(0, 0.1, tasks)
    return mean + difficulty + DRAWS.normal(0, spread, (seeds, 1)) + DRAWS.normal(0, 0.05, (seeds, tasks))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Four methods with four seeds each: r2d2 is 10 points above protonet, anil and maml are equal."""
    means = {"anil": 0.5, "maml": 0.5, "protonet": 0.6, "r2d2": 0.7}
    for algo, mean in means.items():
        for seed, scores in enumerate(draw(mean)):
            finished(tmp_path / "runs" / f"{algo}{seed}", scores, algo, seed, settings(algo.upper(), None, seed=seed))
    return tmp_path / "runs"


def compared(sweep: Path, plan: Plan, baseline: dict[str, str] | None = None) -> Comparison:
    ((found,), _) = compare(find_runs([sweep]), None, ["seed"], None, baseline, None, plan)
    return found


def pick(*pairs: tuple[str, str]) -> list[tuple[dict[str, str], dict[str, str]]]:
    return [({"algo": first}, {"algo": second}) for first, second in pairs]


def test_planned_pairs_pay_for_each_other_and_not_for_the_table(sweep: Path) -> None:
    """Alone, a pair has the p-value of its test; beside another, twice the smaller one."""
    (alone,) = compared(sweep, Plan(pick(("anil", "maml")))).pairs
    groups = {row.group.short_name: row.group.scores for row in compared(sweep, Plan(())).rows}
    plain = stats.ttest_rel(groups["anil"].mean(0), groups["maml"].mean(0))
    assert alone.names == ("anil", "maml")
    assert alone.p == pytest.approx(plain.pvalue)
    assert alone.over_tasks.mean == pytest.approx(groups["anil"].mean() - groups["maml"].mean())
    both = compared(sweep, Plan(pick(("anil", "maml"), ("r2d2", "protonet")))).pairs
    assert [pair.names for pair in both] == [("anil", "maml"), ("r2d2", "protonet")]
    assert both[0].p == alone.p  # the larger p-value of two is not multiplied
    expected = estimate_difference(groups["r2d2"], groups["protonet"])
    assert expected is not None
    assert both[1].with_seeds == expected
    assert both[1].p_with_seeds == pytest.approx(2 * expected.p)


def test_every_p_value_of_a_plan_is_corrected_over_its_pairs(sweep: Path) -> None:
    """Holm of two: the smaller one is doubled, and the larger one is no smaller than that."""
    asked = [("anil", "maml"), ("maml", "anil"), ("r2d2", "protonet")]
    single = [compared(sweep, Plan(pick(pair), 0.004)).pairs[0] for pair in asked]
    for kind in ("p", "p_with_seeds", "p_equal"):
        alone = [getattr(pair, kind) for pair in single]
        assert len(set(alone)) > 1, kind
        together = [getattr(pair, kind) for pair in compared(sweep, Plan(pick(*asked), 0.004)).pairs]
        assert together == pytest.approx(correct_by_holm(alone)), kind
        assert together != pytest.approx(alone), kind


def test_the_caption_says_over_how_many_pairs_p_is_corrected_and_what_each_column_is(sweep: Path) -> None:
    one = compared(sweep, Plan(pick(("anil", "maml"))))
    assert make_pair_caption(one)[0].endswith("Holm-corrected over 1 pair")
    two = compared(sweep, Plan(pick(("anil", "maml"), ("r2d2", "protonet")), 1.0, 0.5))
    heads, lines = make_pair_cells(two)
    seen = "pair, difference, p, seeds too, p, seeds too, won, seeds won, equal within 1, seeds for 0.5"
    assert ", ".join(heads) == seen
    assert [(line[0], len(line)) for line in lines] == [("anil - maml", 9), ("r2d2 - protonet", 9)]
    first, *others = make_pair_caption(two)
    assert first.endswith("Holm-corrected over 2 pairs")
    assert [words.partition(":")[0] for words in others] == [
        *("seeds too", "won", "seeds won", "equal within", "seeds for")
    ]
    ((unplanned,), _) = compare(find_runs([sweep]), None, ["seed"], None, None, None, None)
    assert make_pair_caption(unplanned) == []


def test_without_pairs_every_group_is_held_against_the_baseline_or_the_best(sweep: Path) -> None:
    assert [pair.names for pair in compared(sweep, Plan((), 0.5), {"algo": "maml"}).pairs] == [
        ("anil", "maml"), ("protonet", "maml"), ("r2d2", "maml")
    ]  # fmt: skip
    assert {pair.names[1] for pair in compared(sweep, Plan((), 0.5)).pairs} == {"r2d2"}


def test_tasks_won_count_ties_half_and_follow_the_direction_of_the_score(tmp_path: Path) -> None:
    """Of four tasks one is won, one is lost and two are equal; then three are won by lower values."""
    finished(tmp_path / "a", [0.5, 0.4, 0.1, 0.2], "anil", score="accuracy")
    finished(tmp_path / "b", [0.4, 0.5, 0.1, 0.2], "maml", config=settings("MAML", None))
    (pair,) = compared(tmp_path, Plan(pick(("anil", "maml")))).pairs
    assert pair.won == 0.5
    finished(tmp_path / "lower" / "a", [0.5, 0.1, 0.1, 0.2], "anil", score="mse")
    finished(tmp_path / "lower" / "b", [0.4, 0.5, 0.3, 0.4], "maml", config=settings("MAML", None), score="mse")
    (pair,) = compared(tmp_path / "lower", Plan(pick(("anil", "maml")))).pairs
    assert pair.won == 0.75


def test_seeds_won_is_the_probability_that_one_seed_beats_another(tmp_path: Path) -> None:
    """Of 3 times 3 pairs of seeds anil wins 4 and one is equal; of means over seeds and tasks it has the lower one."""
    for algo, means in (("anil", (0.5, 0.6, 0.1)), ("maml", (0.4, 0.5, 0.55))):
        for seed, mean in enumerate(means):
            config = settings(algo.upper(), None, seed=seed)
            finished(tmp_path / f"{algo}{seed}", [mean - 0.05, mean + 0.05], algo, seed, config)
    (pair,) = compared(tmp_path, Plan(pick(("anil", "maml")))).pairs
    assert pair.seeds_won == pytest.approx(4.5 / 9)
    assert pair.over_tasks.mean < 0


def test_equality_is_two_one_sided_tests() -> None:
    """The 90 % interval of the difference lies within the margin exactly where the p-value is below 0.05."""
    one, other = draw(0.5), draw(0.503)
    paired = one.mean(0) - other.mean(0)
    of_seeds = [group.mean(1).var(ddof=1) / len(group) for group in (one, other)]
    of_tasks = paired.var(ddof=1) / len(paired)
    squares = [part * stats.t.ppf(0.95, 3) ** 2 for part in of_seeds] + [of_tasks * stats.t.ppf(0.95, 199) ** 2]
    ninety = abs(paired.mean()) + np.sqrt(sum(squares))
    for margin, equal in ((ninety * 1.001, True), (ninety * 0.999, False)):
        p = estimate_equivalence(one, other, margin)
        assert p is not None
        assert (p < 0.05) is equal


def test_equality_is_rarely_claimed_of_methods_that_differ_by_the_margin() -> None:
    claims = [estimate_equivalence(draw(0.5), draw(0.51), 0.01) for _ in range(400)]
    assert np.mean([claim is not None and claim < 0.05 for claim in claims]) < 0.075


def test_so_many_seeds_show_the_difference_that_often() -> None:
    """Methods one point apart, whose seeds spread by half a point: the counted seeds find it in 80 % of the draws."""
    needed = count_seeds(draw(0.5, 400), draw(0.5, 400), 0.01)
    assert needed is not None
    found = [estimate_difference(draw(0.51, needed), draw(0.5, needed)) for _ in range(600)]
    assert np.mean([one is not None and one.p < 0.05 for one in found]) == pytest.approx(0.8, abs=0.06)


def test_too_few_seeds_or_tasks_are_told() -> None:
    one, other = draw(0.5, 4, tasks=20), draw(0.5, 4, tasks=20)
    assert count_seeds(one[:2], other, 0.01) is None
    assert count_seeds(one, other, 0.001) is None
    spread = (one.mean(0) - other.mean(0)).var(ddof=1)
    assert count_tasks(one, other, 0.001) == int(np.ceil(spread * ((1.959964 + 0.841621) / 0.001) ** 2))


def test_power_is_that_of_a_t_test() -> None:
    """One sample of 20 with a mean of half a standard deviation: 0.5645, a textbook's number."""
    parts = [Part(1 / 20, 19), Part(0, 2), Part(0, 599)]
    assert find_power(0.5, parts) == pytest.approx(0.5645, abs=2e-3)


def test_power_is_a_mean_over_what_the_estimates_of_both_groups_may_be() -> None:
    """They are independent: 200,000 draws of both, and the share of repetitions whose interval leaves 0 out."""
    parts = [Part(0.04, 2), Part(0.02, 3), Part(0.01, 1000)]
    rng = np.random.default_rng(0)
    squares = [part.variance * stats.t.ppf(0.975, part.freedom) ** 2 for part in parts]
    drawn = [
        square * rng.chisquare(part.freedom, 200_000) / part.freedom
        for square, part in zip(squares, parts, strict=True)
    ]
    half = np.sqrt(drawn[0] + drawn[1] + squares[2])
    difference = rng.normal(0.9, np.sqrt(0.07), 200_000)
    assert find_power(0.9, parts) == pytest.approx(float(np.mean(abs(difference) > half)), abs=0.005)


def test_the_command_prints_and_writes_the_pairs(
    sweep: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = ["--pair", "algo=anil", "algo=maml", "--pair", "algo=r2d2", "algo=protonet", "--equal-within", "2"]
    words += ["--seeds-for", "1", "--csv", str(tmp_path / "t.csv"), "--markdown", str(tmp_path / "t.md")]
    assert command(["compare", str(sweep), *words]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "anil - maml" in line)
    assert " yes (" in line
    assert " no (0.999)" in next(line for line in out.splitlines() if "r2d2 - protonet" in line)
    assert "| anil - maml |" in (tmp_path / "t.md").read_text()
    rows = list(csv.DictReader((tmp_path / "t-pairs.csv").open()))
    assert [(row["first"], row["second"], float(row["margin"])) for row in rows] == [
        ("anil", "maml", 0.02), ("r2d2", "protonet", 0.02)
    ]  # fmt: skip
    assert int(rows[0]["seeds"]) == int(line.split()[-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pair", "algo=anil", "algo=mamml"], "--pair algo=mamml is no group; did you mean algo=maml?"),
        (["--pair", "anil", "algo=maml"], "--pair anil is not KEY=VALUE; for example --pair algo=protonet"),
        (["--pair", "bn=transductive", "algo=maml"], "--pair bn=transductive is 4 groups"),
        (["--equal-within", "0"], "--equal-within 0 is not a number above 0"),
        (["--seeds-for", "nan"], "--seeds-for nan is not a number above 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    sweep: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert command(["compare", str(sweep), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("values", [(0, 1), (False, True), (0.0, 0.5)])
def test_a_group_whose_value_is_nothing_has_that_for_a_name(tmp_path: Path, values: tuple[object, object]) -> None:
    for seed in range(2):
        for value in values:
            own = settings("MAML", 0.4, seed=seed)
            own["data"]["noise"] = value
            finished(tmp_path / f"{value}-{seed}", [0.5 + 0.1 * seed, 0.6], seed=seed, config=own)
    (found,), _ = compare(find_runs([tmp_path]), ["algo", "data.noise"], ["seed"], None, None)
    assert {row.group.short_name for row in found.rows} == {f"maml {value}" for value in values}


def test_the_lines_that_beat_the_baseline_or_are_the_best_are_bold(sweep: Path) -> None:
    against = compared(sweep, Plan(()), baseline={"algo": "maml"})
    sheet = make_sheets([against])[0]
    assert [row.mark for row in against.rows].count("better") == 2
    assert {sheet.lines[place][0] for place in sheet.bold} == {"protonet", "r2d2"}
    alone = compared(sweep, Plan(()))
    assert {make_sheets([alone])[0].lines[place][0] for place in make_sheets([alone])[0].bold} == {"r2d2"}


def test_how_queries_are_answered_is_told_as_soon_as_one_method_answers_them_together(tmp_path: Path) -> None:
    for algo, answers in (("maml", None), ("tim", "together"), ("pt_map", "balanced")):
        for seed in range(2):
            finished(tmp_path / f"{algo}{seed}", [0.5, 0.6], algo, seed, **({"answers": answers} if answers else {}))
    names = {}
    for chosen in (["maml"], ["maml", "tim"], ["tim"], ["maml", "tim", "pt_map"]):
        runs = find_runs([tmp_path / f"{algo}{seed}" for algo in chosen for seed in range(2)])
        (found,), _ = compare(runs, ["algo"], ["seed"], None, None)
        names[" ".join(chosen)] = sorted(find_answers(found))
    assert names == {
        "maml": [],
        "maml tim": ["alone", "together"],
        "tim": ["together"],
        "maml tim pt_map": ["alone", "balanced", "together"],
    }
