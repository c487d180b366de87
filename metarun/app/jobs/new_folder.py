"""What is done before Hydra makes the folder of a run; the folder is removed again if the run is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from metarun.core.errors import ConfigError, Refused
from metarun.core.run_folder import RunFolder, find_owner
from metarun.settings.hydras import check_composed


class NewFolder(Callback):
    """Hydra's callback that refuses settings of Hydra's by which it would write into the folder of a run that is not
    accepted yet, and notes what exists before Hydra makes that folder."""

    top: ClassVar[Path | None] = None
    """The topmost folder that Hydra made for the run; None if its folder was there before."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Note the folder. Raises: Refused for settings of Hydra's that metarun cannot work with."""
        with refused():
            check_composed(config.hydra)
        folder = Path(config.hydra.run.dir).absolute()
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        NewFolder.top = missing[-1] if missing else None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Raise Refused for such settings, and for the folder of a run."""
        with refused():
            check_composed(config.hydra)
            check_free(RunFolder(Path(config.hydra.sweep.dir)), "hydra.sweep.dir")


@contextmanager
def refused() -> Iterator[None]:
    """Turn a ConfigError inside the context into one that Hydra passes on."""
    try:
        yield
    except ConfigError as error:
        raise Refused(str(error)) from error


def check_free(files: RunFolder, key: str) -> None:
    """Raise ConfigError if the folder holds a run, or what is left of one, or lies among the files of one.

    Args:
        files: the folder of a new run, or of a sweep.
        key: the setting by which another folder is chosen.
    """
    another = f"choose another folder: {key}=FOLDER"
    if files.has_settings():
        raise ConfigError(
            f"{files.path} already holds a run; go on with it by: {files.make_command('resume')}, or {another}"
        )
    if found := files.list_traces():
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"{files.path} has {names} of a run whose settings are gone; {another}")
    if run := find_owner(files.path):
        raise ConfigError(f"{files.path} lies among the files of the run {run}; {another}")
