"""A search: the sweep whose jobs Optuna proposes, in a study that the same command goes on with."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from metarun.app.sweeps.distinct import list_typed
from metarun.app.sweeps.job_state import Job
from metarun.app.sweeps.table import SweepTable
from metarun.core.errors import ConfigError, Refused, wrong_input
from metarun.core.run_folder import RunFolder
from metarun.core.scores import choose_score, find_sign, read_directions
from metarun.core.words import format_with_name

if TYPE_CHECKING:
    import optuna

OPTUNA = "uv sync, or: pip install 'optuna>=4.9,<6' && pip install --no-deps hydra-optuna-sweeper==1.3.0"

ASIDE = ("hydra.", "hydra/", "search=", "sweep.")
"""Overrides that are left out of the command that runs a trial's settings again."""


def check_search(asked: str, multirun: bool) -> None:
    """Raise ConfigError if the search that was typed, as `search=maml`, is impossible."""
    if "," in asked:
        raise ConfigError(f"{asked} asks for several searches; each is a command of its own")
    if not multirun:
        raise ConfigError(f"{asked} is a search over many runs: metarun -m {asked} ...")
    try:
        metadata.version("hydra-optuna-sweeper")
        too_old = int(metadata.version("optuna").split(".")[0]) < 4
    except metadata.PackageNotFoundError:
        raise ConfigError(f"{asked} needs Optuna: {OPTUNA}") from None
    if too_old:
        raise ConfigError(f"{asked} needs Optuna 4.9 or later, and {metadata.version('optuna')} is installed: {OPTUNA}")


def read_objective() -> float | None:
    """Return the validation score that chose the job's checkpoint, for Optuna; None if the job failed.

    Raises: Refused if the study is after the opposite.
    """
    hydra = HydraConfig.get()
    results = RunFolder(Path(hydra.runtime.output_dir)).read_results() or {"status": "failed"}
    if results["status"] != "finished":
        return None
    own = read_directions(results)
    score = choose_score(results["val"], own)
    right = "maximize" if find_sign(score, own) > 0 else "minimize"
    if "direction" in hydra.sweeper and not str(hydra.sweeper.direction).endswith(right):
        raise Refused(
            f"runs on {results['data']} are chosen by their {score}: set hydra.sweeper.direction={right}, "
            "and sweep.rerun=all to begin anew"
        )
    return float(results["val"][score])


def wait_for_others() -> None:
    """Wait while another process is running this very job: a trial of the same settings, or of a killed search."""
    with FileLock(RunFolder(Path(HydraConfig.get().runtime.output_dir)).lock):
        pass


class Search(SweepTable):
    """Hydra's callback that prepares the study for the sweeper, shows its trials, and ends with the best one."""

    SCORE = "validation"
    study: optuna.Study
    """The study of this process."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.CRITICAL)  # failures are in the table
        warnings.filterwarnings("ignore", r"\w+Distribution has been deprecated", FutureWarning)  # the plugin's
        folder, sweeper = Path(config.hydra.sweep.dir), config.hydra.sweeper
        self.trials = int(sweeper.n_trials)
        try:
            self._hold(folder)
            with wrong_input():
                Search.study = open_study(sweeper, config.sweep.rerun)
        except ConfigError as error:
            raise Refused(str(error)) from error
        prepare_sweeper(self.study, sweeper)
        super().on_multirun_start(config)
        if sweeper.n_trials < self.trials:
            self.screen.print(f"{self.trials - sweeper.n_trials} of {self.trials} trials are done")
        typed = [word for word in list_typed(config) if not word.startswith(ASIDE)]
        chosen = str(config.hydra.runtime.choices.algo)
        self.fixed = typed if any(o.startswith("algo=") for o in typed) else [f"algo={chosen}", *typed]

    def _hold(self, folder: Path) -> None:
        """Lock the folder, so that a second command does not take this one's running trials for abandoned."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(folder / ".lock", timeout=0)
            self.lock.acquire()
        except Timeout as error:
            raise ConfigError(f"another process is searching in {folder}") from error
        except OSError as error:
            raise ConfigError(f"cannot write {folder}: {error.strerror}. Set paths.outputs=FOLDER") from error

    def _count_expected(self, config: DictConfig) -> int:
        return self.trials

    def _read_jobs(self) -> list[Job]:
        return [_shorten_job(job) for job in super()._read_jobs()]

    def break_off(self, error: BaseException) -> int:
        if isinstance(error, ValueError) and not any(trial.state.name == "COMPLETE" for trial in self.study.trials):
            self._end()  # it is Optuna's, which has no best trial to tell
            self._say("no trial of the search finished")
            return 1
        return super().break_off(error)

    def find_exit_code(self) -> int:
        """Return 0 if a trial finished; failed trials are normal in a search."""
        code = super().find_exit_code()
        return code if code > 128 else 0

    def _conclude(self, config: DictConfig) -> None:
        """Show the best trial, how to run it again, and pictures of the study."""
        from metarun.report.figures.study import make_summary
        from metarun.report.figures.study_page import draw_study

        best = self.study.best_trial
        fixed = [o for o in self.fixed if o.partition("=")[0] not in best.params]
        overrides = [f"{name}={value}" for name, value in best.params.items()]
        folder = next(job.folder for job in super()._read_jobs() if set(overrides) <= set(job.overrides.split()))
        results = RunFolder(folder).read_results()
        score = choose_score(results["val"], read_directions(results))
        files = draw_study(self.study, self.folder, score, sys.argv[1:])
        self.screen.print()
        make_summary(self.study, [*fixed, *overrides], results, folder, files).show(self.screen)


