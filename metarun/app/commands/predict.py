"""`metarun predict`: a trained run answers for somebody's images, or for points of a function."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from metarun.app.commands.files import write_and_say
from metarun.app.commands.screen import add_run, add_trust, announce
from metarun.app.messages import show_messages
from metarun.core import tuning
from metarun.core.errors import ConfigError
from metarun.core.screen import Facts, Screen
from metarun.core.words import name_network, name_task
from metarun.report.predicted import (
    find_shared,
    format_answer_csv,
    make_answer_table,
    make_mistake_table,
    summarise_accuracy,
)

SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)*=")
"""How settings begin."""


def run_predict(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun predict RUN ...` and return the exit code. Raises: ConfigError for wrong input."""
    parser.description = "Use a trained run: show it some images of each class, and let it name others."
    parser.epilog = (
        "Of a run on functions, FOLDER is a CSV file of points (inputs, then values), and IMAGES is one of inputs. "
        "Of a run that tells classes by descriptions, FOLDER is a .csv, .tsv or .npz file of them, or of names a .txt "
        "file."
    )
    add_run(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="bn=support, device=cpu, algo.test_inner_steps=10"
    )
    parser.add_argument(
        "--support", type=Path, required=True, metavar="FOLDER",
        help="a folder or zip file with a folder of images for each class, of any number each",
    )  # fmt: skip
    parser.add_argument(
        "--query", type=Path, required=True, nargs="+", metavar="IMAGES",
        help="images to be named: files, folders or zip files; in folders named after classes they are counted as well",
    )  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all probabilities")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw support set and queries")
    add_trust(parser)
    typed = [word for word in arguments if SETTING.match(word) and not Path(word).exists()]
    asked = parser.parse_args([word for word in arguments if word not in typed])
    if asked.overrides:
        raise ConfigError(f"{asked.overrides[0]} is no KEY=VALUE; images stand after --query")
    for path in (asked.csv, asked.png):
        if path and not path.absolute().parent.is_dir():  # said before anything is computed
            raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")
    announce("opening", asked.run, screen)
    for path in (asked.support, *asked.query):
        if not path.exists():
            raise ConfigError(f"there is no folder or file {path}")
    with tuning.frozen_imports():
        from metarun.app.model import Model

    settings = dict(map(_read, typed))
    bn, device = settings.pop("bn", None), settings.pop("device", None)
    with show_messages(screen):
        model = Model.load(asked.run, bn, device, settings, asked.trust)
        if model.info.n_way:
            _show_classes(model, asked, screen)
        else:
            _show_function(model, asked, screen)
    return 0


def _show_classes(model: Any, asked: Any, screen: Screen) -> None:
    from metarun.app.answered import answer_classes, describe_calibration, describe_mode

    few, queries, answers = answer_classes(model, asked.support, asked.query)
    shots = few.support.y.bincount().tolist()
    what = "image" if len(few.support.pixels) else "description"
    counts = f"1 {what}" if max(shots) == 1 else " to ".join(map(str, sorted({min(shots), max(shots)}))) + f" {what}s"
    facts = {"bn": describe_mode(model), "support": f"{len(few.classes)} classes, {counts} each"}
    shared, n = find_shared(answers.files), len(answers.files)
    facts["queries"] = f"{n} image{'s' * (n > 1)}{f' in {shared}' * bool(shared)}"
    facts["probability"] = describe_calibration(model)
    _show_heading(model, facts, screen)
    screen.print(make_answer_table(answers))
    if answers.known:
        screen.print(Text.assemble(("accuracy  ", "bold"), summarise_accuracy(answers)))
        if table := make_mistake_table(answers):
            screen.print(table)
    if asked.csv:
        write_and_say(asked.csv, format_answer_csv(answers).encode(), screen)
    if asked.png:
        from metarun.report.figures.answers import draw_answers

        seen = few.support
        labels = seen.y.tolist() if len(seen.pixels) else []
        write_and_say(asked.png, draw_answers(seen.pixels.numpy(), labels, queries.numpy(), answers), screen)


def _show_function(model: Any, asked: Any, screen: Screen) -> None:
    if len(asked.query) > 1:
        raise ConfigError("of a function, --query is one CSV file of inputs")
    from metarun.app.answered import answer_function

    found = answer_function(model, asked.support, asked.query[0])
    _show_heading(model, {"support": f"{len(found.support.x)} points"}, screen)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in found.heads:
        table.add_column(head, justify="right")
    for row in found.rows:
        table.add_row(*(f"{number:.5g}" for number in row))
    screen.print(table)
    if found.mse is not None:
        screen.print(Text.assemble(("mse  ", "bold"), f"{found.mse:.4f} of {len(found.rows)} points"))
    if asked.csv:
        write_and_say(asked.csv, found.format_csv().encode(), screen)
    if asked.png:
        from metarun.report.figures.predictions import draw_function  # imports the drawing library: a second

        picture = draw_function(found.support, found.x, found.y, found.predicted)
        if picture is None:
            raise ConfigError("--png draws functions of one number with one value, and these have others")
        write_and_say(asked.png, picture, screen)


def _show_heading(model: Any, facts: dict[str, str], screen: Screen) -> None:
    results, shown = model.run.results, Facts()
    task = name_task(results.get("n_way"), results.get("k_shot"))
    what = [f"{results['algo']} trained on {results['data']}", task, *name_network(results["backbone"])]
    shown.add("run", ", ".join(filter(None, [*what, f"step {results['best_step']}"])))
    for name, fact in facts.items():
        if fact:
            shown.add(name, fact)
    shown.show(screen)


def _read(word: str) -> tuple[str, Any]:
    from metarun.settings.typed import read_override

    override = read_override(word)
    if override.deletes or len(override.values) != 1:
        raise ConfigError(f"{word} is to be one value: a model is used in one way")
    return override.key, override.values[0]
