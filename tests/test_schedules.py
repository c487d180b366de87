"""The learning rate at every outer step of a short run whose steps no setting of a schedule divides."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from metarun.settings.conf import list_shipped

Settings = Callable[..., DictConfig]

STEPS = 5

RATES = {
    "constant": ((), [0.4, 0.4, 0.4, 0.4, 0.4]),
    "constant, at another level": (("factor=0.25",), [0.1, 0.1, 0.1, 0.1, 0.1]),
    "linear": ((), [0.4, 0.32, 0.24, 0.16, 0.08]),
    "linear, to a tenth": (("end_factor=0.1",), [0.4, 0.328, 0.256, 0.184, 0.112]),
    "linear, upwards": (("start_factor=0.5", "end_factor=1"), [0.2, 0.24, 0.28, 0.32, 0.36]),
    "cosine": ((), [0.4, 0.361803, 0.261803, 0.138197, 0.038197]),
    "cosine, to 0.2": (("eta_min=0.2",), [0.4, 0.380902, 0.330902, 0.269098, 0.219098]),
    "cosine_restarts": ((), [0.4, 0.3, 0.1, 0.4, 0.3]),
    "cosine_restarts, to 0.2": (("eta_min=0.2",), [0.4, 0.35, 0.25, 0.4, 0.35]),
    "cosine_restarts, once": (("cycles=1",), [0.4, 0.361803, 0.261803, 0.138197, 0.038197]),
    "cosine_restarts, each step": (("cycles=5",), [0.4, 0.4, 0.4, 0.4, 0.4]),
    "cosine_restarts, more than steps": (("cycles=7",), [0.4, 0.4, 0.4, 0.4, 0.4]),
    "step": (("step_size=2",), [0.4, 0.4, 0.2, 0.2, 0.1]),
    "step, by a tenth": (("step_size=3", "gamma=0.1"), [0.4, 0.4, 0.4, 0.04, 0.04]),
    "milestones": (("at=[1,3]", "factors=[0.5,0.2]"), [0.4, 0.2, 0.2, 0.08, 0.08]),
    "milestones, upwards": (("at=[4]", "factors=[2]"), [0.4, 0.4, 0.4, 0.4, 0.8]),
    "milestones, after the last step": ((), [0.4, 0.4, 0.4, 0.4, 0.4]),
    "step, of more steps than there are": ((), [0.4, 0.4, 0.4, 0.4, 0.4]),
}
"""Settings, and the rate of outer steps 1 to 5 under a learning rate of 0.4."""


def scheduled(settings: Settings, case: str) -> tuple[SGD, LRScheduler]:
    name = case.partition(",")[0]
    words = [f"optim.schedule.{word}" for word in RATES[case][0]]
    config = settings(f"optim/schedule={name}", f"run.steps={STEPS}", *words)
    optim = SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.4)
    return optim, instantiate(config.optim.schedule)(optim)


def rates_of(optim: SGD, schedule: LRScheduler, steps: int) -> list[float]:
    """The rate of each of the next outer steps, after which the schedule takes one."""
    found = []
    for _ in range(steps):
        found.append(optim.param_groups[0]["lr"])
        optim.step()
        schedule.step()
    return found


@pytest.mark.parametrize("case", RATES)
def test_the_rate_of_each_step_is_what_the_schedule_says(settings: Settings, case: str) -> None:
    """Step k + 1 of 5 has, of the way from 0.4 down to the end: linear k/5, cosine (1 - cos(pi k/5)) / 2, which is
    0, 0.0955, 0.3455, 0.6545 and 0.9045. Two cycles of 5 steps take 3 each, of which the last is cut short:
    (1 - cos(pi k/3)) / 2 is 0, 0.25 and 0.75. Were they of 2 steps, a third would begin with the last step, at 0.4.
    StepLR multiplies after each `step_size` steps."""
    optim, schedule = scheduled(settings, case)
    assert rates_of(optim, schedule, STEPS) == pytest.approx(RATES[case][1], abs=1e-6)


def test_every_shipped_schedule_is_among_them() -> None:
    assert {case.partition(",")[0] for case in RATES} == set(list_shipped("optim/schedule"))


@pytest.mark.parametrize("case", RATES)
def test_a_schedule_that_was_saved_after_three_steps_goes_on_with_the_fourth(settings: Settings, case: str) -> None:
    """As a checkpoint keeps it, with the optimizer: by values alone, no class."""
    optim, schedule = scheduled(settings, case)
    rates_of(optim, schedule, 3)
    file = io.BytesIO()
    torch.save((optim.state_dict(), schedule.state_dict()), file)
    file.seek(0)
    optim, schedule = scheduled(settings, case)
    for thing, state in zip((optim, schedule), torch.load(file, weights_only=True), strict=True):
        thing.load_state_dict(state)
    assert rates_of(optim, schedule, 2) == pytest.approx(RATES[case][1][3:], abs=1e-6)


@pytest.mark.parametrize("at", ["[1]", "[2,1]", "[1,1]", "[1,2,3]"])
def test_milestones_rise_and_have_a_factor_each(settings: Settings, at: str) -> None:
    config = settings("optim/schedule=milestones", f"optim.schedule.at={at}", "optim.schedule.factors=[0.5,0.2]")
    optim = SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.4)
    with pytest.raises(ValueError, match=r"must rise, with a factor for each step; .*factors=\[0.5, 0.2\]"):
        instantiate(config.optim.schedule)(optim)
