"""What W&B's environment variables ask for, and whether its server can be reached."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

log = logging.getLogger(__name__)

PREFIX = "WANDB_"

PROJECT = "metarun"
"""The project of runs for which neither the settings nor the environment names one."""

MODES = ("online", "offline", "disabled")

OBEYED = {"WANDB_NAME": "name", "WANDB_RUN_GROUP": "group", "WANDB_JOB_TYPE": "job_type", "WANDB_RUN_ID": "id"}
"""Variables in place of what the run would be called; under the settings, which are typed."""

IGNORED = {
    "WANDB_DIR": "W&B's files lie in the run's folder",
    "WANDB_RESUME": "a resumed run goes on in W&B by itself",
    "WANDB_CONSOLE": "run.log has what the run says",
}


def choose_project(project: str | None) -> str:
    """Return the project of a run whose settings name `project`, or none."""
    return project or os.environ.get("WANDB_PROJECT") or PROJECT


def read_mode() -> str | None:
    """Read WANDB_MODE; offline if it is no mode of W&B's, None if it says nothing."""
    asked = os.environ.get("WANDB_MODE", "")
    mode = {"dryrun": "offline", "run": "online"}.get(asked.lower(), asked.lower())
    if mode in MODES:
        return mode
    if asked:
        log.warning("WANDB_MODE=%s is none of %s: logging offline", asked, ", ".join(MODES))
        return "offline"
    return None


def check_names(project: str | None, tags: Sequence[str]) -> None:
    """Raises: ValueError for a project or tags that W&B does not take."""
    import wandb

    try:
        wandb.Settings(project=project, run_tags=tuple(tags))
    except (ValueError, wandb.errors.Error) as error:
        raise ValueError(f"logger.project={project}, logger.tags={[*tags]}: {explain(error)}") from error


def drop_wrong_variables() -> list[str]:
    """Take W&B's variables with values that W&B refuses out of the environment, and say so in a line each.

    Returns: their names.
    """
    import wandb

    dropped = []
    mode = read_mode()
    if mode:
        os.environ["WANDB_MODE"] = mode
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX):
            continue
        try:
            wandb.Settings().update_from_env_vars({name: value})
            if name == "WANDB_SERVICE":
                from wandb.sdk.lib.service import service_token

                service_token.from_env()
        except (ValueError, wandb.errors.Error) as error:
            shown = name if name.endswith(("KEY", "TOKEN")) else f"{name}={value}"
            log.warning("%s is ignored: %s", shown, explain(error))
            del os.environ[name]
            dropped.append(name)
    return dropped


def find_names(several: bool) -> dict[str, str]:
    """Find what the environment calls a run, by W&B's name of the option; warn of names that it cannot have.

    Args:
        several: whether it is one of several runs, which cannot share a name or an id.
    """
    found = {}
    for name, option in OBEYED.items():
        if not (value := os.environ.get(name)):
            continue
        if several and option in ("name", "id"):
            log.warning("%s=%s is ignored: each run of a sweep has its own", name, value)
        else:
            found[option] = value
    for name, reason in IGNORED.items():
        if os.environ.get(name):
            log.warning("%s is ignored: %s", name, reason)
    return found


def find_obstacle(url: str, seconds: float) -> str | None:
    """Find why nobody answers at the address, as a refused connection or a name that nobody knows; None if one does.

    Behind a proxy, that is not known before W&B tries.
    """
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    if address.scheme in getproxies() and not proxy_bypass(host):
        return None
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    return None


def explain(error: Any) -> str:
    """Return the first line of what W&B says, without pydantic's frame."""
    text = error.errors()[0]["msg"] if hasattr(error, "errors") else str(error)
    return str(text).splitlines()[0]


def choose_mode(mode: str) -> str:
    """Choose online or offline for `auto`: online if the environment or `wandb login` provides credentials."""
    import wandb

    if mode != "auto":
        return mode
    if asked := read_mode():
        return asked
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "online"
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
