"""Settings that are allowed but doubtful: each gets a warning."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.core.errors import ConfigError
from metarun.core.ranges import show_value
from metarun.settings.beyond import find_beyond, find_unreached
from metarun.settings.conf import GROUPS, read_shipped
from metarun.settings.idle import find_unused
from metarun.settings.ranges import find_conditions, find_parameters
from metarun.settings.schema import BUILD_CONDITIONS

log = logging.getLogger(__name__)


def advise(config: DictConfig, choices: Mapping[str, Any], own: Sequence[str], typed: Sequence[str] = ()) -> None:
    """Warn of each setting of `config` that has no effect, or makes numbers mean less than they seem to.

    Args:
        choices: what was chosen in each group: the file of a choice tells which of its settings were changed.
        own: folders of YAML files of one's own.
        typed: the words of the command line.
    """
    for line in [
        *_find_idle(config, choices, own),
        *find_unused(config, typed),
        *find_beyond(config, typed),
        *find_unreached(config, typed),
    ]:
        log.warning("%s", line)

    def value(key: str) -> Any:
        return OmegaConf.select(config, key)

    if value("algo.engine") == "learn2learn" and value("algo.task_chunk") not in (None, 0, 1):
        log.warning("algo.task_chunk has no effect with algo.engine=learn2learn, which loops over tasks")
    normalised = {*find_parameters(value("backbone._target_")), *find_parameters(value("algo._target_"))}
    asked = value("bn") in ("support", "running") or (f"bn={value('bn')}" in typed and value("bn") != "none")
    if asked and "bn" not in normalised:
        log.warning("bn=%s has no effect: nothing in the chosen algo and backbone has batch normalisation", value("bn"))
    if (value("run.val_every") or 0) > (value("run.steps") or math.inf):
        log.warning("run.val_every is above run.steps: the run is validated once, at its end")
    if value("data.query") == "dirichlet" and "balanced" in get_object(value("algo._target_")).answers:
        name = str(value("algo._target_")).rpartition(".")[2]
        log.warning("data.query=dirichlet: %s assumes as many queries of each class, and there are not", name)
    if value("data.trainval"):
        log.warning("data.trainval=true: classes of val are trained on, so the best step by validation means little")
    if (value("run.test_tasks") or math.inf) < 600:
        log.warning("run.test_tasks=%s is few for a number to believe; papers use 600 or more", value("run.test_tasks"))


def _find_idle(config: DictConfig, choices: Mapping[str, Any], own: Sequence[str]) -> Iterator[str]:
    """Find settings that were changed although they count only with another value of some other setting."""
    for group in GROUPS:
        conditions = find_conditions(config[group]["_target_"]) | BUILD_CONDITIONS.get(group, {})
        if not conditions or not choices.get(group):
            continue
        with suppress(ConfigError):  # there is no such file: nobody knows what was changed
            before, now = _read_plainly(read_shipped(str(choices[group]), group, own)), _read_plainly(config[group])
            values = config[group]
            for name, condition in conditions.items():
                if name not in values or now[name] == before.get(name) or condition.other not in values:
                    continue
                if not condition.counts(values[condition.other]):
                    other, has = f"{group}.{condition.other}", show_value(values[condition.other])
                    told = f"{group}.{name}={show_value(values[name])} has no effect with {other}={has}"
                    yield f"{told}: it counts with {condition.describe(other)}"


def _read_plainly(node: DictConfig) -> dict[str, Any]:
    """Return the settings as they were written, with references to others left as references."""
    found: dict[str, Any] = OmegaConf.to_container(node)  # type: ignore[assignment]
    return found
