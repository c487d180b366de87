"""What is recorded once is done again with other numbers, not repeated."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from conftest import quick_if
from hydra.utils import get_object
from omegaconf import DictConfig
from test_contract import ALGOS, choices, parts_of

from metarun.algos.base.episodic import EpisodicLearner
from metarun.core.errors import ConfigError
from metarun.ops import replay
from metarun.ops.replay import Recorder

Settings = Callable[..., DictConfig]
CLASSES = {name: get_object(values["_target_"]) for name, values in choices("algo").items()}
RECORDABLE = [name for name in ALGOS if vars(CLASSES[name]).get("recordable", False)]

QUICK = ("maml", "imaml", "protonet")
"""One of each kind; the others wait for `-m slow`."""


def trained(config: DictConfig) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The state after two outer steps of four tasks each, and scores of validation tasks after each."""
    parts = parts_of(config)
    stream, optims = parts.learner.train_stream(parts.source, 0, 4), parts.optims
    tests = next(parts.source.episodes("val", 0, 2))
    scores = {}
    for step in range(2):
        parts.learner.train()
        metrics = parts.learner.meta_step(next(stream), optims)
        found = parts.learner.eval().evaluate(tests)
        scores |= {f"{name} {step}": value for name, value in {**metrics, **found}.items()}
    return parts.learner.state_dict(), scores


@pytest.mark.parametrize("algo", quick_if(QUICK, RECORDABLE))
def test_a_recorded_learner_is_the_plain_one_to_the_bit(settings: Settings, algo: str) -> None:
    """With batch statistics that are kept, weights that change, and chunks of two tasks; so a resumed run may record
    at another step."""
    words = [f"algo={algo}", "bn=running", "algo.task_chunk=2", "backbone.hidden=4", "backbone.layers=2"]
    costly = {"inner_steps", "test_inner_steps", "cg_steps", "iterations"} & choices("algo")[algo].keys()
    words += [f"algo.{key}=1" for key in sorted(costly)]
    plain, recorded = (trained(settings(*words, f"run.compile={on}")) for on in ("false", "true"))
    for one, other in zip(recorded, plain, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert torch.equal(one[name], value), name


@pytest.mark.slow
def test_what_changes_along_the_way_is_given_to_a_recording_or_has_one_of_its_own(settings: Settings) -> None:
    """MAML++ weighs its losses otherwise in each of the first 8 steps, of which 4 are of first order: three recordings,
    each of them replayed twice and more."""
    words = ["algo=maml_pp", "algo.inner_steps=2", "algo.multi_step=8", "algo.first_order_steps=4", "algo.task_chunk=3"]
    plain, recorded = (
        parts_of(settings(*words, "backbone.hidden=4", "backbone.layers=2", f"run.compile={on}"))
        for on in ("false", "true")
    )
    streams = [parts.learner.train().train_stream(parts.source, 0, 3) for parts in (plain, recorded)]
    for _ in range(11):
        expected, found = (
            parts.learner.meta_step(next(stream), parts.optims)
            for parts, stream in zip((plain, recorded), streams, strict=True)
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    for name, value in plain.learner.state_dict().items():
        assert torch.equal(recorded.learner.state_dict()[name], value), name
    recorder = recorded.learner.recorder
    assert len(recorder.believed) == len(recorder.replays) == 3


def test_most_of_the_gradient_family_can_be_recorded() -> None:
    assert {"maml", "fomaml", "anil", "meta_sgd", "maml_pp", "imaml", "reptile", "protonet", "r2d2"} <= set(RECORDABLE)


@pytest.mark.parametrize("words", [["algo=baseline"], ["algo=maml", "algo.engine=learn2learn"]])
def test_what_cannot_be_recorded_is_refused(settings: Settings, words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"cannot be recorded; set run\.compile=false"):
        parts_of(settings(*words, "run.compile=true"))


def test_what_is_called_seldom_is_not_recorded() -> None:
    calls = []

    def function(x: torch.Tensor) -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        return x.square()

    recorder = Recorder("replay", after=2)
    for step in range(5):
        x = torch.rand(3, requires_grad=True)
        assert torch.equal(recorder("f", function, x), x.detach().square())
        assert len(calls) == min(step + 1, 4)  # two plain, one recorded, one that the first replay is held against
    assert not any(calls)


def test_a_recorder_records_each_shape_once() -> None:
    calls = []

    def function(x: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(x.shape)
        return {"twice": 2 * x}

    recorder = Recorder("replay")
    for size in (2, 3, 2, 3, 2, 3):
        x = torch.rand(size)
        assert torch.equal(recorder("f", function, x)["twice"], 2 * x)
    assert [tuple(shape) for shape in calls] == [(2,), (3,), (2,), (3,)]  # recorded, then checked


def test_noise_is_drawn_anew_at_each_replay_as_the_plain_function_would_draw_it() -> None:
    recorder = Recorder("replay")
    torch.manual_seed(0)
    drawn = torch.stack([recorder("f", lambda x: x + torch.rand(3), torch.zeros(3)) for _ in range(4)])
    assert recorder.believed
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.stack([torch.rand(3) for _ in range(4)]))


def test_a_function_that_does_otherwise_than_recorded_is_called_plainly_from_then_on() -> None:
    """What it adds grows with each call, which no shape of a tensor tells."""
    recorder, count = Recorder("replay", after=1), itertools.count()
    outputs = [recorder("f", lambda x: x + next(count), torch.zeros(())).item() for _ in range(6)]
    assert outputs == [0, 1, 2, 3, 4, 5]
    assert not recorder.replays


def test_a_learner_is_episodic_if_it_is_recordable() -> None:
    assert all(issubclass(CLASSES[name], EpisodicLearner) for name in RECORDABLE)


def test_a_subclass_is_recorded_only_where_it_says_so_itself(settings: Settings) -> None:
    class Mine(get_object("metarun.algos.gradient.maml.MAML")):
        """As MAML, for all that a reader of the class can tell."""

    learner = parts_of(settings("algo=maml")).learner
    assert learner.recordable
    learner.__class__ = Mine
    assert not vars(Mine).get("recordable")


@pytest.mark.parametrize("before", [True, False])
def test_the_order_of_additions_is_free_again_after_a_check_also_of_one_that_failed(
    monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)
    inside = []
    with pytest.raises(KeyError), replay._fixed_order():
        raise KeyError(inside.append(torch.backends.cudnn.deterministic))
    assert (inside, torch.backends.cudnn.deterministic) == ([True], before)
