"""Mistakes that people make in code of their own: each has one message that says what to do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from metarun import Learner
from metarun.core.errors import ConfigError
from metarun.core.objectives import classification, regression
from metarun.run.evaluation import share_scores
from metarun.run.progress import read_numbers
from metarun.run.team import Group
from metarun.run.tracking.guarded import GuardedSink
from metarun.run.tracking.sink import RunInfo, Sink
from metarun.settings.compose import compose
from metarun.settings.conf import check_own_names
from metarun.settings.own_backbone import check_backbone, explain_lack
from metarun.settings.roles import find_problem


class Mine(Learner):
    """Learns one number."""

    def __init__(self, found: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight, self.found = nn.Parameter(torch.ones(())), found

    def meta_loss(self, batch: Any) -> Any:
        return self.found(self.weight)

    def evaluate(self, batch: Any) -> Any:
        return self.found(self.weight)


def test_what_a_class_declares_is_checked_where_it_is_written() -> None:
    with pytest.raises(ValueError, match=r"Text: needs is a tuple of names, so write needs = \('episodes',\)"):
        type("Text", (Mine,), {"needs": "episodes"})
    with pytest.raises(ValueError, match=r"directions\['f1'\]='max' is neither 'higher' nor 'lower'"):
        type("Max", (Mine,), {"directions": {"f1": "max"}})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda w: w, "must return a scalar and metrics, as in: return loss, {'loss': loss.detach()}"),
        (lambda w: (w, {"error": w.detach()}), "must return a scalar and metrics"),
        (lambda w: (w * torch.ones(3), {"loss": w}), "returns a loss of shape [3]; it must be a scalar: take its mean"),
        (lambda w: (w.detach(), {"loss": w}), "returns a loss without a gradient"),
    ],
)
def test_a_loss_that_cannot_be_descended_is_told(found: Callable[[Tensor], Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"Mine.meta_loss") as error:
        Mine(found).meta_gradient(None)
    assert said in str(error.value)


@pytest.mark.parametrize("value", [0.5, torch.ones(2)])
def test_a_metric_that_is_no_scalar_tensor_is_told(value: Any) -> None:
    with pytest.raises(ValueError, match=r"the metric gain of an outer step must be a scalar tensor"):
        read_numbers([{"loss": torch.ones(()), "gain": value}], 1)


@pytest.mark.parametrize("name", ["step", "split", "seconds", "lr_outer"])
def test_a_metric_of_the_name_of_a_field_of_the_files_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"is called {name}, which a run's files have: rename it"):
        read_numbers([{"loss": torch.ones(()), name: torch.ones(())}], 1)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda w: w, "must give tensors [B] by name"),
        (lambda w: {"loss": w}, "must give tensors [B] by name"),
        (lambda w: {"loss": [1.0, 2.0]}, "must give tensors [B] by name"),
        (lambda w: {"loss": w * torch.ones(6)}, "gives 6 numbers of loss for 2 tasks, and must give one for each"),
        (lambda w: {"error": w * torch.ones(2)}, "gives the scores error: loss must be among them"),
        (lambda w: {"loss": w * torch.ones(2) * 1j}, "gives complex numbers of loss: a score is a real one"),
        (lambda w: dict.fromkeys(("loss", "index"), w * torch.ones(2)), "is called index, which a run's files have"),
    ],
)
def test_scores_that_are_not_one_for_each_task_are_told(found: Callable[[Tensor], Any], said: str) -> None:
    mine = Mine(found)
    with pytest.raises(ConfigError) as error:
        share_scores(mine, lambda first, last: [mine.evaluate(None)], "val", 2, Group())
    assert said in str(error.value)


def test_scores_may_have_a_gradient() -> None:
    mine = Mine(lambda w: {"loss": w * torch.ones(2)})
    found = share_scores(mine, lambda first, last: [mine.evaluate(None)], "val", 2, Group())
    assert found["loss"].tolist() == [1, 1]


def test_outputs_of_another_shape_are_told_and_not_spread() -> None:
    with pytest.raises(ValueError, match=r"outputs of shape \[5, 15\] are no logits \[M, N\] for M=15 labels"):
        classification(torch.zeros(5, 15), torch.zeros(15, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"outputs of shape \[4\] are no values for y of shape \[4, 1\]"):
        regression(torch.zeros(4), torch.zeros(4, 1))


class Net(nn.Module):
    def __init__(self, *layers: nn.Module, says: int | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        if says is not None:
            self.out_features = says

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def test_a_backbone_is_held_against_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    check_backbone(Net(nn.Linear(3, 4), says=4), (3,))
    check_backbone(Net(nn.Linear(3, 4)), (3,))  # which some methods take
    check_backbone(Net(nn.Linear(5, 4), says=4), (3,))  # which the run will tell
    with pytest.raises(ConfigError, match=r"Net returns \[2, 4\] for 2 inputs; its out_features=5 says \[2, 5\]"):
        check_backbone(Net(nn.Linear(3, 4), says=5), (3,))
    assert not caplog.text


def test_a_layer_that_does_not_know_of_tasks_is_told_and_nothing_changes(caplog: pytest.LogCaptureFixture) -> None:
    net = Net(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), says=4).train()
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in net.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        check_backbone(net, (3,))
    assert "Net.layers.1 is torch's BatchNorm1d, which mixes tasks and obeys no bn=" in caplog.text
    assert torch.equal(torch.get_rng_state(), before)
    assert net.training
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_backbone_without_what_a_learner_asks_for_is_told() -> None:
    net = Net()
    with pytest.raises(AttributeError) as error:
        print(net.out_features)
    assert "set self.out_features to the length of what it returns" in str(explain_lack(error.value, net))
    assert explain_lack(error.value, Net()) is None


class Lines:
    """A sink without attributes."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.steps.append(step)

    def finish(self, results: Any, exit_code: int) -> None:
        self.steps.append(-exit_code)


