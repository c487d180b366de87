"""Reference and derived tests in float64 of what makes each metric learner itself."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from test_gradients import batch, conv4, furthest, meta_gradient
from torch import Tensor, nn

from metarun.algos.base.metric import MetricLearner
from metarun.algos.metric.feat import FEAT
from metarun.algos.metric.frn import FRN
from metarun.algos.metric.matchingnet import FullContext, MatchingNet
from metarun.algos.metric.metaoptnet import MetaOptNet, solve_crammer_singer
from metarun.algos.metric.protonet import ProtoNet
from metarun.algos.metric.r2d2 import R2D2, solve_ridge_regression
from metarun.algos.metric.relationnet import RelationNet
from metarun.backbones.conv4 import Conv4
from metarun.core.tasks import Examples
from metarun.ops.lstm import LSTMCell

pytestmark = pytest.mark.usefixtures("doubles")

LEARNERS = {
    "matchingnet": lambda bn, chunk: MatchingNet(conv4(bn), False, 2, 0.5, "auto", chunk),
    "matchingnet with context": lambda bn, chunk: MatchingNet(conv4(bn), True, 2, 0.5, "auto", chunk),
    "relationnet": lambda bn, chunk: RelationNet(conv4(bn), bn, 4, 3, "mse", "auto", chunk),
    "r2d2": lambda bn, chunk: R2D2(conv4(bn), 0.5, 2.0, "auto", chunk),
    "feat": lambda bn, chunk: FEAT(conv4(bn), 2.0, 0.0, "auto", chunk),
    "frn": lambda bn, chunk: FRN(conv4(bn), 3.0, "auto", chunk),
    "metaoptnet": lambda bn, chunk: MetaOptNet(conv4(bn), 0.5, 1.0, 20, 2.0, "auto", chunk),
}


def made(name: str, bn: str, chunk: int) -> MetricLearner:
    learner: MetricLearner = LEARNERS[name](bn, chunk)
    torch.manual_seed(2)  # the weights that conv4() does not draw
    for key, value in learner.named_parameters():
        if not key.startswith("backbone"):
            nn.init.normal_(value, std=0.3)
    return learner


@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_loop_over_tasks_and_vmap_give_the_same_gradient_and_scores(name: str, bn: str) -> None:
    loop, together, tasks = made(name, bn, 1), made(name, bn, 4), batch()
    assert furthest(meta_gradient(together, tasks), meta_gradient(loop, tasks)) < 1e-9
    assert furthest(together.eval().evaluate(tasks), loop.eval().evaluate(tasks)) < 1e-9


def test_feat_fits_the_means_of_a_task_to_each_other_before_the_nearest_counts() -> None:
    """Mean by mean, as the equations have it; with nothing taken from others they are normalised alone."""
    learner = FEAT(Identity(6), 2.0, 0.5, "auto", 1).eval()
    torch.manual_seed(3)
    support, query, y = torch.randn(8, 6), torch.randn(5, 6), torch.arange(4).repeat(2)
    for values in learner.parameters():
        nn.init.normal_(values)
    layers, means = learner.attention, [support[y == c].mean(0) for c in range(4)]
    expected = torch.empty(5, 4)
    for c, mean in enumerate(means):
        near = torch.stack([(layers.query.weight @ mean) @ (layers.key.weight @ other) for other in means]) / 6**0.5
        taken = sum(share * layers.value.weight @ other for share, other in zip(near.softmax(0), means, strict=True))
        moved = mean + layers.out.weight @ taken + layers.out.bias
        normal = (moved - moved.mean()) / (moved.var(unbiased=False) + 1e-5).sqrt()
        adapted = normal * layers.norm.weight + layers.norm.bias
        expected[:, c] = -(query - adapted).square().sum(-1) / 2.0
    classes = F.one_hot(y, 4).to(support.dtype)
    assert torch.allclose(learner.compare(learner.theta(), support, classes, query), expected)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(learner.compare(learner.theta(), support, classes[:, order], query), expected[:, order])


def test_frn_rebuilds_a_query_from_each_class_by_ridge_regression() -> None:
    """Class by class and place by place, by least squares over the rows of a class's maps; classes of 1 and 3 maps."""
    learner = FRN(Square(6, 2), 3.0, "auto", 1)
    torch.manual_seed(3)
    support, query, y = torch.randn(4, 6, 2, 2), torch.randn(5, 6, 2, 2), torch.tensor([0, 1, 1, 1])
    with torch.no_grad():
        learner.penalty.fill_(0.3)
        learner.length.fill_(-0.2)
    expected = torch.empty(5, 2)
    for c in range(2):
        rows = support[y == c].movedim(1, -1).reshape(-1, 6) / 6**0.5  # [k h w, c]
        ridge = len(rows) / 6 * torch.tensor(0.3).exp()
        stacked = torch.cat([rows.T, ridge.sqrt() * torch.eye(len(rows))])
        for m, one in enumerate(query.movedim(1, -1).reshape(5, 4, 6) / 6**0.5):
            weights = torch.linalg.lstsq(stacked, torch.cat([one.T, torch.zeros(len(rows), 4)])).solution
            rebuilt = torch.tensor(-0.2).exp() * weights.T @ rows
            expected[m, c] = -3.0 * (one - rebuilt).square().sum() / 4
    classes = F.one_hot(y, 2).to(support.dtype)
    assert torch.allclose(learner.compare(learner.theta(), support, classes, query), expected)


