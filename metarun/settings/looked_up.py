"""Settings that refer to what is not among them, as the time or a job's number: looked up once, when a run starts."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from metarun.settings.compose import explain_errors
from metarun.settings.trust import reads_elsewhere


def look_up(config: DictConfig) -> DictConfig:
    """Return the same settings with the values that `${now:...}`, `${oc.env:...}` and the like have now.

    A run keeps these, so that whoever opens it later has the same settings. What refers to other settings stays.
    Raises: ConfigError where there is no such value.
    """
    found = config.copy()
    OmegaConf.set_readonly(found, False)
    with explain_errors([]):
        _look_up(found)
    return found


def _look_up(node: DictConfig | ListConfig) -> None:
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_interpolation(node, key):
            if reads_elsewhere(str(node._get_node(key)._value())):  # type: ignore[union-attr]  # as it was typed
                node[key] = node[key]
        elif OmegaConf.is_config(node[key]):
            _look_up(node[key])
