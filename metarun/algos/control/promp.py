from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from torch.optim import Optimizer

from metarun.algos.control.maml_rl import MAMLRL, Judged, PolicySettings
from metarun.core.control import Control, Environments
from metarun.core.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from metarun.core.tasks import Metrics


class ProMP(MAMLRL):
    """MAML for policies by several outer steps on the same episodes, kept close to the policies that acted.

    The adapted policy's probabilities count up to a clipped ratio, as in PPO, and what adapts pays for its KL
    divergence from the policy that acted before adaptation. The inner step ascends the ratio to that policy, whose
    meta-gradient credits exploration: which first actions made the inner step good.

    Args: as for MAMLRL, but
        epochs: outer steps on the same episodes.
        clip: how far from 1 the ratio of an adapted policy may go.
        penalty: weight of the KL divergence before adaptation, eta, at first.
        target: divergence in nats, around which the weight is halved and doubled; null keeps the weight.
    Reference: Rothfuss, Lee, Clavera, Asfour, Abbeel. ProMP: Proximal Meta-Policy Search. ICLR 2019. arXiv:1810.06784,
        equations 12 and 13, Algorithm 1.
    """

    shareable = False  # the weight of the penalty is handed from outer step to outer step

    def __init__(
        self,
        control: Control,
        epochs: PositiveInt,
        clip: PositiveFloat,
        penalty: NonNegativeFloat,
        target: PositiveFloat | None,
        **settings: Unpack[PolicySettings],
    ) -> None:
        super().__init__(control, outer="plain", radius=1.0, **settings)
        self.epochs, self.clip, self.penalty, self.target = epochs, clip, penalty, target

    def initial_state(self) -> Tensor:
        return torch.tensor(self.penalty)

    def outer_step(self, state: Any, batch: Any, optims: dict[str, Optimizer]) -> tuple[Tensor, Metrics]:
        collected = self.collect(batch)
        for _ in range(self.epochs):
            optims["outer"].zero_grad(set_to_none=True)
            loss, divergence = self.loss(collected, state)
            loss.backward()  # type: ignore[no-untyped-call]
            optims["outer"].step()
        metrics = self._report(collected) | {"divergence": divergence, "penalty": state}
        if self.target is not None:  # as the authors' code: by the divergence that the last outer step saw
            state = torch.where(divergence < self.target / 1.5, state / 2, state)
            state = torch.where(divergence > self.target * 1.5, state * 2, state)
        return state, metrics

    def meta_step(self, batch: Environments, optims: dict[str, Optimizer]) -> Metrics:
        return self.outer_step(self.initial_state(), batch, optims)[1]

    def meta_loss(self, batch: Environments) -> tuple[Tensor, Metrics]:
        collected = self.collect(batch)
        return self.loss(collected, self.initial_state())[0], self._report(collected)

    def loss(self, collected: list[Judged], penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of these episodes, and the mean divergence before adaptation."""
        *before, last = collected
        adapted = self.adapt(collected)
        log_probs, alive = self.log_probs(adapted, last.rollouts)[1], last.rollouts.alive
        ratio = (log_probs - last.log_probs).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        gained = torch.minimum(ratio * last.advantages, clipped * last.advantages)
        gain = ((gained * alive).sum((1, 2)) / alive.sum((1, 2))).mean()
        divergence = self._divergence_before(before)
        return penalty * divergence - gain, divergence.detach()

    def _divergence_before(self, before: list[Judged]) -> Tensor:
        """Return the mean KL divergence of what adapts from the policies that acted, over inner steps, tasks, steps."""
        found, adapted = [torch.zeros(())], self.start(len(before[0].advantages)) if before else {}
        for step, judged in enumerate(before):
            outputs, alive = self.log_probs(adapted, judged.rollouts)[0], judged.rollouts.alive
            found.append((self.kind.divergence(judged.outputs, outputs) * alive).sum() / alive.sum())
            if step < len(before) - 1:
                adapted = self.inner_step(adapted, judged, step)
        return torch.stack([one.to(found[-1]) for one in found]).sum() / max(1, len(before))
