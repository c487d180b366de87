from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import numpy as np
import torch

from metarun.core.episodes import Floats
from metarun.core.ranges import CountsWith, Interval, NonNegativeFloat, check_choice
from metarun.core.tasks import EpisodePlan
from metarun.data.functions import FunctionTasks, read_interval, stretch, to_normal
from metarun.ops.gaussian_process import Kernel, Prior


class GaussianProcess(FunctionTasks):
    """Functions from a Gaussian process of mean zero. Support and query points are both observed with noise.

    The prior is known, so `algo=gp_oracle` computes the best possible prediction.

    Args:
        plan, device: from the runner.
        kernel, length_scale, scale, period, noise: see Prior in metarun/ops/gaussian_process.py.
        x: least and greatest input.
    Reference: Garnelo et al. Conditional Neural Processes. ICML 2018. arXiv:1807.01613, section 4.1.
    """

    numbers = 3
    point_numbers = 2
    kinds = ("regression", "gaussian process")

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        kernel: Kernel,
        length_scale: Interval,
        scale: Interval,
        period: Annotated[Interval, CountsWith("kernel", ("periodic",))],
        noise: NonNegativeFloat,
        x: Interval,
    ) -> None:
        check_choice("data.kernel", kernel, Kernel)
        ranges = {"length_scale": length_scale, "scale": scale, "period": period}
        low_high = {name: read_interval(name, ends) for name, ends in ranges.items()}
        for name, (low, _) in low_high.items():
            if low <= 0:
                raise ValueError(f"data.{name}={list(ranges[name])} must be above 0")
        if noise <= 0:
            raise ValueError(f"data.noise={noise} must be above 0: points without noise leave no density to score")
        self.prior, self.x = Prior(kernel, **low_high, noise=noise), read_interval("x", x)
        super().__init__(plan, device, {**asdict(self.prior), "x": self.x})
        self.info = replace(self.info, prior=self.prior)

    def points(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        hyper = np.concatenate([stretch(u[:, i : i + 1], *ends) for i, ends in enumerate(self.prior.ranges)], axis=1)
        x = stretch(v[:, 0], *self.x)  # [B, P]
        covariance = self.prior.covariance(torch.from_numpy(hyper), torch.from_numpy(x)[..., None])
        root = torch.linalg.cholesky(covariance)  # [B, P, P]
        return x, (root @ torch.from_numpy(to_normal(v[:, 1]))[..., None])[..., 0].numpy()
