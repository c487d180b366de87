"""Settings composed as the command line does it; errors are told in one line, with what would have worked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.core.dotted import nodes
from metarun.core.errors import ConfigError, name_choices, suggest
from metarun.settings import names, schema
from metarun.settings.conf import CONF, TASKS, list_shipped, read_shipped
from metarun.settings.ranges import describe_problem
from metarun.settings.typed import read_override

PLUS = ("experiment", "debug", "tuned")
"""Groups of which a run need not have a choice."""

ELSEWHERE = {
    "learning_rate": "optim.lr of the outer loop, algo.inner_lr of the inner one",
    "lr": "optim.lr of the outer loop, algo.inner_lr of the inner one",
    "epochs": "run.steps, the number of outer steps",
    "iterations": "run.steps",
    "batch_size": "run.meta_batch_size, the tasks of an outer step",
    "ways": "data.n_way",
    "shots": "data.k_shot",
    "dataset": "data",
    "model": "backbone",
    "network": "backbone",
    "method": "algo",
    "algorithm": "algo",
    "optimizer": "optim",
    "gpu": "device=cuda",
    "cuda": "device=cuda",
    "tag": "tags",
    "name": "logger.name, of the run in W&B; its folder is hydra.run.dir",
    "output_dir": "hydra.run.dir of this run, paths.outputs of all",
}
"""Settings by the names that other programs give them."""

KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}

MOST = 3
"""The most choices that a message names where several have a setting."""


def compose(words: Sequence[str], folders: Sequence[str | Path] = ()) -> DictConfig:
    """Compose the settings of `metarun WORD ...`, unresolved.

    Args:
        words: overrides, as they are typed.
        folders: of YAML files of one's own, as --config-dir takes them.
    Raises: ConfigError if they do not compose.
    """
    with explain_errors(words, folders):
        return _compose(words, folders)


def compose_choices(words: Sequence[str], folders: Sequence[str | Path] = ()) -> tuple[dict[str, str], DictConfig]:
    """Compose the same, with the choice that was made in each group. Raises: ConfigError if they do not compose."""
    with explain_errors(words, folders):
        config = _compose(words, folders, True)
    return dict(config.hydra.runtime.choices), config


@contextmanager
def explain_errors(words: Sequence[str], folders: Sequence[str | Path] = ()) -> Iterator[None]:
    """Inside the context, turn errors of Hydra or OmegaConf about the overrides `words` into a ConfigError.

    Any other error that they raise themselves is turned as well: it comes from what was typed, or from its files.
    `folders` of YAML files of one's own have choices too.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, words, folders)) from error
    except yaml.YAMLError as error:
        raise ConfigError(_explain_yaml(error)) from error
    except (ValueError, TypeError, AttributeError, KeyError, AssertionError, OSError) as error:
        if not _raised_in(error, ("hydra", "omegaconf", "yaml", "codecs")):
            raise
        raise ConfigError(_explain_unforeseen(error, words)) from error


def _compose(words: Sequence[str], folders: Sequence[str | Path] = (), with_hydra: bool = False) -> DictConfig:
    schema.register()
    names.register()
    GlobalHydra.instance().clear()
    search = [f"hydra.searchpath=[{','.join(f'file://{path}' for path in folders)}]"] if folders else []
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", [*words, *search], return_hydra_config=with_hydra)


def _explain(error: Exception, words: Sequence[str], folders: Sequence[str | Path]) -> str:
    """Return one message about what was typed wrongly."""
    text = _text(error).replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", "")
    for word in words:
        if word.startswith("~") and word[1:].partition("=")[0] in schema.Config.__dataclass_fields__:
            return f"{word} takes away what every run has"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        while "/" in group and group not in _list_groups():  # of backbone=a/b
            group, _, name = group.rpartition("/")
            choice = f"{name}/{choice}"
        options = [str(option) for option in error.options or list_shipped(group)]
        for file in Path.cwd().glob(f"*/{group}/{choice}.yaml"):
            folder = file.relative_to(Path.cwd()).parts[0]
            return f"there is no {group}={choice}; {file.relative_to(Path.cwd())} is found with --config-dir {folder}"
        return f"there is no {group}={choice}{name_choices(choice, options, group)}"
    if of_tasks := re.search(r"Interpolation key '(data\.\w+)' not found", text):
        return (
            f"there is no setting {of_tasks[1]}; a source of your own has it by defaults: [{TASKS}, _self_] in its file"
        )
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if key and ("not in" in text or "No match" in text):
        return explain_unknown(key[1].removeprefix("+"), words, folders)
    if wrong := re.search(r"Value '(.*)' (?:of type '\w+' could not be converted to|is not a valid) (\w+)", text):
        return _explain_kind(wrong[1], wrong[2], words)
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read: {text.splitlines()[0]}"
    if refers := re.match(r"Error resolving interpolation '(.+?)', possible", text):
        typed = next((word for word in words if word.endswith(f"={refers[1]}")), refers[1])
        return f"{typed} may refer to what is chosen in other groups alone, as ${{data}}: type the choice itself"
    if (gone := re.search(r"Could not delete from config. '([^']+)' does not exist", text)) is not None:
        return f"~{gone[1]} takes nothing away: there is no setting {gone[1]}, or it is null"
    if (merged := re.match("Error merging override (.+)", text)) and (why := _explain_misfit(merged[1])):
        return why
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not re.match(r"(full_key|object_type|reference_type|See https)", line)]
    where = f" ({key[1]})" if key and key[1] not in kept[0] else ""
    kept[0] = kept[0].removeprefix("Error merging override ")
    return ": ".join(dict.fromkeys(kept)) + where


