"""Learning curves over seeds, and the figures: what they show, in which colours, and when there are none."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import finished, settings, write_settings

from metarun.report.budget import describe_training
from metarun.report.compare import compare
from metarun.report.figures.charts import PALETTE, draw_learning_curves, draw_task_scatter, make_spec, render_png
from metarun.report.figures.gallery import MAX_GROUPS, Figure, Gallery, join_views, make_gallery, name_views
from metarun.report.figures.learning import MAX_POINTS, read_curves
from metarun.report.figures.one_run import draw_run_curves
from metarun.report.figures.parallel import find_swept, place_on_axis
from metarun.report.runs import Run, find_runs

SCORES = np.random.default_rng(0).normal(0.5, 0.1, 30)


def run_of(folder: Path, lines: list[dict[str, Any]]) -> Run:
    write_settings(folder, settings())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return find_runs([folder])[0]


def train(*points: tuple[float, float, float]) -> list[dict[str, Any]]:
    return [{"step": step, "split": "train", "loss": loss, "seconds": seconds} for step, seconds, loss in points]


def gallery_of(folder: Path, metric: str = "accuracy", baseline: Any = None) -> Gallery:
    return make_gallery(compare(find_runs([folder]), None, ["seed"], metric, baseline)[0])


def data_of(figure: Figure) -> list[dict[str, Any]]:
    """The records of all layers, one after the other."""
    return [record for records in make_spec(figure.view)["datasets"].values() for record in records]


def size_of(picture: bytes) -> tuple[int, int]:
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.endswith(b"IEND\xae\x42\x60\x82")
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def test_a_curve_is_the_mean_and_the_range_over_runs_at_each_step(tmp_path: Path) -> None:
    """Losses 3, 2 and 5, 2 at steps 10, 20: means 4, 2, from 3 to 5; trained 1, 2 s and 3, 6 s: 2, 4 s on average."""
    runs = [
        run_of(tmp_path / "a", train((10, 1, 3), (20, 2, 2))),
        run_of(tmp_path / "b", train((10, 3, 5), (20, 6, 2))),
    ]
    curve = read_curves(runs, "loss")["train"]
    assert curve.seconds is not None
    columns = curve.step, curve.seconds, curve.mean, curve.low, curve.high
    assert [list(column) for column in columns] == [[10, 20], [2, 4], [4, 2], [3, 2], [5, 2]]
    assert (curve.runs, curve.portion) == (2, 1)


def test_a_validation_has_the_training_time_of_its_step(tmp_path: Path) -> None:
    """Step 15 lies half way between 2 and 6 seconds; step 5 half way from the start, which took none."""
    lines = train((10, 2, 1), (20, 6, 1)) + [{"step": step, "split": "val", "loss": 1.0} for step in (5, 15, 20)]
    curve = read_curves([run_of(tmp_path / "a", lines)], "loss")["val"]
    assert curve.seconds is not None
    assert list(curve.seconds) == [1, 4, 6]


def test_runs_that_logged_at_other_steps_meet_on_straight_lines(tmp_path: Path) -> None:
    """One run has 0, 2, 4 at steps 10, 20, 30; the other 10 at step 10 and 30 at step 30, and goes on to 50."""
    runs = [
        run_of(tmp_path / "a", train((10, 1, 0), (15, 1, 1), (20, 2, 2), (30, 3, 4))),
        run_of(tmp_path / "b", train((10, 1, 10), (30, 3, 30), (50, 5, 90))),
    ]
    curve = read_curves(runs, "loss")["train"]
    assert (list(curve.step), list(curve.mean)) == ([10, 30], [5, 17])


def test_many_lines_become_few_points_of_equal_means(tmp_path: Path) -> None:
    """250 lines in portions of 3: 84 points, the first of steps 1, 2, 3, the last of step 250 alone."""
    run = run_of(tmp_path / "a", train(*((step, step / 10, 2.0 * step) for step in range(1, 251))))
    curve = read_curves([run], "loss")["train"]
    assert (curve.portion, len(curve.step)) == (3, 84)
    assert len(curve.step) <= MAX_POINTS
    assert (curve.step[0], curve.mean[0], curve.step[-1], curve.mean[-1]) == (2, 4, 250, 500)


def test_curves_without_lines_or_times_are_left_out(tmp_path: Path) -> None:
    timeless = [{"step": 10, "split": "val", "loss": 1.0}]
    curves = read_curves([run_of(tmp_path / "a", timeless)], "loss")
    assert (list(curves), curves["val"].seconds) == (["val"], None)
    assert draw_learning_curves({"a": curves}, "loss", "seconds") is None
    assert draw_learning_curves({"a": {}}, "loss") is None
    assert read_curves([run_of(tmp_path / "b", timeless)], "accuracy") == {}


def test_one_run_alone_is_drawn_as_a_picture(tmp_path: Path) -> None:
    run = find_runs([finished(tmp_path / "a", SCORES)])[0]
    view = draw_learning_curves({"maml": read_curves([run], "accuracy")}, "accuracy")
    assert view is not None
    width, height = size_of(render_png(view))
    assert 400 < width < 2000
    assert 400 < height < 2000


def test_every_figure_has_the_numbers_of_the_comparison(tmp_path: Path) -> None:
    for shots in (1, 5):
        for seed in (0, 1):
            for name in ("maml", "protonet"):
                bonus = 0.02 * seed + 0.1 * (name == "maml") + 0.03 * shots
                episodes = {"k_shot": shots, "episode_sha256": str(shots) * 64}
                finished(tmp_path / f"{name}{shots}{seed}", SCORES + bonus, name, seed, **episodes)
    found = gallery_of(tmp_path)
    assert [[figure.name for figure in figures] for figures in found.own] == [
        ["scores", "curves-by-step", "curves-by-time", "tasks"]
    ] * 2
    _, by_step, by_time, tasks = found.own[0]
    points = [point for point in data_of(by_step) if point.get("group") == "maml" and point["split"] == "validation"]
    assert [(point["step"], point["mean"]) for point in points] == [(10, 25), (20, 30), (30, 35), (40, 40)]
    assert [point["time"] for point in data_of(by_time) if "time" in point][:4] == [
        2,
        4,
        6,
        8,
    ]  # of 8 seconds: in seconds
    maml = [task["maml"] for task in data_of(tasks) if "maml" in task]
    assert maml == pytest.approx(100 * (SCORES + 0.14), abs=1e-2)
    (shots,) = found.across
    means = {(p["group"], p["k_shot"]): p["mean"] for p in data_of(shots) if "mean" in p}
    assert means["maml", 5] == pytest.approx(100 * (SCORES.mean() + 0.26), abs=1e-2)
    assert len(means) == 4
    assert sum("run" in point for point in data_of(shots)) == 8


def test_figures_that_would_show_nothing_are_left_out(tmp_path: Path) -> None:
    """One group has no partner, one shot no line, and algorithms alone are no sweep over numbers."""
    finished(tmp_path / "a", SCORES)
    assert [figure.name for figure in gallery_of(tmp_path).own[0]] == ["curves-by-step", "curves-by-time"]
    for name in ("anil", "reptile"):
        (finished(tmp_path / name, SCORES, name) / "metrics.jsonl").unlink()
    (tmp_path / "a" / "metrics.jsonl").unlink()
    assert [figure.name for figure in gallery_of(tmp_path).own[0]] == ["scores", "tasks"]
    assert gallery_of(tmp_path).across == ()


def test_shots_are_joined_only_where_all_else_is_the_same(tmp_path: Path) -> None:
    finished(tmp_path / "a", SCORES)
    finished(tmp_path / "b", SCORES, k_shot=5, episode_sha256="f" * 64, bn="running")
    assert gallery_of(tmp_path).across == ()
    finished(tmp_path / "c", SCORES, k_shot=5, episode_sha256="f" * 64)
    assert [figure.name for figure in gallery_of(tmp_path).across] == ["shots"]


def test_scores_that_are_no_numbers_leave_a_gap() -> None:
    holes = {"a": np.array([0.1, np.nan, 0.3]), "b": np.array([0.1, 0.2, np.inf])}
    view = draw_task_scatter(holes, "loss", "a", "b")
    assert view is not None
    assert {"a": 0.1, "b": 0.1} in [point for records in make_spec(view)["datasets"].values() for point in records]
    json.dumps(make_spec(view), allow_nan=False)
    assert draw_task_scatter({"a": np.array([np.nan]), "b": np.array([1.0])}, "loss", "a", "b") is None


def sweep_of(
    folder: Path, rates: tuple[float, ...] = (0.001, 0.003, 0.03), inner: tuple[float, ...] = (0.1, 0.4)
) -> None:
    for lr in rates:
        for inner_lr in inner:
            typed = [f"optim.lr={lr}", f"++algo.inner_lr={inner_lr}", "seed=0"]
            config = settings("MAML", inner_lr, lr)
            finished(folder / f"{lr}-{inner_lr}", SCORES + inner_lr / 10 - lr, config=config, overrides=typed)


def test_parallel_coordinates_have_a_row_for_each_setting_that_was_typed(tmp_path: Path) -> None:
    """What an algorithm brings along, as its backbone, is not of the sweep."""
    sweep_of(tmp_path)
    (comparison,) = compare(find_runs([tmp_path]), None, ["seed"], "accuracy", None)[0]
    assert find_swept(comparison) == ["algo.inner_lr", "optim.lr"]
    figure = gallery_of(tmp_path).own[0][-1]
    assert figure.name == "settings"
    points = [point for point in data_of(figure) if "line" in point]
    assert len(points) == 6 * 3
    best = max(points, key=lambda point: point["score"])
    assert best["said"].startswith("inner_lr=0.4, lr=0.001: ")
    assert best["score"] == pytest.approx(100 * (SCORES.mean() + 0.04 - 0.001), abs=1e-2)


def test_settings_that_follow_from_others_are_none_of_a_sweep_unless_groups_are_told_by_them(tmp_path: Path) -> None:
    """The inner rate was typed, another one for each seed; the clipping follows from it."""
    for lr, (seed, inner_lr) in itertools.product((0.001, 0.003), enumerate((0.1, 0.4))):
        config = settings("MAML", inner_lr, lr, seed)
        config["optim"]["clip_norm"] = 10 * inner_lr
        typed = [f"optim.lr={lr}", f"algo.inner_lr={inner_lr}"]
        finished(tmp_path / f"{lr}-{inner_lr}", SCORES + inner_lr / 10, config=config, overrides=typed, seed=seed)
    runs = find_runs([tmp_path])
    for by, swept in (
        (["optim.lr"], ["algo.inner_lr", "optim.lr"]),
        (["optim.clip_norm"], ["algo.inner_lr", "optim.clip_norm"]),
    ):
        (comparison,) = compare(runs, by, ["seed"], "accuracy", None)[0]
        assert find_swept(comparison) == swept


def test_an_axis_spreads_large_ratios_by_logarithm_and_sets_what_is_lacking_apart() -> None:
    """0.01 is half way from 0.001 to 0.1 by its logarithm; 3 is half way from 1 to 5; None lies before the start."""
    assert place_on_axis([0.001, 0.1, 0.01])[0] == pytest.approx([0, 1, 0.5])
    assert place_on_axis([1, 5, 3]) == ([0, 1, 0.5], [(0, "1"), (0.5, "3"), (1, "5")])
    positions, ticks = place_on_axis([1.0, None, 5.0])
    assert positions == pytest.approx([0.2, 0, 1])
    assert ticks[0] == (0, "-")
    assert place_on_axis(["relu", "gelu", None])[0] == [1, 0.5, 0]  # "-", "gelu", "relu"
    assert [label for _, label in place_on_axis(list(range(0, 4001, 10)))[1]] == ["0", "1000", "2000", "3000", "4000"]
    assert place_on_axis(["x" * 50, "y"])[1] == [(0, "x" * 14 + "…"), (1, "y")]


def test_the_best_groups_and_the_baseline_are_drawn_and_the_rest_is_said(tmp_path: Path) -> None:
    names = [f"algo{number}" for number in range(MAX_GROUPS + 3)]
    for number, name in enumerate(names):
        finished(tmp_path / name, SCORES - number / 100, name)
    found = gallery_of(tmp_path, baseline={"algo": names[-1]})
    assert list(found.names[0]) == [*names[: MAX_GROUPS - 1], names[-1]]
    assert len({found.colors[name] for name in found.names[0]}) == MAX_GROUPS
    assert all("the best 7 of 10 groups, with the baseline" in figure.said for figure in found.own[0])
    assert "the best" not in str(gallery_of(tmp_path / names[0]).own[0][0].said)


def test_a_group_has_one_colour_everywhere_and_no_other_group_of_a_figure_has_it(tmp_path: Path) -> None:
    """Of ten algorithms, tables draw seven each, in opposite orders: more names than colours, and none twice."""
    for shots in (1, 5):
        for number in range(10):
            scores = SCORES + (number if shots == 1 else -number) / 100
            finished(tmp_path / f"{shots}-{number}", scores, f"algo{number}", k_shot=shots, episode_sha256=str(shots))
    found = gallery_of(tmp_path)
    assert len(found.colors) == 10
    assert set(found.colors.values()) == set(PALETTE)
    for names in found.names:
        assert len({found.colors[name] for name in names}) == MAX_GROUPS
    for figure in (*found.own[0][:3], *found.own[1][:3], *found.across):
        scale = make_spec(figure.view)["layer"][figure.name == "scores"]["encoding"]["color"]["scale"]
        assert dict(zip(scale["domain"], scale["range"], strict=True)) == {n: found.colors[n] for n in scale["domain"]}


def test_all_figures_are_drawn_as_one_picture_and_each_alone(tmp_path: Path) -> None:
    sweep_of(tmp_path, (0.001, 0.003), (0.1, 0.4))
    comparisons = compare(find_runs([tmp_path]), None, ["seed"], "accuracy", None)[0]
    found = make_gallery(comparisons)
    assert list(name_views(found)) == ["scores", "curves-by-step", "curves-by-time", "tasks", "settings"]
    width, height = size_of(render_png(join_views(comparisons, found)))
    assert 2000 < width < 5000
    assert 1000 < height < 5000


def test_the_performance_profile_falls_at_each_seed_s_mean(tmp_path: Path) -> None:
    """Three seeds each: of one all are above 51 %, of the other one is at 50 %; two seeds make no profile."""
    for algo, means in (("anil", (0.5, 0.6, 0.7)), ("maml", (0.8, 0.6, 0.9))):
        for seed, mean in enumerate(means):
            finished(tmp_path / f"{algo}{seed}", [mean, mean], algo, seed, settings(algo.upper(), None, seed=seed))
    (figure,) = [figure for figure in gallery_of(tmp_path).own[0] if figure.name == "profile"]
    lines = {
        name: [(point["at"], round(point["share"], 3)) for point in data_of(figure) if point["group"] == name]
        for name in ("anil", "maml")
    }
    assert lines["anil"] == [(50, 1), (50, 1), (60, 0.667), (70, 0.333), (90, 0)]
    assert lines["maml"] == [(50, 1), (60, 1), (80, 0.667), (90, 0.333), (90, 0)]
    assert len(render_png(figure.view.properties(width=300))) > 1000
    shutil.rmtree(tmp_path / "anil2")
    assert "profile" not in [figure.name for figure in gallery_of(tmp_path).own[0]]


def study_of(folder: Path, ways: int = 60) -> None:
    """MAML on 5-way tasks and ProtoNet on tasks of so many ways, three seeds each."""
    for seed in range(3):
        for name, way in (("maml", 5), ("protonet", ways)):
            scores = SCORES + 0.02 * seed + 0.2 * (name == "protonet")
            facts: dict[str, Any] = {"train": {"n_way": way, "k_shot": 1, "n_query": 5}, "meta_batch_size": 2}
            facts |= {"drawn": {"inputs": 1000 + seed, "tasks": 80}, "inner_steps": {"train": 3, "test": 9}}
            finished(folder / f"{name}{seed}", scores, name, seed, **facts)


def test_the_figure_of_the_result_has_a_dot_a_seed_and_both_intervals_of_the_table(tmp_path: Path) -> None:
    study_of(tmp_path)
    (comparison,) = compare(find_runs([tmp_path]), None, ["seed"], "accuracy", None)[0]
    figure = make_gallery([comparison]).own[0][0]
    assert (figure.name, figure.title) == ("scores", "test accuracy %: glyphs, 5-way 1-shot, bn=transductive")
    marks = {point["group"]: point for point in data_of(figure) if "mean" in point}  # the interval over seeds too
    dots = [(point["group"], point["seed"], point["run"]) for point in data_of(figure) if "run" in point]
    assert list(marks) == ["protonet", "maml"]  # the best first
    for row in comparison.rows:
        mark, mean = marks[row.group.values[0]], row.over_tasks.mean
        assert row.over_seeds is not None
        ends = [mark[key] for key in ("mean", "low", "high", "seeds_low", "seeds_high")]
        halves = [0, -row.over_tasks.ci95, row.over_tasks.ci95, -row.over_seeds, row.over_seeds]
        assert ends == pytest.approx([100 * (mean + half) for half in halves], abs=1e-2)
    expected = [
        (name, seed, 100 * (SCORES.mean() + 0.02 * seed + bonus))
        for name, bonus in (("protonet", 0.2), ("maml", 0.0)) for seed in range(3)
    ]  # fmt: skip
    assert [dot[:2] for dot in dots] == [one[:2] for one in expected]
    assert [dot[2] for dot in dots] == pytest.approx([one[2] for one in expected], abs=1e-2)
    assert "chance is 20.00 %" in figure.said  # too far away to be drawn
    assert not any("chance" in point for point in data_of(figure))


def test_chance_is_drawn_where_it_leaves_differences_readable(tmp_path: Path) -> None:
    for seed in range(2):
        finished(tmp_path / f"a{seed}", SCORES - 0.28, "maml", seed)
        finished(tmp_path / f"b{seed}", SCORES + 0.1, "protonet", seed)
    figure = gallery_of(tmp_path).own[0][0]
    assert [point["chance"] for point in data_of(figure) if "chance" in point] == [20]
    assert "dashed: chance is 20.00 %" in figure.said


def test_training_on_other_tasks_never_shares_an_axis_with_validation(tmp_path: Path) -> None:
    """ProtoNet trains on 60 ways: its training has a figure of its own, whose legend says the ways."""
    study_of(tmp_path / "wide")
    wide = {figure.name: figure for figure in gallery_of(tmp_path / "wide").own[0]}
    assert list(wide) == ["scores", "curves-by-step", "curves-by-time", "training-by-step", "tasks", "profile"]
    assert wide["curves-by-step"].title == "validation, 5-way 1-shot, by outer step"
    assert {point["split"] for point in data_of(wide["curves-by-step"]) if "split" in point} == {"validation"}
    training = [point for point in data_of(wide["training-by-step"]) if "split" in point]
    assert {(point["group"], point["split"]) for point in training} == {
        ("maml: 5-way 1-shot", "training"), ("protonet: 60-way 1-shot", "training")
    }  # fmt: skip
    study_of(tmp_path / "same", 5)
    same = {figure.name: figure for figure in gallery_of(tmp_path / "same").own[0]}
    assert list(same) == ["scores", "curves-by-step", "curves-by-time", "tasks", "profile"]
    assert same["curves-by-step"].title == "learning curves by outer step"
    splits = {point["split"] for point in data_of(same["curves-by-step"]) if "split" in point}
    assert splits == {"validation", "training"}
    text = json.dumps(make_spec(same["curves-by-step"].view))
    assert "'validation, 5-way 1-shot'" in text and "'training, 5-way 1-shot'" in text  # noqa: PT018
    for figure in (wide["curves-by-step"], same["curves-by-time"]):
        assert [point["chance"] for point in data_of(figure) if "chance" in point] == [20]
    assert not any("chance" in point for point in data_of(wide["training-by-step"]))


def test_few_validations_are_said(tmp_path: Path) -> None:
    """Each of these runs was validated four times."""
    finished(tmp_path / "a", SCORES)
    said = gallery_of(tmp_path).own[0][0].said
    assert "validated 4 times: run.val_every=STEPS makes more points" in said


@pytest.mark.parametrize(
    ("facts", "tasks"),
    [
        ({}, "5-way 1-shot"),  # as in validation, where nothing else is known
        ({"train": {"n_way": 20, "k_shot": 3}}, "20-way 3-shot"),
        ({"drawn": {"inputs": 640, "tasks": 0}}, "single images of all training classes"),
        ({"drawn": {"inputs": 640, "tasks": 30}, "meta_batch_size": 1}, "single images, then 5-way 1-shot"),
        ({"drawn": {"inputs": 640, "tasks": 40}, "meta_batch_size": 1}, "5-way 1-shot"),
    ],
)
def test_what_was_trained_on_is_told_in_words(tmp_path: Path, facts: dict[str, Any], tasks: str) -> None:
    assert describe_training(find_runs([finished(tmp_path / "a", SCORES, **facts)])[0]) == tasks


def test_the_picture_of_a_run_sets_training_on_other_tasks_apart(tmp_path: Path) -> None:
    """One panel where validation and training are alike, two where they are not."""
    heights = []
    for way in (5, 60):
        folder = finished(tmp_path / str(way), SCORES, train={"n_way": way, "k_shot": 1, "n_query": 5})
        picture = draw_run_curves(folder)
        assert picture is not None
        heights.append(size_of(picture)[1])
    assert heights[1] > 1.6 * heights[0]
