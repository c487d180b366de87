"""A sweep over a list of runs that is no grid: `metarun -m runs=FILE.yaml`, where each entry is typed as a command is.

    - algo=maml
    - algo=anil algo.inner_steps=1 algo.test_inner_steps=3
    - algo=protonet optim.lr=0.001,0.003

Each entry is combined with what stands on the command line, such as seed=0,1,2.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.settings.typed import quote_value, read_override, read_word

TARGET = "hydra_plugins.metarun.ListSweeper"
"""The sweeper's name in conf/hydra/sweeper/listed.yaml: Hydra wants its plugins in this package."""

EXAMPLE = "- algo=anil algo.inner_steps=1"


class ListSweeper(Sweeper):
    """Hydra's sweeper over the entries of a file.

    Args:
        file: see above.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        jobs = list_jobs(self.file, arguments, loader)
        self.validate_batch_is_legal(jobs)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        results = self.launcher.launch(jobs, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # which raises where the job failed
        return [results]


def take_list(words: Sequence[str], sweep: bool) -> list[str]:
    """Put Hydra's words for it in place of `runs=FILE`. Raises: ConfigError if the list cannot be run."""
    files = [word.partition("=")[2] for word in words if word.startswith("runs=")]
    kept = [word for word in words if not word.startswith("runs=")]
    if not files:
        return list(words)
    if len(files) > 1 or not sweep:
        raise ConfigError(f"runs={files[0]} is a list of runs: it needs -m, and stands once")
    if any(word.startswith(("search=", "hydra/sweeper=")) for word in kept):
        raise ConfigError(f"runs={files[0]} and a search do not go together: leave one out")
    _check_apart(files[0], [read_override(word).key for word in kept])
    Plugins.instance().class_name_to_class[TARGET] = ListSweeper
    return [*kept, "hydra/sweeper=listed", quote_value(f"hydra.sweeper.file={files[0]}", several=False)]


def read_list(file: str) -> list[list[str]]:
    """Read the overrides of each entry, as Hydra takes them. Raises: ConfigError if there are none."""
    path = Path(file).expanduser()
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"runs={file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(found, list) or not found:
        raise ConfigError(f"runs={file} is not a list of runs, each a line as {EXAMPLE}")
    entries = []
    for number, entry in enumerate(found, 1):
        if not isinstance(entry, str):
            raise ConfigError(f"runs={file}, entry {number}: {entry} is not KEY=VALUE words, as {EXAMPLE}")
        try:
            entries.append([read_word(word, True) for word in shlex.split(entry)])
        except ValueError as error:
            raise ConfigError(f"runs={file}, entry {number}: {error}") from error
    return entries


def list_jobs(file: str, words: Sequence[str], loader: ConfigLoader | None = None) -> list[list[str]]:
    """List the overrides of each job: every entry of the file with every combination of the overrides `words`.

    Args:
        loader: knows the choices for glob().
    """
    parser, jobs = OverridesParser.create(loader), []
    for entry in read_list(file):
        batches: Any = find_basic_sweeper().split_arguments(parser.parse_overrides([*entry, *words]), None)
        jobs += [list(job) for batch in batches for job in batch]
    return jobs


def _check_apart(file: str, typed: Sequence[str]) -> None:
    """Raise ConfigError for a setting that is `typed` on the command line and stands in an entry."""
    for number, entry in enumerate(read_list(file), 1):
        if both := sorted({read_override(word).key for word in entry} & set(typed)):
            raise ConfigError(
                f"runs={file}, entry {number}: {', '.join(both)} also stands on the command line: leave one out"
            )


def find_basic_sweeper() -> Any:
    """Find Hydra's sweeper as its plugins have it: they load its module anew, so that an import has another class."""
    return Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_sweeper.BasicSweeper"]
