"""Any value of any setting is taken, or refused in a message: nothing else comes of it."""

from __future__ import annotations

import functools
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import campaign, compose_quickly
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from test_contract import acts
from test_control_contract import CONTROL

from metarun.cli import command
from metarun.core.dotted import nodes
from metarun.core.errors import ConfigError
from metarun.settings.build import build_parts, build_run
from metarun.settings.compose import explain_errors
from metarun.settings.conf import list_shipped
from metarun.settings.resolve import resolve
from metarun.settings.typed import read_word

SMALL = ["run.steps=1", "run.meta_batch_size=2", "run.val_tasks=2", "run.test_tasks=2", "threads=1", "logger=none"]
IMAGES = [
    "data=glyphs",
    "data.alphabets=8",
    "data.characters=6",
    "data.drawings=8",
    "data.n_query=2",
    "data.train.n_query=2",
]
FUNCTIONS = ["data=sinusoid", "backbone=mlp_small"]
PROCESSES = ("cnp", "np", "anp", "gp_oracle")
CHOICES = [
    *[
        [*IMAGES, f"algo={name}", "backbone=mlp_small"]
        for name in list_shipped("algo")
        if name not in (*PROCESSES, "dann", "metareg", "zero_shot") and not acts("algo", name)
    ],
    *[[f"algo={name}", f"data={data}"] for name, data in CONTROL.items()],
    ["data=moons", "algo=dann"],
    ["data=turned_moons", "algo=metareg"],
    *[["data=gp", f"algo={name}", "backbone=none"] for name in PROCESSES],
    *[[*FUNCTIONS, f"optim={name}"] for name in list_shipped("optim")],
    *[[*FUNCTIONS, f"optim/schedule={name}"] for name in list_shipped("optim/schedule")],
    *[[f"data={name}", *FUNCTIONS[1:]] for name in ("harmonic", "gp")],
    *[[*IMAGES, f"backbone={name}", "algo=protonet"] for name in ("conv4", "conv4_strided", "mlp", "vit")],
]
"""Every choice that is made in a moment and without data."""

ASIDE = ("paths", "deterministic", "run.processes", "data.cache", "logger")
"""What is not to be tried at random: where files go, and what starts processes."""

WORDS = st.sampled_from([
    "", "abc", "null", "true", "nan", "inf", "-inf", "???", "${nothing}", "${seed}", "${oc.env:NOTHING}", "[]", "{}",
    "[0]", "[1,2]", "[0.5,0.25,0.25]", "[[1]]", "[null]", "[a,b]", "{a:1}", "{_target_:builtins.print}", "1e30",
    "1e-30", "1e400", str(2**63), str(10**21), "ü", "~/x", "a=b", "it's", "(", "a(b)", "choice(1,2)", "range(3)", "1,2",
    "'", "'5'",
    " ", "0x10",
])  # fmt: skip
NUMBERS = st.integers(-3, 12).map(str) | st.floats(-2, 2, allow_nan=False).map("{:.3g}".format)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x250), max_size=6)


@functools.cache
def composed(choice: int) -> DictConfig:
    return compose_quickly(*SMALL, *CHOICES[choice])


@functools.cache
def keys(choice: int) -> list[str]:
    """The settings of a choice by dotted key, groups of them too."""
    found = [key for key, _ in nodes(OmegaConf.to_container(composed(choice)))]
    return [key for key in found if not key.startswith(ASIDE)]


@st.composite
def words(draw: st.DrawFn) -> tuple[int, str]:
    """A choice of CHOICES, and an override of one of its settings."""
    choice = draw(st.integers(0, len(CHOICES) - 1))
    key, value = draw(st.sampled_from(keys(choice))), draw(WORDS | NUMBERS | TEXT)
    return choice, draw(st.sampled_from([f"{key}={value}"] * 8 + [f"~{key}", f"+{key}.x={value}"]))


def build(choice: int, word: str, folder: Path) -> None:
    """Make all that a run has, as the command line does. Raises: ConfigError."""
    words = [*SMALL, *CHOICES[choice], read_word(word, sweep=False)]
    with explain_errors(words):
        config = compose_quickly(*words)
    chosen = resolve(config, warn=False)
    parts = build_parts(chosen, folder)
    build_run(chosen, parts)


QUIET = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=40, **QUIET)
@given(words())
def test_a_value_builds_a_run_or_is_told(drawn: tuple[int, str]) -> None:
    with tempfile.TemporaryDirectory() as folder, suppress(ConfigError):
        build(*drawn, Path(folder))


@campaign
@settings(max_examples=400, **QUIET)
@given(words())
def test_many_values_build_a_run_or_are_told(drawn: tuple[int, str]) -> None:
    test_a_value_builds_a_run_or_is_told.hypothesis.inner_test(drawn)


@campaign
@settings(max_examples=80, **QUIET)
@given(words())
def test_a_value_runs_or_is_told_by_the_command(drawn: tuple[int, str]) -> None:
    """Exit code 1 is for numbers that blow up."""
    choice, word = drawn
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["metarun"])
        patch.setattr(sys, "path", [*sys.path])
        code = command([*SMALL, *CHOICES[choice], "hydra.run.dir=r", word])
        log = Path("r/run.log")
        assert code in (0, 2) or (code == 1 and "Diverged" in log.read_text())
