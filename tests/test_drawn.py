"""Every picture as what is drawn on it, whole: tests/data/drawn has a file for each, as it was looked over.

Whoever changes a picture on purpose writes the files anew by `METARUN_TOLD=write pytest -n 0 tests/test_drawn.py`, and
reads what git says of them. Scores come from files, and tensors are small numbers: they are the same everywhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from drawn import describe_figure, noted
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image
from run_folders import finished, settings
from test_told import tidy
from torch import Tensor

from metarun.algos.control.pictures import draw_paths
from metarun.algos.control.pictures import draw_regret as draw_regret_of_bandits
from metarun.algos.transfer.boundary import draw_boundary
from metarun.core.screen import Screen
from metarun.core.tasks import Batch, Examples, Prediction
from metarun.report import retests
from metarun.report.compare import compare
from metarun.report.figures import stream, study, study_page
from metarun.report.figures.answers import draw_answers
from metarun.report.figures.hardest import draw_hardest
from metarun.report.figures.one_run import draw_run_curves
from metarun.report.figures.predictions import draw_function, draw_predictions
from metarun.report.mistakes import find_hardest
from metarun.report.predicted import Answers
from metarun.report.runs import find_runs, read_run
from metarun.report.tested import add_tests
from metarun.run.tracking.pictures import draw_tasks

DATA = Path(__file__).parent / "data"

Draw = Callable[[Path], Any]
"""Draws pictures of the runs in a folder; what it returns is of the picture too."""


def ramp(*shape: int) -> Tensor:
    """0, 1, 2, ... hundredths of each place, no two rows alike."""
    return torch.arange(float(np.prod(shape))).reshape(shape) / 100


def of_images(n_way: int, shots: list[int], queries: int, channels: int = 1) -> Batch:
    """Two tasks of images 3 x 3; image r of a side is r tenths bright, less on the right, the first channel most."""

    def side(y: list[int]) -> Examples:
        light = torch.linspace(0.1, 0.9, len(y))[:, None, None, None]
        fade = torch.tensor([1.0, 0.8, 0.5])
        tint = torch.tensor([1.0, 0.6, 0.3])[:channels, None, None]
        x = (light * tint * fade).expand(-1, channels, 3, 3)
        return Examples(torch.stack([x, x.flip(0)]), torch.tensor([y, y]))

    support = [label for label in range(n_way) for _ in range(shots[label % len(shots)])]
    return Batch(side(support), side([label for label in range(n_way) for _ in range(queries)]), n_way)


def of_functions(inputs: int = 1, outputs: int = 1) -> Batch:
    places = torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
    x = torch.linspace(2.0, -1.0, 4)[:, None] if inputs == 1 else places
    sides = [Examples(torch.stack([one, one.flip(0)]), 5 * ramp(2, len(one), outputs)) for one in (x[:2], x)]
    return Batch(*sides, 0)


def answers(classes: list[str], queries: int, known: bool) -> Answers:
    """Query q is of class q, and said to be so with 0.5 + q/1000 but for every third, which is said to be the next."""
    n, rows, truth = len(classes), [], []
    for q in range(queries):
        said, sure = (q + (q % 3 == 2)) % n, 0.5 + q / 1000
        rows.append([sure if c == said else (1 - sure) / (n - 1) for c in range(n)])
        truth.append(classes[q % n] if known and q else None)
    return Answers([f"q/{q}.png" for q in range(queries)], classes, rows, truth)


def pixels(rows: int, channels: int) -> np.ndarray:
    made = np.arange(rows * channels * 6 * 6).reshape(rows, channels, 6, 6) * 7 % 256
    return made.astype(np.uint8)


def draw_many_answers(_: Path) -> None:
    """13 classes, 5 images of the first and one of the others; 75 queries."""
    labels = [0] * 5 + list(range(1, 13))
    names = [f"a class with the long name {number}" for number in range(13)]
    draw_answers(pixels(17, 3), labels, pixels(75, 3), answers(names, 75, False))


def draw_few_answers(_: Path) -> None:
    draw_answers(pixels(3, 1), [0, 1, 1], pixels(7, 1), answers(["fox", "owl"], 7, True))


def draw_hardest_classes(_: Path) -> None:
    names = ["a", "b/of the second alphabet", "c", "d"]
    tasks = [
        (
            names,
            [0] * 10 + [1] * 20 + [2] * 12 + [3] * 30,
            [1] * 4 + [0] * 6 + [0] * 7 + [1] * 9 + [2] * 2 + [3] * 2 + [2] * 12 + [0] + [3] * 29,
        )
    ]
    found = find_hardest(tasks, 2)
    images = {name: Image.new("RGB", (5, 5), (40 * place, 20, 10)) for place, name in enumerate(names)}
    draw_hardest(found, images, 7)


def draw_tasks_with_errors(_: Path) -> None:
    batch = of_images(3, [2, 1], 2, 3)
    wrong = torch.tensor([0, 2, 1, 1, 2, 0])
    names = [["oak", "a name that is much too long for the little room there is", "elm"], ["x", "y", "z"]]
    draw_tasks(batch, 2, names, [batch.query.y[0], wrong], ([0.5, 0.4, 0.3], [0.2, 0.1, 0.25]))


def draw_large_tasks(_: Path) -> None:
    draw_tasks(of_images(11, [6], 9), 1)


def draw_functions(_: Path) -> None:
    batch = of_functions()
    draw_predictions(batch, Prediction(batch.query.y + 1, 0.1 + ramp(2, 4, 1)))
    draw_predictions(batch.tasks(1, 2), Prediction(batch.query.y[1:] + 1, None))
    support, query = (Examples(side.x[0], side.y[0]) for side in batch[:2])
    draw_function(support, query.x, query.y, Prediction(query.y + 1, 0.1 + ramp(4, 1)))
    draw_function(support, query.x, None, Prediction(query.y + 1, None))
    assert draw_function(support, query.x.expand(-1, 2), None, Prediction(query.y, None)) is None
    assert draw_function(support, query.x, None, Prediction(query.y.expand(-1, 2), None)) is None
    assert (
        draw_predictions(
            batch._replace(query=Examples(batch.query.x.expand(-1, -1, 3), batch.query.y)),
            Prediction(batch.query.y, None),
        )
        is None
    )


def draw_completed(_: Path) -> None:
    for outputs, std in ((1, True), (3, False)):
        batch = of_functions(2, outputs)
        draw_predictions(batch, Prediction(batch.query.y * 0.9, 0.1 + ramp(2, 4, outputs) if std else None))


def draw_streams(folder: Path) -> None:
    losses, best = np.array([3.0, 2.0, 1.5]), np.array([1.0, 1.0, 2.0])
    np.savez(folder / "regret.npz", loss=losses, hindsight=best, regret=(losses - best).cumsum())
    stream.draw_regret(folder / "regret.npz")
    gone = np.nan
    accuracy = np.array(
        [[[0.9, 0.7, 0.5], [gone, 0.8, 0.4]], [[0.7, 0.5, 0.1], [gone, 0.6, 0.2]]]
    )  # [stream, task, time]
    np.savez(folder / "continual.npz", accuracy=accuracy, times=np.array([1, 2, 4]))
    stream.draw_accuracies(folder / "continual.npz")
    np.savez(folder / "once.npz", accuracy=accuracy[..., -1:], times=np.array([2]))
    stream.draw_accuracies(folder / "once.npz")


def draw_policies(_: Path) -> None:
    paths = [ramp(3, 2, 2, 2) + step for step in range(3)]
    goal = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", lambda file: file)
        draw_paths(paths, goal)
        paid = {"rl2": torch.tensor([[0.0, 1.0], [0.5, 0.5]]), "ucb1": torch.tensor([[1.0, 1.0], [1.0, 1.0]])}
        draw_regret_of_bandits(paid, torch.tensor([[0.5, 1.0], [1.5, 0.0]]))


def draw_plane(_: Path) -> list[str]:
    """A classifier by the sign of y - x/2, on points of two sets; the colours on a path through the picture."""
    sets = [
        (torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])),
        (torch.tensor([[1.0, 1.0]]), torch.tensor([1])),
    ]
    picture = draw_boundary(lambda x: torch.stack([x[:, 0] / 2, x[:, 1]], 1), sets)
    return [str(picture.size), *(str(picture.getpixel((x, y))) for x in (10, 240, 470) for y in (10, 100, 250))]


def draw_runs(folder: Path) -> None:
    for name in ("maml", "cnp", "interrupted"):
        draw_run_curves(folder / "old" / name)


def draw_retests(folder: Path) -> None:
    run = read_run(folder / "old" / "evaluated")
    assert run is not None
    found = run.evaluations()
    retests.draw_over_shots(found)
    retests.draw_over_shots(
        [
            one | {"n_query": 3 + place, "n_way": 0, "changes": {"algo": "anil"}, "query": "dirichlet(2)"}
            for place, one in enumerate(found)
        ]
    )
    assert retests.draw_over_shots(found[:1]) is None
    assert retests.draw_over_shots([found[0], found[1] | {"k_shot": "by_size"}]) is None


def make_study(direction: str = "maximize") -> optuna.Study:
    """Four finished trials, a failed one and one that runs; one choice was never tried."""
    made = optuna.create_study(direction=direction)
    spaces = {
        "algo.inner_lr": FloatDistribution(0.01, 1.0, log=True), "optim.lr": FloatDistribution(0.0, 0.5),
        "algo.inner_steps": IntDistribution(1, 9), "bn": CategoricalDistribution(["support", "running", True]),
    }  # fmt: skip
    for number, (value, state) in enumerate(
        [(0.5, "COMPLETE"), (0.7, "COMPLETE"), (None, "FAIL"), (0.6, "COMPLETE"), (0.65, "COMPLETE"), (None, "RUNNING")]
    ):
        chosen = {"algo.inner_lr": 0.123456 * (number + 1), "optim.lr": 0.1 * number, "algo.inner_steps": 1 + number}
        params = chosen | {"bn": "support" if number % 2 else True}
        if number == 3:
            del params["optim.lr"]
        own = {name: space for name, space in spaces.items() if name in params}
        made.add_trial(create_trial(state=TrialState[state], value=value, params=params, distributions=own))
    return made


def draw_search(folder: Path) -> list[str]:
    made = make_study()
    results = {"val": {"accuracy": 0.7, "loss": 0.9}, "test": {"accuracy": {"mean": 0.68, "ci95": 0.0123}}}
    views = [
        study.draw_history(made, "accuracy"),
        *study.draw_slices(made, "accuracy").values(),
        study.draw_importance(made),
    ]
    views += [study.draw_history(make_study("minimize"), "loss")]
    console = Screen(width=100)
    with console.capture() as said:
        study.make_summary(
            made, ["algo=maml", "optim.lr=0.1"], results, Path("7"), [Path("a.png"), Path("b.png")]
        ).show(console)
    rows = [str(row) for row in study_page.list_rows(made, "accuracy")]
    rows += [str(row) for row in study_page.list_rows(make_study("minimize"), "loss")]
    pictures = {"history": study.draw_history(made, "accuracy"), "importance": study.draw_importance(made)}
    words = ["-m", "search=maml", "logger.key=wb://user:secret@host"]
    page = study_page.render_study(made, pictures, study.draw_slices(made), "accuracy", words)
    told = [said.get(), *rows, *study_page.find_untried(made), tidy(page, folder)]
    return [*(describe_figure(view.to_dict()) for view in views), *told]


def draw_comparisons(folder: Path) -> None:
    """Two groups of four runs, of which one is better; a baseline; tests with several shots; a sweep over numbers."""
    from metarun.app.commands.compare import _draw

    for words in (
        ["many", None],
        ["many", {"algo": "anil"}],
        ["old/evaluated", None],
        ["swept", None],
        ["old/sweeps", None],
    ):
        runs, _ = add_tests([run for run in find_runs([folder / str(words[0])]) if run.state == "finished"])
        comparisons, notes = compare(runs, None, ["seed"], None, words[1])
        _draw(None, folder / "all.png", comparisons, notes, [])


CASES: dict[str, Draw] = {
    "answers": draw_few_answers, "answers-many": draw_many_answers, "hardest": draw_hardest_classes,
    "tasks": draw_tasks_with_errors, "tasks-large": draw_large_tasks, "functions": draw_functions,
    "completed": draw_completed, "streams": draw_streams, "policies": draw_policies, "plane": draw_plane,
    "runs": draw_runs, "retests": draw_retests, "search": draw_search, "comparisons": draw_comparisons,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The kept runs in `old`; two methods by four seeds in `many`; two by eight rates in `swept`, typed with a +."""
    shutil.copytree(DATA / "runs", tmp_path / "old")
    chance = np.random.default_rng(3)
    difficulty = chance.normal(0, 0.1, 12)
    for algo, mean in {"anil": 0.5, "r2d2": 0.7}.items():
        for seed in range(4):
            scores = (mean + difficulty + chance.normal(0, 0.01, 12)).round(4)
            finished(tmp_path / "many" / f"{algo}{seed}", scores, algo, seed)
    for number, rate in enumerate([0.01, 0.02, 0.03, 0.1, 0.2, 0.3, 0.5, 0.9]):
        for algo in ("maml", "anil"):
            own = settings(algo.upper(), rate if algo == "maml" else None, 0.001 * 10 ** (number % 2))
            words = [f"algo={algo}", f"+algo.inner_lr={rate}", f"optim.lr={own['optim']['lr']}"]
            scores = (0.3 + rate / 2 + difficulty / (2 + number)).round(4)
            finished(tmp_path / "swept" / f"{algo}{number}", scores, algo, 0, own, overrides=words)
    return tmp_path


@pytest.mark.filterwarnings("ignore:Some regimes:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_what_is_drawn_is_what_was_looked_over(folder: Path, name: str) -> None:
    with noted() as drawn:
        told = CASES[name](folder) or []
    found = "\n".join([*drawn, *told]).replace(str(folder), "~") + "\n"
    file = DATA / "drawn" / f"{name}.txt"
    if os.environ.get("METARUN_TOLD") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(found)
    assert found == file.read_text()
