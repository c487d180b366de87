"""Every job of a sweep is checked before the first one starts: a wrong setting costs no run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from metarun.app.sweeps.distinct import list_typed
from metarun.app.sweeps.listed import TARGET, find_basic_sweeper, list_jobs
from metarun.core.command import find_key
from metarun.core.errors import ConfigError, Refused
from metarun.core.identity import as_mapping, read_config_dirs
from metarun.core.run_folder import RunFolder
from metarun.settings.compose import explain_errors

MOST_COMPOSED = 50
"""Jobs of a larger sweep are not all checked: each value is, beside the first ones of the others."""

MOST_TOLD = 12
"""Wrong jobs that a message names one by one."""


class AcceptedJobs(Callback):
    """Hydra's callback that refuses a sweep with a job whose settings are wrong."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Raise Refused for such jobs, and for values that cannot be read."""
        try:
            with explain_errors(list_typed(config)):
                jobs = list_all(config)
        except ConfigError as error:
            raise Refused(str(error)) from error
        if problem := describe_wrong_jobs(config, jobs):
            raise Refused(problem)


def list_all(config: DictConfig) -> list[list[str]]:
    """List the overrides of each job; of a search, and of a large grid, each value beside the first of all others.

    An interval stands for the value in its middle. Of a sweeper that is not known, no job is.
    """
    loader, words, sweeper = GlobalHydra.instance().config_loader(), list_typed(config), config.hydra.sweeper
    if sweeper._target_ == TARGET:
        return list_jobs(sweeper.file, words, loader)[:MOST_COMPOSED]
    parser = OverridesParser.create(loader)
    if "BasicSweeper" in sweeper._target_:
        overrides = parser.parse_overrides(words)
        for word in (str(one.input_line) for one in overrides if one.is_interval_sweep()):
            key = find_key(word)
            raise ConfigError(
                f"{word} is for a search, with search=NAME or hydra/sweeper=study; type {key}=VALUE,VALUE"
            )
        batches = find_basic_sweeper().split_arguments(overrides, None)
        jobs = [list(job) for batch in batches for job in batch]
        return jobs if len(jobs) <= MOST_COMPOSED else _list_values(parser.parse_overrides(words))
    if "OptunaSweeper" not in sweeper._target_:
        return []
    space = as_mapping(OmegaConf.to_container(sweeper.params))
    typed = {find_key(word) for word in words}
    searched = [f"{key}={value}" for key, value in space.items() if key not in typed]
    return _list_values(parser.parse_overrides([*words, *searched]))


def describe_wrong_jobs(config: DictConfig, jobs: Sequence[Sequence[str]]) -> str | None:
    """Describe the jobs whose settings are wrong, if any, in the words in which they differ."""
    from metarun.settings.looked_up import look_up
    from metarun.settings.resolve import resolve  # which imports torch, and Hydra imports this file for single runs too
    from metarun.settings.taken import check_same_run

    loader, wrong = GlobalHydra.instance().config_loader(), list[tuple[Sequence[str], str]]()
    own = read_config_dirs(as_mapping(config.hydra))
    for number, words in enumerate(jobs):
        try:
            with explain_errors(words, own):
                job = loader.load_sweep_config(config, list(words))
            with _as_job(job, number):
                resolve(job, warn=False)
                hydra = HydraConfig.get()
                check_same_run(RunFolder(Path(hydra.sweep.dir) / hydra.sweep.subdir), look_up(job), own)
        except ConfigError as error:
            wrong.append((words, str(error)))
    if not wrong:
        return None
    if len(wrong) == len(jobs) and len({problem for _, problem in wrong}) == 1:
        return wrong[0][1]
    shared = set(jobs[0]).intersection(*jobs)
    told = [f"{' '.join(word for word in words if word not in shared)}: {problem}" for words, problem in wrong]
    more = [f"and {len(told) - MOST_TOLD} more"] * (len(told) > MOST_TOLD)
    which = "settings tried" if "OptunaSweeper" in config.hydra.sweeper._target_ else "jobs"
    return "\n".join(
        [f"{len(wrong)} of {len(jobs)} {which} cannot run, and none is started:", *told[:MOST_TOLD], *more]
    )


@contextmanager
def _as_job(config: DictConfig, number: int) -> Iterator[None]:
    """Let settings refer to the job's number, as ${hydra:job.num}; inside, `config` is without Hydra's own."""
    state = HydraConfig.instance()
    before = state.cfg
    with read_write(config), open_dict(config):
        config.hydra.job.num, config.hydra.job.id = number, str(number)
        state.set_config(config.copy())
        del config["hydra"]
    try:
        yield
    finally:
        state.cfg = before


def _list_values(overrides: Sequence[Override]) -> list[list[str]]:
    keys = [str(one.input_line).partition("=")[0] for one in overrides]
    choices = [[f"{key}={value}" for value in _list_choices(one)] for key, one in zip(keys, overrides, strict=True)]
    first = [values[0] for values in choices]
    others = [[*first[:i], value, *first[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]]
    return [first, *others]


def _list_choices(override: Override) -> list[str]:
    value = override.value()
    if isinstance(value, IntervalSweep):
        middle = (value.start + value.end) / 2  # type: ignore[operator]
        return [str(int(middle) if isinstance(value.start, int) and isinstance(value.end, int) else middle)]
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [override.get_value_element_as_str()]
