"""The temperature of a trained classifier's probabilities, fitted on validation tasks of its own data and kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metarun.algos.base.abilities import AdaptsToTask
from metarun.app.jobs.reopened import Trained
from metarun.core.calibration import find_calibration_error, fit_temperature
from metarun.core.errors import ConfigError, wrong_input
from metarun.core.results_file import read_results_file, seal
from metarun.core.run_folder import RunFolder
from metarun.core.screen import track
from metarun.core.tasks import Examples, TaskSource
from metarun.core.whole import CannotWrite, write_json
from metarun.core.words import name_task
from metarun.settings.at_hand import find_files
from metarun.settings.build import build_source
from metarun.settings.conf import list_parts
from metarun.settings.places import check_places
from metarun.settings.reopen import SavedSettings
from metarun.settings.schema import Settings

QUERIES = 2000
"""About as many queries are asked: half of their tasks fit the temperature, the others measure the error."""

LEAST_TASKS, MOST_TASKS = 20, 400

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of a run can be believed, in one BatchNorm mode.

    Attributes:
        temperature: divides the logits.
        tasks: validation tasks that it was fitted and tested on, half each; 0 if there were none.
        error_before, error_after: expected calibration error, in 0..1, without and with the temperature.
        accuracy: on all these tasks, in 0..1.
        accuracy_transductive: the same in the mode of the run, if that is transductive and this one is not.
        task: the ways and shots of the tasks.
        best_step: of the run when it was fitted.
        missing: why there is none, for a temperature of 1.
    """

    temperature: float = 1.0
    tasks: int = 0
    error_before: float = math.nan
    error_after: float = math.nan
    accuracy: float = math.nan
    accuracy_transductive: float | None = None
    task: str = ""
    best_step: int | None = None
    missing: str = ""


def find_calibration(run: Trained, saved: SavedSettings, learner: AdaptsToTask) -> Calibration:
    """Read the calibration that is kept in the run's folder, or fit one and keep it.

    Args:
        run: the run.
        saved: its settings as the model is used.
        learner: as it is used.
    """
    if not isinstance(ways := saved.node("data")["n_way"], int):
        saved = saved.change({"data.n_way": min(ways)})  # a label has one probability of being drawn by chance
    settings = saved.resolve()
    kept, key = _read(run), _name_use(run, saved)
    if found := _recall(kept.get(key), run):
        return found
    try:
        source = _open_validation(run, saved, settings)
    except ConfigError as error:
        return Calibration(missing=str(error))
    found = _fit(run, saved, settings, learner, source)
    try:
        RunFolder(run.folder).check_links()
        write_json(RunFolder(run.folder).calibration, seal(kept | {key: asdict(found)}))
    except (CannotWrite, ConfigError) as error:
        log.warning("the temperature is not kept: %s", error)
    return found


def _name_use(run: Trained, saved: SavedSettings) -> str:
    """Name the way in which the model is used, by its BatchNorm mode and by what differs from the run."""
    own, now = run.saved.node("algo"), saved.node("algo")
    return ", ".join([f"bn={saved.resolve().bn}", *(f"algo.{key}={now[key]}" for key in now if now[key] != own[key])])


def _read(run: Trained) -> dict[str, Any]:
    found, problem = read_results_file(RunFolder(run.folder).calibration, dict)
    if problem:
        log.warning("%s: the temperature is fitted anew", problem)
    return found


def _recall(kept: Any, run: Trained) -> Calibration | None:
    """The calibration that was kept; None if it is of other weights, or no calibration."""
    if not isinstance(kept, Mapping) or kept.get("best_step") != run.results.get("best_step"):
        return None
    try:
        found = Calibration(**kept)
    except TypeError:
        return None
    return found if isinstance(found.temperature, float) and found.temperature > 0 else None


def _open_validation(run: Trained, saved: SavedSettings, settings: Settings) -> TaskSource:
    """Open the run's own data. Raises: ConfigError if that would be a download, or it is not what it was."""
    if run.results.get("trainval"):
        raise ConfigError("the run was trained on its validation classes (data.trainval=true)")
    check_places(saved.config, ["data"], saved.own)
    if any(find_files(part) == [] for part in list_parts(settings.as_dict(), settings.own)):
        raise ConfigError(f"the data {settings.choices['data']} is not on this machine")
    with wrong_input():
        source = build_source(settings, run.device, ("val",))
    if source.info.split_sha256 != run.results["split_sha256"]:
        raise ConfigError(f"the data {settings.choices['data']} is split in another way than when the run was trained")
    return source


def _fit(
    run: Trained, saved: SavedSettings, settings: Settings, learner: AdaptsToTask, source: TaskSource
) -> Calibration:
    shape = settings.data["n_way"], settings.data.get("k_shot")
    queries = settings.data["n_way"] * settings.data["n_query"]
    tasks = min(max(math.ceil(QUERIES / queries), LEAST_TASKS), MOST_TASKS) // 2 * 2
    log.info("fitting the temperature of the probabilities on %d validation tasks, once", tasks)
    asked = _ask(learner, source, tasks)
    temperature = fit_temperature(*_join(asked[::2]))
    measured, truth = _join(asked[1::2])
    before, after = (find_calibration_error((measured / t).softmax(-1), truth) for t in (1.0, temperature))
    found = Calibration(
        temperature, tasks, before, after, _find_accuracy(asked),
        task=name_task(*shape), best_step=run.results.get("best_step"),
    )  # fmt: skip
    own = run.modes[0]
    if own != "transductive" or settings.bn == own:
        return found
    theirs = run.make_learner(saved.change({"bn": own}).resolve()).eval()
    assert isinstance(theirs, AdaptsToTask)
    return replace(found, accuracy_transductive=_find_accuracy(_ask(theirs, source, tasks)))


def _join(asked: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return logits [R, N] and labels [R] of all queries."""
    return torch.cat([logits for logits, _ in asked]), torch.cat([y for _, y in asked])


def _find_accuracy(asked: Sequence[tuple[Tensor, Tensor]]) -> float:
    return float(torch.cat([logits.argmax(-1) == y for logits, y in asked]).double().mean())


def _ask(learner: AdaptsToTask, source: TaskSource, n_tasks: int) -> list[tuple[Tensor, Tensor]]:
    """Return logits [M, N] and labels [M] of each of the validation tasks, on the CPU."""
    return list(_ask_one_by_one(learner, source, n_tasks))


def _ask_one_by_one(learner: AdaptsToTask, source: TaskSource, n_tasks: int) -> Iterator[tuple[Tensor, Tensor]]:
    stream = source.episodes("val", 0, 1)
    for _ in track(range(n_tasks), "validation tasks", n_tasks):
        batch = next(stream)
        predict = learner.adapt_to(Examples(batch.support.x[0], batch.support.y[0]), batch.n_way, **batch.facts(0))
        yield predict(batch.query.x[0]).cpu(), batch.query.y[0].cpu()