def _explain_misfit(word: str) -> str | None:
    """Explain why the override `word` does not fit its setting; None if we have no annotation for that."""
    override = read_override(word)
    group, _, name = override.key.rpartition(".")
    if override.key in schema.OWN_ANNOTATIONS:
        return f"{word.lstrip('+')} is no group of settings: type {override.key}.KEY=VALUE"
    annotation = schema.OWN_ANNOTATIONS.get(group, {}).get(name)
    return annotation and describe_problem(override.key, override.values[0], annotation)


def _explain_kind(value: str, kind: str, words: Sequence[str]) -> str:
    """Explain that what was typed is of another kind than the setting."""
    texts = [word.partition("=")[2].lower().strip("'") for word in words]  # true is True
    typed = [word for word, text in zip(words, texts, strict=True) if value.lower() in (text, *text.split(","))]
    if not typed:
        return f"{value!r} must be {KINDS.get(kind, kind)}"
    key = typed[0].partition("=")[0].lstrip("+")
    several = f"; for several, with -m: {key}=0,1,2 or range(0,3)" if kind == "Integer" else ""
    return f"{key}={value} must be {KINDS.get(kind, kind)}{several}"


def explain_unknown(name: str, words: Sequence[str], folders: Sequence[str | Path] = ()) -> str:
    """Explain that there is no setting of that name, and what is called so elsewhere."""
    if name in PLUS:
        typed = next((word for word in words if word.startswith(f"{name}=")), f"{name}=...")
        return f"{name} is not chosen in every run, so it is typed with a +: +{typed}"
    if name in ELSEWHERE:
        return f"there is no setting {name}; it is {ELSEWHERE[name]}"
    known = _list_known(words, folders)
    if name in known:  # it is there, and what was typed has keys that it does not have yet
        return f"{name} takes new keys one by one: +{name}.KEY=VALUE"
    near = suggest(name, known)
    return f"there is no setting {name}{near or _name_owners(name)}"


def _name_owners(name: str) -> str:
    """Say which choices of its group have the setting, as data.path is one of data=folder; empty for none."""
    group, _, key = name.partition(".")
    shipped = list_shipped(group) if key else []
    trees: dict[str, Any] = {choice: OmegaConf.to_container(read_shipped(choice, group)) for choice in shipped}
    owners = [choice for choice, tree in trees.items() if key in dict(nodes(tree))]
    if not owners:
        return ""
    more = f" and {len(owners) - MOST} more" if len(owners) > MOST else ""
    return f" with this {group}; it is one of {group}={', '.join(owners[:MOST])}{more}"


def _explain_yaml(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _explain_unforeseen(error: Exception, words: Sequence[str]) -> str:
    for word in words:
        override = read_override(word)
        known = ", ".join(list_shipped(override.key)) if override.key in _list_groups() else ""
        if not override.deletes and known and not all(isinstance(value, str) for value in override.values):
            return f"{word} is no choice of {override.key}; choices are {known}"
        if override.key in ("", "hydra"):
            return f"{word} names no setting: settings are KEY=VALUE"
    files = [frame.f_locals["full_path"] for frame in _frames(error) if "full_path" in frame.f_locals]
    return f"{(files or [' '.join(words)])[-1]}: {_text(error)}"


def _raised_in(error: BaseException, packages: Sequence[str]) -> bool:
    *_, last = _frames(error)
    return str(last.f_globals.get("__name__")).partition(".")[0] in packages


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace:
        yield trace.tb_frame
        trace = trace.tb_next


def _text(error: BaseException) -> str:
    """Join the error's message and those of its causes, outermost first."""
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(str(cause))
        cause = cause.__cause__
    return "\n".join(message for message in messages if message.strip()) or type(error).__name__


def _list_groups() -> set[str]:
    return {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")} - {"."}


def _list_known(words: Sequence[str], folders: Sequence[str | Path]) -> list[str]:
    """List every setting of the chosen groups that compose, and the groups themselves."""
    groups = _list_groups()
    choices = [word for word in words if word.partition("=")[0].lstrip("+") in groups and "," not in word]
    try:
        config = _compose(choices, folders)
    except HydraException:
        config = _compose([])
    return [*dict(nodes(OmegaConf.to_container(config))), *groups]  # type: ignore[arg-type]
