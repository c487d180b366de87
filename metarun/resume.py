"""`metarun resume`: go on with a run, if need be in another number of processes or on another device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from metarun.build import shipped
from metarun.errors import ConfigError
from metarun.job import run_job
from metarun.report.console import console, end_table
from metarun.run import record

MACHINE = ("device", "threads", "run.processes")
"""Settings that may be others from now on: the numbers are the same up to rounding."""


def resume(folder: Path, typed: Sequence[str]) -> int:
    """Go on with the run in `folder` from its last checkpoint; returns the exit code.

    Args:
        folder: the run's folder.
        typed: what is different from now on, KEY=VALUE of MACHINE.
    Raises: ConfigError if there is no run, or something else is typed.
    """
    settings = folder / ".hydra" / "config.yaml"
    if not settings.is_file():
        raise ConfigError(f"{folder} is not the folder of a run: it has no .hydra/config.yaml")
    results = record.read_results(folder)
    if results and results["status"] == "finished":
        screen = console()
        screen.print(f"{folder} is finished already")
        screen.print(end_table(results, folder, []))
        return 0
    config, saved = OmegaConf.load(settings), OmegaConf.load(folder / ".hydra" / "hydra.yaml")
    assert isinstance(config, DictConfig)
    hydra = saved.hydra
    config.run = OmegaConf.merge(shipped(hydra.runtime.choices.run, "run"), config.run)  # what is newer than the run
    _change(config, typed)
    sweep = folder.resolve().parent.name if "MULTIRUN" in str(hydra.mode) else None
    return run_job(config, folder, hydra.runtime.choices, list(hydra.overrides.task), sweep)


def _change(config: DictConfig, typed: Sequence[str]) -> None:
    for word in typed:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException as error:
            raise ConfigError(f"{word} cannot be read: {str(error).splitlines()[0]}") from error
        if override.key_or_group not in MACHINE:
            raise ConfigError(
                f"{word} would make it another run: resume takes {'=, '.join(MACHINE)}=; for a new run with other "
                "settings: metarun rerun"
            )
        OmegaConf.update(config, override.key_or_group, override.value())