def test_an_outer_step_holds_the_graph_of_one_chunk_of_tasks() -> None:
    most = {}
    for n_tasks in (1, 8):
        learner, held = made("r2d2", "transductive", 1), Held()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, held.unpack):
            meta_gradient(learner, batch(n_tasks))
        most[n_tasks] = held.most
    assert most[8] == most[1] > 0


class Held:
    """Counts the tensors that graphs hold for their backward pass."""

    def __init__(self) -> None:
        self.live = self.most = 0

    def pack(self, tensor: Tensor) -> list[Tensor]:
        self.live += 1
        self.most = max(self.most, self.live)
        box = Box([tensor])
        weakref.finalize(box, self.drop)
        return box

    def drop(self) -> None:
        self.live -= 1

    def unpack(self, box: list[Tensor]) -> Tensor:
        return box[0]


class Box(list[Tensor]):
    """A list that can be watched."""


@pytest.mark.parametrize("name", LEARNERS)
def test_the_comparison_has_the_gradient_of_finite_differences(name: str) -> None:
    learner = made(name, "transductive", 1)
    shape = (6, 2, 2) if name in ("relationnet", "frn") else (6,)
    support, query = (torch.randn(rows, *shape).requires_grad_() for rows in (4, 3))
    classes, params = F.one_hot(torch.tensor([0, 1, 0, 1])).double(), dict(learner.named_parameters())
    assert torch.autograd.gradcheck(lambda s, q: learner.compare(params, s, classes, q), (support, query))


def logits(learner: MetricLearner, support: list[list[float]], y: list[int], query: list[list[float]]) -> Tensor:
    params = dict(learner.named_parameters())
    state = learner.adapt(params, Examples(torch.tensor(support), torch.tensor(y)), max(y) + 1)
    return learner.predict(params, state, torch.tensor(query))


def test_matchingnet_sums_the_attention_of_each_class() -> None:
    """Cosines of the query (1, 0) to (3, 0), (0, 1), (0, 5) are 1, 0, 0; classes 0, 0, 1; at temperature 0.5 the
    attention is exp(2), 1, 1 over exp(2) + 2, so P = (exp(2) + 1, 1) / (exp(2) + 2)."""
    learner = MatchingNet(Identity(2), False, 1, 0.5, "auto", 1)
    got = logits(learner, [[3.0, 0], [0, 1], [0, 5]], [0, 0, 1], [[1.0, 0]])
    e = torch.tensor(2.0).exp()
    assert torch.allclose(got.exp(), torch.stack([e + 1, torch.tensor(1.0)]) / (e + 2))


def test_matchingnet_reads_the_support_set_as_torchs_lstm_does() -> None:
    torch.manual_seed(0)
    context, support = FullContext(3, 1), torch.randn(5, 3)
    lstm = nn.LSTM(3, 3, bidirectional=True)
    for cell, suffix in ((context.forwards, ""), (context.backwards, "_reverse")):
        copy_into(lstm, cell, f"_l0{suffix}", 3)
    expected = lstm(support)[0].reshape(5, 2, 3).sum(1) + support
    assert torch.allclose(context(support, torch.zeros(1, 3))[0], expected)


def test_matchingnet_attends_to_the_support_set_as_the_paper_writes_it() -> None:
    """Appendix A.1, query by query, with the gates in the order input, forget, new, output."""
    torch.manual_seed(0)
    context, support, query = FullContext(3, 2), torch.randn(5, 3), torch.randn(4, 3)
    embedded, got = context(support, query)
    gates = context.attending.gates
    for x, row in zip(query, got, strict=True):
        hidden = cell = torch.zeros(3)
        for _ in range(2):
            attention = torch.stack([hidden @ g for g in embedded]).exp()
            read = sum(a * g for a, g in zip(attention, embedded, strict=True)) / attention.sum()
            i, f, g, o = (gates.weight @ torch.cat([x, hidden, read]) + gates.bias).reshape(4, 3)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell) + x
        assert torch.allclose(row, hidden)


