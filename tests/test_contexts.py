"""Ends of contexts: after an error the state of the process is that of before, and the error comes out.

Every context of the package is tried here, or stands in ELSEWHERE with the file of its tests.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from metarun.algos.base.film import modulate
from metarun.app.jobs.claim import Claim
from metarun.app.jobs.inspected import inspected
from metarun.app.jobs.new_folder import refused
from metarun.app.jobs.workers import share_run
from metarun.app.messages import show_messages
from metarun.app.sweeps.accepted import _as_job
from metarun.core import machine, tuning, whole
from metarun.core.errors import ConfigError, Refused, wrong_input
from metarun.core.postponed import postponed
from metarun.core.screen import Screen
from metarun.core.streams import lasting_streams
from metarun.ops import context
from metarun.run.device import hold_device
from metarun.run.evaluation import explain_streams
from metarun.run.interrupt import stop_requests
from metarun.run.processes import lead_group
from metarun.run.tracking import wandb_sink
from metarun.settings.compose import compose_choices, explain_errors
from metarun.settings.resolve import resolve

PACKAGE = Path(context.__file__).parents[1]
ELSEWHERE = {
    "_during": "all of ops/context.py is made of it",
    "ends_no_run": "test_screen.py",
    "_fixed_order": "test_recorder.py",
    "open_trained": "test_eval.py",
    "_joined": "test_continual.py",
    "encoded": "test_embedded.py",
    "_hold_lock": "test_data.py",
    "_encoded_source": "test_embedded.py",
    "recording": "test_norm.py",
    "_testing": "test_leakage.py",
    "_written_out": "test_norm.py",
}


class Odd(Exception):
    """What nobody raises but these tests."""


def see(folder: Path) -> dict[str, Any]:
    """All that a context may change of the process."""
    root = logging.getLogger()
    return {
        "context": dict(vars(context.now)),
        "garbage": gc.isenabled(),
        "handlers": list(root.handlers),
        "signals": {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)},
        "streams": (sys.stdout, sys.stderr),
        "threads": torch.get_num_threads(),
        "anomaly": torch.is_anomaly_enabled(),
        "nan": torch.is_anomaly_check_nan_enabled(),
        "grad": torch.is_grad_enabled(),
        "random": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        "environment": dict(os.environ),
        "hydra": HydraConfig.instance().cfg,
        "files": sorted(str(path) for path in folder.rglob("*")),
    }


def contexts(folder: Path, config: DictConfig) -> dict[str, AbstractContextManager[Any]]:
    net, screen = nn.Sequential(nn.Conv2d(1, 2, 1)), Screen(quiet=True)
    films = {"0": torch.ones(4)}
    settings = resolve(config)
    of_job = compose_choices(["data=sinusoid"])[1]
    return {
        "support_rows": context.support_rows(2),
        "adapting": context.adapting(),
        "frozen": context.frozen(),
        "differentiated": context.differentiated(True),
        "convolving": context.convolving("grouped"),
        "restoring": context.restoring(),
        "modulate": modulate(net, films),
        "refused": refused(),
        "inspected": inspected("anomaly", folder / "p.json", screen),
        "share_run": share_run(settings, folder),
        "show_messages": show_messages(screen),
        "_as_job": _as_job(of_job, 3),
        "explain_errors": explain_errors(["seed=1"]),
        "explain_streams": explain_streams(nn.Identity()),  # type: ignore[arg-type]
        "stop_requests": stop_requests(folder / "stop"),
        "lead_group": lead_group(1, "", 0, 1),
        "hold_device": hold_device("cpu"),
        "lasting_streams": lasting_streams(),
        "wrong_input": wrong_input(),
        "postponed": postponed(),
        "name_what_fails": whole.name_what_fails(folder / "a"),
        "hold_gpu": machine.hold_gpu(["0", "1"], folder),
        "frozen_imports": tuning.frozen_imports(),
        "Claim": Claim(folder / "run", screen, lambda: None),
        "end_service": wandb_sink.end_service(),
        "written_whole": whole.written_whole(folder / "b"),
        "whole_file": whole.whole_file(folder / "c"),
        "whole_folder": whole.whole_folder(folder / "d"),
    }  # fmt: skip


NAMES = [
    "support_rows",
    "adapting",
    "frozen",
    "differentiated",
    "convolving",
    "restoring",
    "modulate",
    "refused",
    "inspected",
    "share_run",
    "show_messages",
    "_as_job",
    "explain_errors",
    "explain_streams",
    "stop_requests",
    "lead_group",
    "hold_device",
    "lasting_streams",
    "wrong_input",
    "postponed",
    "name_what_fails",
    "hold_gpu",
    "frozen_imports",
    "Claim",
    "end_service",
    "written_whole",
    "whole_file",
    "whole_folder",
]
WRITES = {"hold_gpu", "Claim"}


@pytest.mark.parametrize("name", NAMES)
def test_an_error_leaves_all_as_it_was_and_comes_out(
    full: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torn = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(teardown=lambda: torn.append(1)))
    made = contexts(tmp_path, full("data=sinusoid", "logger=none"))[name]
    before = see(tmp_path)
    inside: dict[str, Any] = {}

    def fail() -> None:
        with made:
            inside.update(see(tmp_path))
            raise Odd("in the midst")

    with pytest.raises(Odd, match="in the midst"):
        fail()
    after = see(tmp_path)
    if name in WRITES:
        after.pop("files"), before.pop("files")
    assert after == before
    assert torn == [1] * (name == "end_service")
    changed = {what for what in inside if what != "files" and inside[what] != before.get(what, inside[what])}
    assert changed == CHANGED.get(name, set())


CHANGED = {
    **{name: {"context"} for name in ("support_rows", "adapting", "differentiated", "convolving", "restoring")},
    "inspected": {"anomaly"}, "show_messages": {"handlers"}, "_as_job": {"hydra"}, "stop_requests": {"signals"},
    "lasting_streams": {"streams"}, "frozen_imports": {"garbage"}, "Claim": {"handlers"},
}  # fmt: skip
"""What each context changes inside."""


def test_every_context_is_tried_or_tested_elsewhere() -> None:
    marked = re.compile(r"@(?:contextlib\.)?contextmanager\n\s*def (\w+)")
    found = {name for file in PACKAGE.rglob("*.py") for name in marked.findall(file.read_text())}
    assert found - {*NAMES} == {*ELSEWHERE}


def test_an_error_that_says_what_is_wrong_comes_out_as_such(tmp_path: Path) -> None:
    """Each context that turns errors into others, with those that it turns and one that it leaves."""
    for made, raised, found in (
        (wrong_input, ValueError("no"), ConfigError), (wrong_input, ConfigError("no"), ConfigError),
        (wrong_input, TypeError("no"), TypeError), (refused, ConfigError("no"), Refused),
        (refused, ValueError("no"), ValueError),
        (lambda: whole.name_what_fails(tmp_path), OSError(28, "no"), whole.CannotWrite),
        (lambda: whole.name_what_fails(tmp_path), ValueError("no"), ValueError),
        (lambda: explain_errors([]), KeyError("no"), KeyError),
    ):  # fmt: skip
        with pytest.raises(found) as caught, made():
            raise raised
        assert type(caught.value) is found
        assert "no" in str(caught.value)
