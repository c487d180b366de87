"""A linear classifier that learns from one example after the other, by a gradient step with each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from metarun.ops.functional import one_hot


class Head(NamedTuple):
    """A linear classifier of N classes: weight [N, D], bias [N]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits [R, N] for features [R, D]."""
        return linear(features, self.weight, self.bias)


def learn_in_order(head: Head, features: Tensor, y: Tensor, lr: float) -> Head:
    """Return the head after a step of size `lr` down the cross-entropy of each example, in their order.

    The step with features h_s is -lr e_s h_s' for the error e_s = softmax(logits) - one_hot(y_s), so the logits of a
    later example are those of the first head minus lr sum_s e_s (h_s' h + 1): no weights are kept in between.
    Derivatives go through all steps.

    Args:
        features: [S, D].
        y: [S] in 0..N-1.
    """
    logits, targets = head(features), one_hot(y, len(head.bias), features.dtype)  # [S, N] each
    products = features @ features.T + 1  # [S, S]; the 1 is the bias's
    errors: list[Tensor] = []
    for step, (first, target) in enumerate(zip(logits, targets, strict=True)):
        now = first - lr * (products[step, :step] @ torch.stack(errors)) if errors else first
        errors.append(now.softmax(-1) - target)
    every = torch.stack(errors)  # [S, N]
    return Head(head.weight - lr * (every.T @ features), head.bias - lr * every.sum(0))
