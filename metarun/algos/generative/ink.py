"""How likely the ink of an image is, given the strokes of another drawing of the same character."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

AREA = 4.0
"""Of an image, whose coordinates are in -1..1."""


class Beads(NamedTuple):
    """Points on the strokes of N drawings: places [N, K, 2], and the stroke of each as one-hot [N, K, S]."""

    places: Tensor
    strokes: Tensor


class Ink(NamedTuple):
    """Ink of Q images: places of pixels [Q, M, 2], and 1 where there is one, 0 where a row is filled up [Q, M]."""

    places: Tensor
    there: Tensor


class InkModel(nn.Module):
    """The law of a drawing's ink given the strokes of its character, with parameters that are learned.

    A drawing moves the whole character by a linear map, I + D, and a shift, and each stroke by a shift of its own, all
    Gaussian; the pen then leaves ink around K beads along the strokes, each pixel from one of them, Gaussian around it,
    or anywhere in the image. Pixels count as independent.

    The integral over movements has no closed form, since it is not known which bead a pixel is from. `bound` is a lower
    bound by variational inference: q(movement) q(beads), found by rounds of coordinate ascent from no movement, with a
    pen that is wide at first. It is exact with one bead and no stray ink.

    Args:
        strokes: S.
        rounds: of coordinate ascent.
    Reference: the ink as Gaussians on a deformed spline, Revow, Williams, Hinton. Using Generative Models for
        Handwritten Digit Recognition. PAMI 1996; the bound, Attias. A Variational Bayesian Framework for Graphical
        Models. NIPS 1999.
    """

    def __init__(self, strokes: int, rounds: int) -> None:
        super().__init__()
        self.strokes, self.rounds = strokes, rounds
        self.log_pen = nn.Parameter(torch.tensor(math.log(0.1)))
        self.stray = nn.Parameter(torch.tensor(-3.0))  # logit of the share of ink from anywhere
        self.log_bend = nn.Parameter(torch.tensor(math.log(0.2)))  # standard deviations: of the numbers of D,
        self.log_shift = nn.Parameter(torch.tensor(math.log(0.2)))  # of the whole character's shift,
        self.log_stroke = nn.Parameter(torch.tensor(math.log(0.1)))  # and of a stroke's own

    def precisions(self) -> Tensor:
        """Return the prior precisions of a movement's rows [3 + S]: of D, the shift, and each stroke's shift."""
        logs = [self.log_bend.expand(2), self.log_shift.expand(1), self.log_stroke.expand(self.strokes)]
        return torch.exp(-2 * torch.cat(logs))

    def bound(self, ink: Ink, beads: Beads) -> Tensor:
        """Return a lower bound of log p(ink | beads) in nats, for each image and each drawing: [Q, N].

        Its gradient takes q as a constant, which is right at the best q.
        """
        ones = torch.ones_like(beads.places[..., :1])
        rows = torch.cat([beads.places, ones, beads.strokes], -1)  # [N, K, D]
        precision = self.precisions()
        with torch.no_grad():
            moved, spread = self._infer(ink, beads, rows, precision)
        total = self._share(ink, beads, rows, moved, spread, self.log_pen)[0]
        fit = (total * ink.there[:, None]).sum(-1)
        return fit - _find_kl(moved, spread, precision)

    def _infer(self, ink: Ink, beads: Beads, rows: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Infer q(movement): means [Q, N, D, 2], and the covariance [Q, N, D, D] of each of their columns."""
        pairs = (len(ink.places), len(rows))
        moved = rows.new_zeros(*pairs, rows.shape[-1], 2)
        spread = rows.new_zeros(*pairs, rows.shape[-1], rows.shape[-1])
        for number in range(self.rounds):
            wider = 1.5 * max(0.0, 1 - 2 * number / self.rounds)  # of the first half of the rounds
            log_pen = self.log_pen + wider
            owned = self._share(ink, beads, rows, moved, spread, log_pen)[1] * ink.there[:, None, :, None]
            by_bead, scale = owned.sum(2), torch.exp(-2 * log_pen)  # [Q, N, K]
            pulled = torch.einsum("qnmk,qmd->qnkd", owned, ink.places) - by_bead[..., None] * beads.places
            found = torch.diag(precision) + scale * torch.einsum("qnk,nkd,nke->qnde", by_bead, rows, rows)
            spread = torch.linalg.inv(found)
            moved = spread @ (scale * torch.einsum("nkd,qnkc->qndc", rows, pulled))
        return moved, spread

    def _share(
        self, ink: Ink, beads: Beads, rows: Tensor, moved: Tensor, spread: Tensor, log_pen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the expected log-density of each pixel [Q, N, M] given the best q(beads), and that [Q, N, M, K]."""
        places = beads.places + torch.einsum("nkd,qndc->qnkc", rows, moved)  # [Q, N, K, 2]
        unsure = 2 * torch.einsum("nkd,qnde,nke->qnk", rows, spread, rows)
        squared = torch.cdist(ink.places[:, None], places).square() + unsure[:, :, None]  # [Q, N, M, K]
        each = -math.log(rows.shape[1]) - 0.5 * squared * torch.exp(-2 * log_pen) - math.log(2 * math.pi) - 2 * log_pen
        each = each + nn.functional.logsigmoid(-self.stray)
        anywhere = nn.functional.logsigmoid(self.stray) - math.log(AREA)
        total = torch.logaddexp(each.logsumexp(-1), anywhere)
        return total, torch.exp(each - total[..., None])


def _find_kl(moved: Tensor, spread: Tensor, precision: Tensor) -> Tensor:
    """Return KL(q(movement) || p(movement)) [Q, N], of both columns together."""
    trace = (spread.diagonal(dim1=-2, dim2=-1) * precision).sum(-1)
    length = (moved.square() * precision[:, None]).sum((-2, -1))
    logs = torch.linalg.slogdet(spread)[1] + precision.log().sum()
    kl: Tensor = trace + 0.5 * length - len(precision) - logs
    return kl
