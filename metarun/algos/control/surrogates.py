"""What an inner step of policies ascends: functions with the gradient of the expected return, and some with its second.

With r_t = pi(a_t) / stop(pi(a_t)), all have the same first derivative, sum over t of grad log pi(a_t) A_t. The second
derivative of the expected return has three parts (Rothfuss 2019, equation 6): H1 of products of gradients of one step,
H2 of second derivatives of log pi, and H12 of gradients of later steps through the actions that led there.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Surrogate = Literal["ratio", "log_prob", "dice"]


def find_surrogate(form: Surrogate, log_probs: Tensor, before: Tensor, advantages: Tensor, alive: Tensor) -> Tensor:
    """Return the mean over the steps of each task, [B].

    `ratio` is the low-variance curvature estimator: H1 and H2, which is all where an episode has one step. `dice` has
    all three parts, and more variance. `log_prob` has H2 alone: its meta-gradients are wrong, as in MAML's first code.

    Args:
        log_probs: of the actions [B, R, T].
        before: the same by the policy that acted, without a gradient.
        advantages: [B, R, T].
        alive: 1 for a step that its episode still had, else 0.
    Reference: Rothfuss et al. ProMP. ICLR 2019. arXiv:1810.06784, equations 7-10; Foerster et al. DiCE. ICML 2018.
        arXiv:1802.05098; Farquhar et al. Loaded DiCE. NeurIPS 2019. arXiv:1909.10549, equation 12, for advantages.
    """
    if form == "log_prob":
        each = log_probs * advantages
    elif form == "ratio":
        each = (log_probs - before).exp() * advantages
    else:
        so_far = ((log_probs - before) * alive).cumsum(-1)
        each = (so_far.exp() - torch.nn.functional.pad(so_far, (1, 0))[..., :-1].exp()) * advantages
    return (each * alive).sum((1, 2)) / alive.sum((1, 2))
