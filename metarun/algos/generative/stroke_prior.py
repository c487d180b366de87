from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from metarun.algos.base.gaussian import log_normal
from metarun.algos.generative.strokes import Floats, resample

STEPS = 7
"""Steps of equal length along a stroke."""


class StrokePrior(nn.Module):
    """The law of a character's strokes, with parameters that are learned.

    It has 1 to S strokes, each with its probability. A stroke starts at a Gaussian place and takes STEPS steps: the
    first is Gaussian, each later one `keep` times the one before plus a Gaussian bend. Strokes are independent.

    Args:
        strokes: S.
    """

    def __init__(self, strokes: int) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.zeros(strokes))  # logits
        self.log_start = nn.Parameter(torch.tensor(math.log(0.5)))
        self.log_first = nn.Parameter(torch.tensor(math.log(0.1)))
        self.keep = nn.Parameter(torch.tensor(0.5))
        self.log_bend = nn.Parameter(torch.tensor(math.log(0.1)))

    def log_density(self, characters: list[list[Floats]]) -> Tensor:
        """Return log p of each character's strokes, in nats per number that describes them."""
        found = []
        for strokes in characters:
            points = torch.from_numpy(np.stack([resample(stroke, STEPS + 1) for stroke in strokes])).to(self.count)
            steps = points.diff(dim=1)  # [strokes, STEPS, 2]
            parts = (
                log_normal(points[:, 0], self.log_start),
                log_normal(steps[:, 0], self.log_first),
                log_normal(steps[:, 1:] - self.keep * steps[:, :-1], self.log_bend),
            )
            number = self.count.log_softmax(0)[len(strokes) - 1]
            found.append((sum(part.sum() for part in parts) + number) / points.numel())
        return torch.stack(found)

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> list[Floats]:
        """Draw a character."""
        n = 1 + int(torch.multinomial(self.count.softmax(0).cpu(), 1, generator=generator))
        noise = torch.randn(n, STEPS + 1, 2, generator=generator).to(self.count)
        places = [self.log_start.exp() * noise[:, 0]]
        step = self.log_first.exp() * noise[:, 1]
        for number in range(STEPS):
            step = step if number == 0 else self.keep * step + self.log_bend.exp() * noise[:, number + 1]
            places.append(places[-1] + step)
        return [*torch.stack(places, 1).double().cpu().numpy()]
