from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from metarun.algos.gradient.maml import MAML, Adapted, MAMLSettings
from metarun.core.ranges import NonNegativeFloat, PositiveInt
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params, call, unflatten, within


class HSML(MAML):
    """MAML whose initial weights are gated by what kind of task it is, read from the support set.

    The support points are embedded and averaged to a task embedding; soft clusters, a tree of them, refine it; a
    sigmoid of both gates each initial weight, and MAML goes on from there. An autoencoder of the points keeps the
    embedding telling. The paper also has a recurrent autoencoder; the mean does not depend on the points' order.

    Shapes: as MAML, of functions.
    Args:
        input_shape, backbone, outputs, objective: as for MAML.
        hidden: size of a task embedding.
        clusters: of each level of the tree, from the leaves to the root; the paper's is 4, 2, 1.
        reconstruction: weight of the autoencoder's squared error in the meta-loss, >= 0.
        settings: see MAMLSettings.
    Reference: Yao, Wei, Huang, Li. Hierarchically Structured Meta-learning. ICML 2019. arXiv:1905.05301, equations 4
        to 10.
    """

    kinds = ("regression",)
    goal = "goal"

    def __init__(
        self,
        input_shape: tuple[int, ...],
        backbone: nn.Module,
        outputs: int,
        objective: Objective,
        *,
        hidden: PositiveInt,
        clusters: list[PositiveInt],
        reconstruction: NonNegativeFloat,
        **settings: Unpack[MAMLSettings],
    ) -> None:
        super().__init__(backbone, outputs, objective, **settings)
        self.reconstruction = reconstruction
        seen = torch.Size(input_shape).numel() + outputs
        self.encoder = nn.Sequential(nn.Linear(seen, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.decoder = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, seen))
        self.tree = Tree(hidden, clusters)
        self.gate = nn.Linear(2 * hidden, sum(value.numel() for value in self.net.parameters()))
        nn.init.constant_(self.gate.bias, 2.0)  # gates begin at 0.9: near MAML, and not yet flat

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        net = within(params, "net")
        gates = self.find_gates(params, support)
        return self.adapt_from({name: value * gates[name] for name, value in net.items()}, support, params)

    def find_gates(self, params: Params, support: Examples) -> Params:
        """Return a factor in 0..1 for each of the network's parameters."""
        points = call(self.encoder, within(params, "encoder"), _join(support))
        task = points.mean(0)
        root = call(self.tree, within(params, "tree"), task)
        flat = call(self.gate, within(params, "gate"), torch.cat([task, root])).sigmoid()  # equation 8
        return unflatten(flat, within(params, "net"))

    def score(self, params: Params, state: Adapted, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        scores = super().score(params, state, output, y)
        if not self.training:
            return scores
        points = _join(state.support)
        again = call(self.decoder, within(params, "decoder"), call(self.encoder, within(params, "encoder"), points))
        error = (again - points).square().mean()
        return scores | {"goal": scores["loss"] + self.reconstruction * error, "reconstruction": error}  # equation 9


class Tree(nn.Module):
    """From a task embedding [H] to its place in a tree of soft clusters [H].

    Reference: the same, equations 5 and 6.
    """

    def __init__(self, hidden: int, clusters: list[int]) -> None:
        super().__init__()
        self.clusters = clusters
        self.centres = nn.ParameterList(torch.randn(count, hidden) for count in clusters if count > 1)
        self.maps = nn.ModuleList(nn.Linear(hidden, hidden) for _ in clusters)

    def forward(self, task: Tensor) -> Tensor:
        below = task[None]  # [1, H]
        centres = iter(self.centres)
        for count, layer in zip(self.clusters, self.maps, strict=True):
            share = torch.ones_like(below[:, :1])  # [K', K], of a single cluster
            if count > 1:
                share = torch.softmax(-(below[:, None] - next(centres)).square().sum(-1) / 2, -1)
            below = share.T @ layer(below).tanh()  # [K, H]
        return below.sum(0)


def _join(support: Examples) -> Tensor:
    return torch.cat([support.x.flatten(1), support.y], -1)