def test_a_sink_needs_no_attributes() -> None:
    lines = Lines()
    sink = GuardedSink(lambda: cast("Sink", lines), cast("RunInfo", None))
    sink.log(3, "train", {"loss": 1.0})
    sink.finish({}, 1)
    assert (sink.shows, sink.id, list(sink.notes), lines.steps) == (False, None, [], [3, -1])


FILES = {
    "soft.py": "from metarun import EpisodicLearner\nclass Soft(EpisodicLearner):\n"
    "    def adapt(self, params, support, n_way): pass\n",
    "broken.py": "class Soft(:\n",
    "lost.py": "import no_such_package\n",
    "ends.py": "import sys; sys.exit(0)\n",
    "plain.py": "class Sink:\n    def log(self, step, split, metrics): pass\n",
}


@pytest.mark.parametrize(
    ("kind", "target", "said"),
    [
        ("algo", "sofd.Soft", "there is no module sofd, in this folder or installed; did you mean soft?"),
        ("algo", "soft.Sofd", "soft has no Sofd; did you mean Soft?"),
        ("algo", "soft.Soft", "has no predict: write what is missing, or choose a class that derives from it"),
        ("algo", "broken.Soft", "broken cannot be imported: SyntaxError: invalid syntax (broken.py, line 1)"),
        ("algo", "lost.Soft", "lost cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("algo", "ends.Soft", "ends cannot be imported: SystemExit: 0"),
        ("algo", "plain.Sink", "is no Learner: derive it from metarun.Learner, EpisodicLearner or MetricLearner"),
        ("logger", "plain.Sink", "is no Sink, see metarun/run/tracking/sink.py; it has no method finish"),
    ],
)
def test_a_class_that_cannot_be_used_is_told_in_one_line(
    kind: str, target: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    found = str(find_problem(kind, f"{kind}._target_", target))
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)
    assert said in found
    assert "\n" not in found


def test_a_yaml_that_is_not_used_since_metarun_has_one_of_that_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "maml.yaml").write_text("_target_: mine.Mine\n")
    check_own_names({"algo": "protonet", "data": "glyphs"}, [str(tmp_path)])
    with pytest.raises(ConfigError, match=r"algo=maml is metarun's, and .*maml.yaml is not used: give yours another"):
        check_own_names({"algo": "maml"}, [str(tmp_path)])


def test_a_yaml_that_lies_here_is_pointed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "algo").mkdir(parents=True)
    (tmp_path / "mine" / "algo" / "soft.yaml").write_text("_target_: soft.Soft\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no algo=soft; mine/algo/soft.yaml is found with --config-dir mine"):
        compose(["algo=soft"])
