from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.metric import MetricLearner
from metarun.algos.metric.relationnet import FeatureMap
from metarun.core.ranges import NonNegativeInt, PositiveFloat
from metarun.ops.functional import Params


class FRN(MetricLearner):
    """Learns an embedding in which a query's map is rebuilt best from the maps of its own class's support images.

    The positions of a query's map are written as sums of the positions of all support maps of a class, by ridge
    regression in closed form; the class that leaves the smallest error wins. Penalty, length of what is rebuilt and the
    scale of the errors are learned, as logarithms. Maps are divided by the root of their number of channels, as in the
    paper's code. Its auxiliary loss, which spreads classes apart, is left out.

    Shapes: support.x [S, C, H, W], support.y [S] int64 in 0..N-1; predicts logits [M, N].
    Args:
        backbone: has a `feature_map` from inputs to maps [R, c, h, w] of `map_shape` c, h, w; without one, its
            embedding counts as a map of one pixel.
        scale: factor of the errors to start from, > 0 (gamma in the paper).
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Wertheimer, Tang, Hariharan. Few-Shot Classification with Feature Map Reconstruction Networks. CVPR 2021.
        arXiv:2012.01506, equations 1 to 8.
    """

    recordable = True

    def __init__(self, backbone: nn.Module, scale: PositiveFloat, engine: Engine, task_chunk: NonNegativeInt) -> None:
        super().__init__(FeatureMap(backbone), engine, task_chunk)
        self.penalty = nn.Parameter(torch.zeros(()))  # alpha in the paper
        self.length = nn.Parameter(torch.zeros(()))  # beta
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def compare(self, params: Params, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        seen, asked = (maps.flatten(2).mT / math.sqrt(maps.shape[1]) for maps in (support, query))  # [R, h w, c]
        places, channels = seen.shape[1:]
        rebuild = make_rebuilders(seen, classes, places / channels * params["penalty"].exp())  # [N, c, c]
        rebuilt = params["length"].exp() * torch.einsum("mrc,ncd->mnrd", asked, rebuild)  # equation 8
        errors = (asked[:, None] - rebuilt).square().sum(-1).mean(-1)  # [M, N], equation 4
        return -params["log_scale"].exp() * errors


def make_rebuilders(seen: Tensor, classes: Tensor, penalty: Tensor) -> Tensor:
    """Make a matrix for each class, [N, c, c], that turns the rows [., c] of a map into what the class makes of them.

    It is (S'S + k penalty)^-1 S'S for the k maps of a class, whose rows are S. So classes may be of any size.

    Args:
        seen: support maps [S, h w, c].
        classes: one-hot [S, N].
        penalty: for each map of the class.
    """
    products = torch.einsum("sn,sij->nij", classes, seen.mT @ seen)  # [N, c, c]
    ridge = (penalty * classes.sum(0))[:, None, None] * torch.eye(seen.shape[-1], dtype=seen.dtype, device=seen.device)
    rebuilders: Tensor = torch.linalg.solve_ex(products + ridge, products).result
    return rebuilders