def copy_into(lstm: nn.LSTM, cell: LSTMCell, suffix: str, features: int) -> None:
    with torch.no_grad():
        getattr(lstm, f"weight_ih{suffix}").copy_(cell.gates.weight[:, :features])
        getattr(lstm, f"weight_hh{suffix}").copy_(cell.gates.weight[:, features:])
        getattr(lstm, f"bias_ih{suffix}").copy_(cell.gates.bias)
        getattr(lstm, f"bias_hh{suffix}").zero_()


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_relationnet_is_its_paper_written_as_loops(loss: str) -> None:
    """Each query's map with each class's summed map, one pair after the other, then one pass for the statistics."""
    torch.manual_seed(1)
    learner = RelationNet(
        Conv4((1, 28, 28), "transductive", 6, "pool", halvings=2), "transductive", 4, 3, loss, "auto", 1
    )
    tasks = batch(1)
    x, y, query = tasks.support.x[0], tasks.support.y[0], tasks.query.x[0]
    maps = learner.backbone.backbone.blocks(torch.cat([x, query]))
    assert maps.shape[1:] == (6, 7, 7)
    pairs = [
        torch.cat([maps[: len(y)][y == c].sum(0), query_map])
        for query_map in maps[len(y) :]
        for c in range(tasks.n_way)
    ]
    scores = learner.relation(torch.stack(pairs)).reshape(len(query), tasks.n_way)
    right = tasks.query.y[0]
    if loss == "mse":
        each = [
            (torch.sigmoid(scores[q, c]) - float(right[q] == c)) ** 2
            for q, c in torch.cartesian_prod(torch.arange(len(query)), torch.arange(tasks.n_way))
        ]
        expected = torch.stack(each).mean()
    else:
        expected = F.cross_entropy(scores, right)
    assert torch.allclose(learner.train().meta_loss(tasks)[0], expected, rtol=1e-12)


def test_relationnet_pools_what_is_larger_than_a_pixel() -> None:
    layers = {}
    for side in (1, 2, 3, 7):
        learner = RelationNet(Square(5, side), "transductive", 4, 3, "mse", "auto", 1)
        layers[side] = sum(isinstance(layer, nn.MaxPool2d) for layer in learner.relation)
        assert learner.relation(torch.zeros(2, 10, side, side)).shape == (2, 1)
    assert layers == {1: 0, 2: 1, 3: 1, 7: 2}


def test_relationnet_takes_features_that_are_no_map_for_the_channels_of_a_pixel() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(9, 5))
    backbone.out_features = 5  # type: ignore[assignment]
    learner = RelationNet(backbone, "transductive", 4, 3, "mse", "auto", 1)
    assert learner.backbone(torch.zeros(2, 1, 3, 3)).shape == (2, 5, 1, 1)
    assert [layer.weight.shape for layer in learner.relation if isinstance(layer, nn.Conv2d)] == [
        (4, 10, 3, 3),
        (4, 4, 3, 3),
    ]


@pytest.mark.parametrize(("rows", "features"), [(4, 7), (7, 4), (5, 5)])
def test_ridge_regression_is_the_minimum(rows: int, features: int) -> None:
    """The gradient of |xW - y|^2 + r |W|^2, written out as 2 x^T (xW - y) + 2 r W, is zero there."""
    torch.manual_seed(0)
    x, y, ridge = torch.randn(rows, features), torch.randn(rows, 3), torch.tensor(0.3)
    weights = solve_ridge_regression(x, y, ridge)
    assert torch.allclose(x.T @ (x @ weights - y) + ridge * weights, torch.zeros(features, 3), atol=1e-12)


def test_a_ridge_regression_without_an_answer_has_none() -> None:
    """Of two images that are the same, without a penalty: neither weights nor what follows from them are numbers."""
    x, y = torch.ones(2, 3), torch.eye(2)
    assert not solve_ridge_regression(x, y, torch.tensor(0.0)).isfinite().any()
    assert not solve_ridge_regression(torch.zeros(3, 2), torch.ones(3, 2), torch.tensor(0.0)).isfinite().any()


