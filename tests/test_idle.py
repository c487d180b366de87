"""A setting that has no effect because of another group's is told, and has none indeed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from test_settings_matter import TINY, Learned, Ran, same, set_in

from metarun.settings.advise import advise
from metarun.settings.hydras import find_idle_words

IDLE = [
    ("data.train.n_way=4", ["algo=baseline"], "Baseline trains on single examples"),
    ("data.train.k_shot=3", ["algo=simpleshot"], "SimpleShot trains on single examples"),
    ("data.train.n_query=5", ["algo=finetune"], "FineTune trains on single examples"),
    ("data.wide=9", ["algo=maml"], "MAML trains with data.train.n_way="),
    ("data.labels=fixed", ["algo=baseline"], "Baseline trains on single examples"),
    ("data.train.n_query=4", ["algo=distill"], "Distill trains on single examples"),
    ("data.train.n_way=4", ["algo=anml"], "ANML trains on streams of classes and single examples"),
    ("data.steps=600", ["algo=maml", "run.steps=2"], "the run trains with run.steps=2"),
    ("algo.noise=2.0", ["algo=abml"], "it counts with tasks of regression, and these are classification"),
    ("algo.min_std=0.3", ["algo=mann"], "it counts with tasks of regression, and these are classification"),
    ("algo.rivals=task", ["algo=finetune_in_turn", "run=offline"], "it counts with run=continual"),
    ("algo.lateral=false", ["algo=progressive", "run=offline"], "it counts with run=continual"),
    ("optim.lr=0.5", ["data=bandits", "algo=ucb1"], "UCB1 learns nothing"),
    ("optim.lr=0.5", ["data=navigation", "algo=maml_rl", "algo.outer=trpo"], "with algo.outer=trpo there is no optim"),
    ("bn=transductive", ["data=navigation", "algo=maml_rl"], "nothing in the chosen algo and backbone has batch norm"),
    ("data={}", ["algo=maml"], "it changes no setting of data; type data.KEY=VALUE"),
    ("data.train={ }", ["algo=maml"], "it changes no setting of data.train; type data.train.KEY=VALUE"),
    ("bn=running", ["data=bandits", "algo=rl2"], "nothing in the chosen algo and backbone has batch norm"),
]
ONLINE = [
    ("data.n_query=40", "with run=online a stream has the training tasks' data.train.n_query alone"),
    ("data.eval_seed=7", "with run=online a stream has training tasks alone"),
    ("optim.schedule.eta_min=0.0005", "with run=online schedules do not move"),
    ("optim/schedule=step", "with run=online schedules do not move"),
]
STREAM = ["data=sinusoid", "algo=maml", "run=online"]
COUNT = [
    ("data.train.n_way=4", ["algo=maml"]),
    ("data.train.k_shot=3", ["algo=meta_baseline"]),
    ("data.labels=fixed", ["algo=meta_baseline"]),
    ("optims={}", ["algo=maml"]),
    ("data.train.n_query=3", ["algo=anml"]),
    ("algo.noise=2.0", ["algo=abml", "data=sinusoid"]),
    ("algo.rivals=task", ["algo=finetune_in_turn", "run=continual"]),
    ("data.steps=600", ["algo=maml"]),
    ("data.n_query=40", ["data=sinusoid", "algo=maml"]),
    ("data.train.n_query=40", ["data=sinusoid", "algo=maml", "run=online"]),
    ("data.wide=9", ["algo=protonet"]),
    ("bn=transductive", ["algo=maml", "bn=support"]),
    ("bn=none", ["data=navigation", "algo=maml_rl"]),
    ("optim.lr=0.5", ["data=navigation", "algo=maml_rl"]),
]


def tell(config: DictConfig, word: str, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    advise(config, {}, (), [word])
    return caplog.text


SOME = [case if n in (0, 3, 5) else pytest.param(*case, marks=pytest.mark.slow) for n, case in enumerate(IDLE)]


@pytest.mark.parametrize(("word", "others", "why"), SOME)
def test_a_setting_without_effect_beside_others_is_told(
    full: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture, word: str, others: list[str], why: str
) -> None:
    assert f"{word} has no effect: {why}" in tell(full(*others, word), word, caplog)


@pytest.mark.parametrize(
    ("word", "others"), [COUNT[2], *(pytest.param(*case, marks=pytest.mark.slow) for case in COUNT if case != COUNT[2])]
)
def test_one_that_has_an_effect_is_not(
    full: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture, word: str, others: list[str]
) -> None:
    assert "has no effect" not in tell(full(*others, word), word, caplog)


@pytest.mark.slow
@pytest.mark.parametrize(("word", "others", "why"), IDLE)
def test_what_is_said_to_have_no_effect_has_none(
    full: Callable[..., DictConfig], cache: Path, word: str, others: list[str], why: str
) -> None:
    outcomes = []
    for words in ([*others], [*others, word]):
        config = full(*words, f"paths.cache={cache}", "logger=none")
        set_in(config, {key: value for key, value in TINY.items() if key != word.partition("=")[0]})
        outcomes.append(Learned(config))
    assert same(*outcomes)


@pytest.mark.parametrize(("word", "why"), ONLINE)
def test_of_a_stream_it_is_told_too_and_changes_no_number(
    full: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture, tmp_path: Path, word: str, why: str
) -> None:
    assert f"{word} has no effect: {why}" in tell(full(*STREAM, word), word, caplog)
    outcomes = []
    for words in (STREAM, [*STREAM, word]):
        config = full(*words, "logger=none", f"paths.outputs={tmp_path / str(len(words))}")
        set_in(config, {"run.steps": 4, "run.updates": 2, "run.hindsight_steps": 3, "optim.schedule.step_size": 1})
        outcomes.append(Ran(config))
    assert same(*outcomes)


def test_words_of_sweeps_are_told_where_there_is_none_and_the_other_way_round() -> None:
    words = ["sweep.rerun=all", "hydra/launcher=joblib", "hydra.sweep.dir=s", "seed=1"]
    assert [line.partition(" ")[0] for line in find_idle_words(words, sweep=False)] == words[:3]
    assert list(find_idle_words(words, sweep=True)) == []
    (line,) = find_idle_words(["hydra.run.dir=r"], sweep=True)
    assert "hydra.run.dir=r has no effect with -m" in line
