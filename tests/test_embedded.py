"""Tests of metric learners with fixed statistics: the same scores from images that are embedded once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import quick_if
from hydra.utils import get_object
from omegaconf import DictConfig
from test_contract import ALGOS, choices, parts_of

from metarun.algos.base.abilities import EncodesInputs
from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.metric import MetricLearner, Support
from metarun.algos.metric.protonet import ProtoNet
from metarun.algos.transfer.simpleshot import SimpleShot
from metarun.core.tasks import Batch, Examples
from metarun.data.augment import Look
from metarun.data.resize import Resized
from metarun.ops.functional import Params
from metarun.run.evaluation import evaluate
from metarun.run.interrupt import StopRequest

Settings = Callable[..., DictConfig]
METRIC = [
    name
    for name in ALGOS
    if issubclass(get_object(choices("algo")[name]["_target_"]), MetricLearner) and name not in ("metagan", "pmf")
]
"""But for those whose generated or changed images nobody can embed beforehand."""


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("algo", quick_if(("protonet", "zero_shot"), [*METRIC, "pt_map algo.features=centred"]))
def test_scores_of_images_embedded_once_are_those_of_images(settings: Settings, algo: str) -> None:
    """In float64, with and without turned classes, and with images that another source's network is fitted to."""
    rotation = {"protonet": "random", "simpleshot": "class"}.get(algo, "none")
    parts = parts_of(settings(*f"algo={algo}".split(), "bn=running", f"data.rotation={rotation}"))
    learner, source = parts.learner, parts.source
    learner.train().meta_step(next(learner.train_stream(source, 0, 2)), parts.optims)
    for tasks in (source, Resized(source, source.info.input_shape, Look((0.3,), (0.5,)))):
        seen = []
        encode = learner.input_encoder()
        learner.input_encoder = lambda encode=encode, seen=seen: lambda x: seen.append(len(x)) or encode(x)
        images = len(source.find_rows("val")) * source.count_turns("val")
        shape = source.plan.test
        n = -(-images // (shape.n_way * (shape.k_shot + shape.n_query)))
        fast = evaluate(learner, tasks, "val", n, 20, StopRequest())
        learner.input_encoder = lambda: None
        slow = evaluate(learner, tasks, "val", n, 20, StopRequest())
        del learner.input_encoder
        assert sum(seen) == images
        assert fast.keys() == slow.keys()
        for name, values in slow.items():
            assert fast[name] == pytest.approx(values, rel=1e-9, abs=1e-12), name


class Shifted(ProtoNet):
    """Somebody's own: the support images are changed before they are embedded."""

    def adapt(self, params: Params, support: Examples, n_way: int) -> Support:
        return super().adapt(params, Examples(support.x.flip(-1) + 1, support.y), n_way)


class Asked(ProtoNet):
    """Likewise the query images."""

    def predict(self, params: Params, state: Support, x: torch.Tensor) -> torch.Tensor:
        return super().predict(params, state, x.flip(-1) + 1)


class Centred(SimpleShot):
    """Likewise embeddings, by all that come together."""

    def prepare(self, embedded: torch.Tensor) -> torch.Tensor:
        return super().prepare(embedded - embedded.mean(0))


@pytest.mark.parametrize("own", [Shifted, Asked, Centred])
def test_what_one_s_own_code_does_to_inputs_is_done_to_inputs_in_tests_too(
    settings: Settings, own: type[MetricLearner]
) -> None:
    """Below a method whose inputs are embedded once, as its own code allows."""
    parts = parts_of(settings(f"algo={own.__base__.__name__.lower()}", "bn=running"))
    learner = parts.learner.eval()
    learner.__class__ = own
    fast = evaluate(learner, parts.source, "val", 60, 20, StopRequest())
    learner.input_encoder = lambda: None
    slow = evaluate(learner, parts.source, "val", 60, 20, StopRequest())
    for name, values in slow.items():
        assert fast[name] == pytest.approx(values, rel=1e-4, abs=1e-5), name


BATCHED = [name for name in METRIC if vars(get_object(choices("algo")[name]["_target_"])).get("batched")]


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("algo", [*BATCHED, "pt_map algo.features=centred", "tim algo.distance=cosine"])
def test_many_embedded_tasks_are_answered_as_they_are_and_alike(
    settings: Settings, algo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without vmap, to 1e-12 of what each task is answered alone. A subclass, which may compare otherwise, has vmap."""
    learner = parts_of(settings(*f"algo={algo}".split(), "bn=running")).learner.eval()
    torch.manual_seed(1)
    centres = torch.rand(4, 5, 1, int(learner.backbone.out_features))
    x = centres + 0.5 * torch.rand(4, 5, 9, centres.shape[-1])  # [B, N, K + Q, D]
    y = torch.arange(5).repeat_interleave(9).view(5, 9).expand(4, 5, 9)
    support, query = (
        Examples(x[:, :, side].flatten(1, 2), y[:, :, side].flatten(1)) for side in (slice(2), slice(2, 9))
    )
    batch = Batch(support, query, 5)
    with learner.encoded(), torch.no_grad():
        state = learner.adapt(learner.theta(), support, 5)
        many = learner.predict(learner.theta(), state, query.x)
        for number, found in enumerate(many):
            one = [Examples(side.x[number], side.y[number]) for side in (support, query)]
            alone = learner.adapt_to(one[0], 5)(one[1].x)
            assert (found - alone).abs().max() <= 1e-12 * alone.abs().max().clamp_min(1)
        assert many.std() > 1e-3
        by_vmap = EpisodicLearner._score_together(learner, learner.theta(), batch).scores
        monkeypatch.setattr(torch.func, "vmap", None)
        scores = learner.evaluate(batch)
        assert scores.keys() == by_vmap.keys()
        for name, values in scores.items():
            assert torch.allclose(values, by_vmap[name], rtol=1e-12, atol=1e-12), name
        learner.__class__ = type("Mine", (type(learner),), {})
        with pytest.raises(TypeError):
            learner.evaluate(batch)


@pytest.mark.parametrize("bn", ["transductive", "support"])
def test_images_that_are_normalised_together_are_not_embedded_alone(settings: Settings, bn: str) -> None:
    assert parts_of(settings("algo=protonet", f"bn={bn}")).learner.input_encoder() is None
    assert not isinstance(parts_of(settings("algo=maml", "bn=running")).learner, EncodesInputs)


def test_few_tasks_and_large_embeddings_are_left_as_images(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    source = parts_of(settings("algo=protonet", "bn=running")).source
    assert source.embedded("test", lambda x: x, 1) is None
    assert source.embedded("test", lambda x: x, 1000) is not None
    size = len(source.find_rows("test")) * source.count_turns("test") * 28 * 28 * 4
    for room, fits in ((size, True), (size - 1, False), (10, False)):
        monkeypatch.setattr("metarun.data.embedded.MAX_BYTES", room)
        assert (source.embedded("test", lambda x: x, 1000) is not None) == fits


def test_the_learner_is_as_before_when_a_test_ends_early(settings: Settings) -> None:
    learner = parts_of(settings("algo=protonet", "bn=running")).learner
    learner.record("replay")
    before = learner.backbone, learner.task_chunk, learner.recorder

    def ends_early() -> None:
        with learner.encoded():
            assert isinstance(learner.backbone, torch.nn.Identity)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ends_early()
    assert before[2] is not None
    assert (learner.backbone, learner.task_chunk, learner.recorder) == before