def test_r2d2_on_two_orthogonal_images() -> None:
    """x = diag(2, 1), y = identity, ridge 1: W = diag(2 / (4 + 1), 1 / (1 + 1)); query (5, 4) and scale 3."""
    learner = R2D2(Identity(2), 1.0, 3.0, "auto", 1)
    got = logits(learner, [[2.0, 0], [0, 1]], [0, 1], [[5.0, 4]])
    assert torch.allclose(got, torch.tensor([[3 * 2.0, 3 * 2.0]]))


@pytest.mark.parametrize(("penalty", "expected"), [(1.0, 0.1), (0.05, 0.05)])
def test_the_support_vector_machine_of_two_orthogonal_images(penalty: float, expected: float) -> None:
    """With gram 5 I and one image a class, alpha = [[a, -a], [-a, a]] by symmetry, and the dual is
    5 * 4 a^2 / 2 - 2 a, least at a = 1/10, or at the penalty if that is less."""
    alpha = solve_crammer_singer(5 * torch.eye(2), torch.eye(2), penalty, 20)
    assert torch.allclose(alpha, torch.tensor([[expected, -expected], [-expected, expected]]), atol=1e-8)


@pytest.mark.parametrize(("damping", "expected"), [(1.0, 0.6), (6.0, 0.3)])
def test_metaoptnet_damps_the_gram_matrix_of_its_support_set(damping: float, expected: float) -> None:
    """Images (2, 0) and (0, 2) have gram 4 I: with damping d, alpha is a = 1 / (8 + 2 d) as above, 1/10 or 1/20; so
    w_0 = a (2, 0) - a (0, 2) and w_1 = -w_0, and the query (1, 0) times 3 has 6 a and -6 a."""
    learner = MetaOptNet(Identity(2), 1.0, damping, 20, 3.0, "auto", 1)
    got = logits(learner, [[2.0, 0], [0, 2]], [0, 1], [[1.0, 0]])
    assert torch.allclose(got, torch.tensor([[expected, -expected]]), atol=1e-7)


@pytest.mark.parametrize(
    ("rows", "features", "penalty", "damping"), [(6, 4, 0.1, 1.0), (9, 20, 5.0, 0.1), (9, 2, 50, 0.01)]
)
def test_the_support_vector_machine_is_scipys_optimum(rows: int, features: int, penalty: float, damping: float) -> None:
    torch.manual_seed(0)
    x, classes = torch.randn(rows, features), F.one_hot(torch.arange(rows) % 3).double()
    gram = x @ x.T + damping * torch.eye(rows)
    alpha = solve_crammer_singer(gram, classes, penalty, 20)

    def dual(flat: np.ndarray) -> tuple[float, np.ndarray]:
        a = flat.reshape(rows, 3)
        return (a * (gram.numpy() @ a / 2 - classes.numpy())).sum(), (gram.numpy() @ a - classes.numpy()).ravel()

    sums = {"type": "eq", "fun": lambda flat: flat.reshape(rows, 3).sum(1)}
    bounds = [(None, penalty * one) for one in classes.flatten().tolist()]
    options = {"ftol": 1e-15, "maxiter": 1000}
    best = minimize(
        dual, np.zeros(3 * rows), jac=True, method="SLSQP", bounds=bounds, constraints=sums, options=options
    )
    assert (alpha <= penalty * classes + 1e-12).all()
    assert alpha.sum(1).abs().max() < 1e-12
    assert dual(alpha.numpy())[0] == pytest.approx(best.fun, abs=1e-8)
    assert np.abs(alpha.numpy().ravel() - best.x).max() < 1e-4


class Identity(nn.Module):
    """Embeddings are the inputs."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out_features = features

    def forward(self, x: Tensor) -> Tensor:
        return x


class Square(Identity):
    """Maps are the inputs."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(channels * side * side)
        self.map_shape = (channels, side, side)

    def feature_map(self, x: Tensor) -> Tensor:
        return x


def test_protonet_from_one_shot_by_cosine_goes_to_the_nearest_neighbour() -> None:
    learner = ProtoNet(conv4(), "cosine", 0.1, "auto", 1).eval()
    support, query = batch(1, k_shot=1).support, batch(1, k_shot=1).query
    embedded = learner.backbone(torch.cat([support.x[0], query.x[0]])).numpy(force=True)
    known, asked = embedded[: len(support.y[0])], embedded[len(support.y[0]) :]
    nearest = support.y[0].numpy()[cdist(asked, known, "cosine").argmin(1)]
    hits = (nearest == query.y[0].numpy()).mean()
    assert learner.evaluate(batch(1, k_shot=1))["accuracy"].item() == pytest.approx(hits)
