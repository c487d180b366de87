"""What the class must be that a group of settings names: a learner, a source of tasks, an optimizer and so on."""

from __future__ import annotations

import inspect
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from hydra.utils import get_object
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metarun.algos.base.learner import Learner
from metarun.core.errors import suggest
from metarun.core.run_folder import SHIPPED


class Role(NamedTuple):
    """A part of a run: its name, its base class, and the methods without which it cannot be one."""

    name: str
    base: type
    methods: tuple[str, ...] = ()


ROLES = {
    "data": Role("source of tasks: derive it from ImageSource, or see metarun/core/tasks.py", object, ("fingerprint",)),
    "backbone": Role("torch.nn.Module", nn.Module),
    "algo": Role("Learner: derive it from metarun.Learner, EpisodicLearner or MetricLearner", Learner),
    "optim": Role("torch.optim.Optimizer", Optimizer),
    "optim.schedule": Role("schedule, a torch.optim.lr_scheduler.LRScheduler", LRScheduler),
    "run": Role("Run, see metarun/run/protocol.py", object, ("shareable_tasks", "restore", "execute")),
    "logger": Role("Sink, see metarun/run/tracking/sink.py", object, ("log", "finish")),
}
"""Of each group, by its key."""


def find_problem(kind: str, key: str, target: Any) -> str | None:
    """Describe what keeps `target` from making the part of a run that the group `kind` is; None if nothing.

    Args:
        kind: a key of ROLES.
        key: where it was set.
        target: the dotted name of a class, or of a function that makes one.
    """
    role = ROLES[kind]
    if not isinstance(target, str):
        return f"{key}={target} must be the name of a class, a {role.name}"
    try:
        found = get_object(target)
    except (ImportError, ValueError, AttributeError, TypeError, SystemExit) as error:
        return f"{key}={target} cannot be used: {_explain_missing(target) or error}"
    made = _made_by(found)
    if made is None:  # somebody's own function, which does not say what it returns
        return None if callable(found) and not target.startswith(SHIPPED) else f"{key}={target} is no {role.name}"
    if not issubclass(made, role.base):
        return f"{key}={target} is no {role.name}"
    if lacking := [name for name in role.methods if not callable(getattr(made, name, None))]:
        return f"{key}={target} is no {role.name}; it has no method {', '.join(lacking)}"
    if target.startswith(SHIPPED) and not f"{made.__module__}.".startswith(SHIPPED):
        return f"{key}={target} is no class of {target.partition('.')[0]}"
    if made is found and (inspect.isabstract(made) or getattr(made, "_is_protocol", False)):
        missing = "" if target.startswith(SHIPPED) else ", ".join(sorted(made.__abstractmethods__))
        if missing:
            return f"{key}={target} has no {missing}: write what is missing, or choose a class that derives from it"
        return f"{key}={target} is abstract: choose a class that derives from it"
    return None


def _explain_missing(target: str) -> str | None:
    """Explain which part of the name `target` is not there; None if that is not what is wrong."""
    module, _, name = target.rpartition(".")
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        if not error.name or not f"{module}.".startswith(f"{error.name}."):  # it is there, and imports one that is not
            return f"{module} cannot be imported: ModuleNotFoundError: {error}"
        here = [file.stem for file in Path.cwd().glob("*.py")]
        return f"there is no module {error.name}, in this folder or installed{suggest(error.name, here)}"
    except (Exception, SystemExit) as error:  # whatever somebody's own module raises
        return f"{module} cannot be imported: {type(error).__name__}: {error}"
    return None if hasattr(loaded, name) else f"{module} has no {name}{suggest(name, vars(loaded))}"


def _made_by(found: Any) -> type | None:
    """Return the class of what `found` makes: itself, or what the function is annotated to return."""
    if inspect.isclass(found):
        return found
    with suppress(Exception):  # whatever somebody's own annotations need
        made = get_type_hints(found).get("return")
        return made if inspect.isclass(made) else None
    return None
