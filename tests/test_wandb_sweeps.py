"""The files for `wandb sweep`, without W&B's server: what its agent makes of them, and what the runs then are."""

from __future__ import annotations

import os
import queue
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, metarun, results_of
from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from test_settings import Settings
from test_sinks import items, records

from metarun.settings.check import check
from metarun.settings.conf import CONF

SPACES = sorted(path.stem for path in (CONF / "search").glob("*.yaml"))
SWEEPS = Path(__file__).parents[1] / "scripts" / "wandb_sweeps"


def wandb_sweep(name: str) -> dict[str, Any]:
    from wandb.sdk.launch.sweeps.utils import load_sweep_config  # seconds, for whoever looks for tests too

    found = load_sweep_config(str(SWEEPS / f"{name}.yaml"))
    assert found
    return found


def as_wandb(space: BaseDistribution) -> dict[str, Any]:
    """A distribution of Optuna's as W&B writes it."""
    if isinstance(space, CategoricalDistribution):
        return {"values": [str(choice) for choice in space.choices]}
    whole, log = isinstance(space, IntDistribution), space.log  # type: ignore[attr-defined]
    assert not (whole and log)
    kind = "int_uniform" if whole else "log_uniform_values" if log else "uniform"
    return {"distribution": kind, "min": space.low, "max": space.high}  # type: ignore[attr-defined]


def some(space: dict[str, Any]) -> Any:
    """A value of a W&B space that no default has."""
    return space["values"][-1] if "values" in space else space["min"]


def test_there_is_a_file_for_every_search() -> None:
    assert sorted(path.stem for path in SWEEPS.glob("*.yaml")) == SPACES


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.filterwarnings("ignore:.*Distribution has been deprecated:FutureWarning")
def test_wandb_searches_the_space_that_optuna_does(name: str) -> None:
    params = OmegaConf.load(CONF / "search" / f"{name}.yaml").hydra.sweeper.params
    spaces, fixed = create_params_from_overrides([f"{key}={value}" for key, value in params.items()])
    assert not fixed
    assert {key: as_wandb(space) for key, space in spaces.items()} == wandb_sweep(name)["parameters"]


@pytest.mark.parametrize("name", SPACES)
def test_its_bounds_are_settings_that_pass_the_checks(name: str, full: Settings) -> None:
    sweep = wandb_sweep(name)
    for end in ("min", "max"):
        point = [
            f"{key}={space[end] if end in space else space['values'][0]}" for key, space in sweep["parameters"].items()
        ]
        check(full(*(word for word in sweep["command"] if word[0] != "$"), *point))


@pytest.mark.slow
def test_a_trial_of_the_agent_is_one_run_of_the_agents_id_with_the_metric_it_asks_for(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's own agent builds the command and the environment; its server is away, so the run goes on offline."""
    sweep = wandb_sweep("maml")
    monkeypatch.chdir(tmp_path)
    environment = {
        "WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "", "WANDB_PROJECT": sweep["project"], "WANDB_ENTITY": "someone",
        "WANDB_DIR": str(tmp_path), "WANDB_SWEEP_PARAM_PATH": "", "METARUN_CACHE": str(cache), "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    environment |= {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("WANDB_MODE")
    small = [*(word for word in TINY if word != "logger=none"), "logger.init_timeout=2", "hydra.run.dir=r"]
    from wandb.wandb_agent import Agent

    agent = Agent(api=None, queue=queue.Queue(), sweep_id="sweep123")
    agent._sweep_command = [*sweep["command"], *small]
    values = {name: {"value": some(space)} for name, space in sweep["parameters"].items()}
    agent._command_run({"type": "run", "run_id": "trial42", "program": sweep["program"], "args": values})
    assert agent._run_processes["trial42"].wait() == 0
    results, found = results_of(tmp_path / "r"), records(tmp_path / "r")
    heads = [record.run for record in found if record.HasField("run")]
    assert {(head.run_id, head.sweep_id, head.project) for head in heads} == {("trial42", "sweep123", "metarun")}
    assert results["wandb_id"] == "trial42"
    assert len(list(tmp_path.glob("r/wandb/offline-run-*"))) == 1
    config = items(heads[-1].config.update)
    assert {name: config[name] for name in values if "/" not in name} == {
        name: value["value"] for name, value in values.items() if "/" not in name
    }
    asked = sweep["metric"]["name"]
    history = [items(record.history.item) for record in found if record.HasField("history")]
    best = [line[asked] for line in history if asked in line]
    now = [line["val/accuracy"] for line in history if asked in line]
    assert best == [max(now[: i + 1]) for i in range(len(now))]
    assert best[-1] == results["val"]["accuracy"]


def test_a_multirun_under_the_agent_is_refused(tmp_path: Path, cache: Path) -> None:
    code, _, error = metarun("-m", "seed=0,1", cwd=tmp_path, cache=cache, WANDB_SWEEP_ID="sweep123")
    assert (code, error) == (2, "metarun: under `wandb agent` a command is one run: leave out -m\n")