def open_study(sweeper: DictConfig, rerun: str) -> optuna.Study:
    """Open the study of `sweeper`, or create it; trials that were interrupted or should be repeated wait in it.

    Raises: ValueError if the study there is of another space or direction.
    """
    import optuna
    from optuna.trial import TrialState

    if not sweeper.storage:
        raise ValueError("hydra.sweeper.storage must name a database, as sqlite:///FILE")
    storage, name = optuna.storages.get_storage(sweeper.storage), sweeper.study_name
    if rerun == "all" and name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(study_name=name, storage=storage, direction=sweeper.direction, load_if_exists=True)
    asked = {"direction": sweeper.direction, **OmegaConf.to_container(sweeper.params)}  # type: ignore[dict-item]
    known = study.user_attrs.get("asked", asked)
    for key in sorted(asked.keys() | known.keys()):
        if asked.get(key) != known.get(key):
            raise ValueError(
                f"the study in {sweeper.storage} has {key}: {known.get(key)}, not {asked.get(key)}; "
                "set hydra.sweep.dir=FOLDER for a new one, or sweep.rerun=all to begin anew"
            )
    study.set_user_attr("asked", asked)
    for trial in study.get_trials(states=[TrialState.RUNNING]):  # nobody runs them: the folder is ours
        storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    if rerun == "failed":
        for trial in list_settled(study):
            if trial.state == TrialState.FAIL:
                study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
    return study


AGAIN = "again"
"""The user attribute of a trial that holds the number of the failed one it repeats."""


def list_settled(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """List the trials that ended, without failed ones that were repeated."""
    repeated = {trial.user_attrs[AGAIN] for trial in study.trials if AGAIN in trial.user_attrs}
    return [trial for trial in study.trials if trial.state.is_finished() and trial.number not in repeated]


def prepare_sweeper(study: optuna.Study, sweeper: DictConfig) -> None:
    """Let the sweeper, which counts new trials and seeds anew at each call, continue from what the study has."""
    sweeper.n_trials = max(0, sweeper.n_trials - len(list_settled(study)))
    if "seed" in sweeper.sampler and sweeper.sampler.seed is not None:
        sweeper.sampler.seed += len(study.trials)
    if sweeper.n_jobs < 1:  # as joblib says "all cores"
        import joblib

        sweeper.n_jobs = joblib.effective_n_jobs(sweeper.n_jobs)


def _shorten_job(job: Job) -> Job:
    """Return the job with short numbers, and with the validation score that chose its checkpoint as its score."""
    overrides = re.sub(r"=(\d*\.\d{5,}\S*)", lambda found: f"={float(found[1]):.4g}", job.overrides)
    results = RunFolder(job.folder).read_results()
    best = results.get("val") or {}
    score = choose_score(best, read_directions(results))
    return replace(job, overrides=overrides, score=format_with_name(score, best[score]) if score in best else job.score)
