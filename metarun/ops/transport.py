"""Optimal transport of rows to columns with given sums."""

from __future__ import annotations

import torch
from torch import Tensor

from metarun.ops.functional import softmax


def balance_columns(logits: Tensor, steps: int, start: Tensor | None = None) -> Tensor:
    """Return what to add to the columns [..., N] of logits [..., M, N] so that the rows' softmax fills all equally.

    The softmax of the sum is the plan of optimal transport, with a penalty on its entropy, whose rows sum to 1 and
    whose columns to M / N. The answer is the minimum of a convex function of N numbers: the sum of the rows' logsumexp
    minus M / N times the numbers' sum. Each of the `steps` takes Sinkhorn's (Cuturi 2013) and Newton's, and keeps the
    one that leaves the sums nearer to what they should be: the first never fails, the second is fast at the end. They
    go on from `start`, the answer for similar logits.
    """
    rows, columns = logits.shape[-2:]
    wanted = rows / columns
    added = torch.zeros_like(logits[..., 0, :]) if start is None else start
    pinned = torch.ones(columns, columns, dtype=logits.dtype, device=logits.device)  # a common shift changes nothing
    tiny = torch.finfo(logits.dtype).tiny
    for _ in range(steps):
        plan = softmax(logits + added[..., None, :])
        full = plan.sum(-2)
        curvature = torch.diag_embed(full) - plan.mT @ plan
        newton = added + torch.linalg.solve_ex(curvature + pinned, wanted - full).result
        sinkhorn = added + (wanted / full.clamp_min(tiny)).log()
        missed = [
            (softmax(logits + one[..., None, :]).sum(-2) - wanted).abs().amax(-1, keepdim=True)
            for one in (sinkhorn, newton)
        ]
        better = missed[1] < missed[0]  # a number that is not finite is not better
        added = torch.where(better, newton, sinkhorn)
    return added
