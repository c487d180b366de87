from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor
from torch.optim import Optimizer

from metarun.algos.control.actions import make_actions
from metarun.algos.control.environment_learner import EnvironmentLearner
from metarun.algos.control.policy import Policy
from metarun.algos.control.rollouts import Rollouts, judge, roll_out
from metarun.algos.control.surrogates import Surrogate, find_surrogate
from metarun.algos.control.trust_region import climb
from metarun.core.control import Control, Environments
from metarun.core.ranges import CountsWith, NonNegativeInt, PositiveFloat, PositiveInt, Share
from metarun.core.tasks import Metrics, OptimFactory
from metarun.ops.functional import Params

Outer = Literal["plain", "trpo"]
Radius = Annotated[PositiveFloat, CountsWith("outer", ("trpo",))]

PATHS = 5
"""Episodes that are drawn."""


class PolicySettings(TypedDict):
    """Settings of all methods that adapt a policy to a task."""

    widths: Sequence[PositiveInt]
    first_std: PositiveFloat
    inner_lr: PositiveFloat
    later_share: Share
    inner_steps: NonNegativeInt
    test_inner_steps: NonNegativeInt
    surrogate: Surrogate
    first_order: bool
    discount: Share
    trace: Share


class Judged(NamedTuple):
    """Episodes and how good each step in them was; and of the policy that acted, its outputs, its log-probabilities and
    its adapted part."""

    rollouts: Rollouts
    advantages: Tensor
    outputs: Tensor
    log_probs: Tensor
    adapted: Params


class MAMLRL(EnvironmentLearner):
    """MAML for policies: the start of a policy from which a few steps of policy gradient on a task lead far.

    In a task, the policy acts in `data.episodes` episodes, steps along the policy gradient, acts again, and so on. The
    meta-gradient goes through the steps. Its estimate depends on `surrogate`: see surrogates.py.

    `return` is the mean sum of rewards of an episode after all inner steps, `return@k` after k of them, and
    `return@greedy` that of the most likely actions after all. Without inner steps in training it is the usual policy
    that learns all tasks at once.

    Args:
        control: from the source.
        widths: units of the policy's layers.
        first_std: deviation of an action at first, where actions are numbers, as a share of the largest one.
        inner_lr: step size of the first inner step.
        later_share: step size of the later ones, as a share of it. Advantages are standardised, so steps do not get
            shorter by themselves as a policy gets good.
        inner_steps, test_inner_steps: inner steps in training, and in validation and test.
        surrogate: `ratio`, `dice` or `log_prob`.
        first_order: leave out what the second derivative adds.
        discount: gamma of a step.
        trace: lambda of the advantages.
        outer: `plain`, a step of the optimizer; `trpo`, the largest step within `radius`, without optimizer.
        radius: mean KL divergence, in nats, that a step of trpo may lead away from the adapted policies.
    Reference: Finn, Abbeel, Levine. MAML. ICML 2017. arXiv:1703.03400, Algorithm 3; Schulman et al. Trust Region Policy
        Optimization. ICML 2015. arXiv:1502.05477.
    """

    optim_counts_with = CountsWith("outer", ("plain",))

    def __init__(
        self,
        control: Control,
        outer: Outer,
        radius: Radius,
        **settings: Unpack[PolicySettings],
    ) -> None:
        super().__init__()
        self.control, self.kind = control, make_actions(control)
        self.outer, self.radius, self.settings = outer, radius, settings
        self.policy = self.make_policy()

    def make_policy(self, more_inputs: int = 0) -> Policy:
        first_std = self.settings["first_std"] * (self.control.bound or 1.0)
        return Policy(self.control.observation + more_inputs, self.kind, self.settings["widths"], first_std)

    def start(self, n_tasks: int) -> Params:
        """Return what adapts, before it has, for each task [B, ...]."""
        return {name: value.expand(n_tasks, *value.shape) for name, value in self.policy.named_parameters()}

    def output(self, adapted: Params, observations: Tensor) -> Tensor:
        """Return the policy's outputs [B, R, ...] for observations [B, R, D]."""
        found: Tensor = self.policy(adapted, observations)
        return found

    def build_optims(self, optim: OptimFactory) -> dict[str, Optimizer]:
        return {} if self.outer == "trpo" else super().build_optims(optim)

    def meta_step(self, batch: Environments, optims: dict[str, Optimizer]) -> Metrics:
        if self.outer == "plain":
            return super().meta_step(batch, optims)
        collected = self.collect(batch)
        divergence = climb(list(self.parameters()), partial(self._gain_and_divergence, collected), self.radius)
        return self._report(collected) | {"divergence": divergence}

    def meta_loss(self, batch: Environments) -> tuple[Tensor, Metrics]:
        collected = self.collect(batch)
        gain = self._gain_and_divergence(collected)[0]
        return -gain, self._report(collected)

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        steps, n = self.settings["test_inner_steps"], self.control.episodes
        judged = self.collect(batch, steps)
        policy = partial(self.output, judged[-1].adapted)
        greedy = roll_out(batch, policy, self.kind, n, (steps + 1) * n, greedy=True).returns()
        found = {f"return@{step}": one.rollouts.returns() for step, one in enumerate(judged)}
        last = found.pop(f"return@{steps}")
        return {"loss": -last, "return": last, **found, "return@greedy": greedy}

    def draw(self, batch: Any) -> dict[str, Any]:
        """Draw the paths of a few episodes on a plane after each number of inner steps."""
        if not hasattr(batch, "goal") or self.control.discrete:
            return {}
        from metarun.algos.control.pictures import draw_paths

        judged = self.collect(batch, self.settings["test_inner_steps"])
        return {"paths": draw_paths([one.rollouts.observations[:, :PATHS] for one in judged], batch.goal)}

    def describe(self) -> dict[str, Any]:
        return {"inner_steps": {"train": self.settings["inner_steps"], "test": self.settings["test_inner_steps"]}}

    @torch.no_grad()
    def collect(self, batch: Environments, steps: int | None = None) -> list[Judged]:
        """Act before each inner step, and after the last of so many; None for those of training."""
        steps = self.settings["inner_steps"] if steps is None else steps
        adapted = self.start(batch.n_tasks)
        found = [self.act(batch, adapted, 0)]
        for step in range(steps):
            adapted = self.inner_step(adapted, found[-1], step)
            found.append(self.act(batch, adapted, step + 1))
        return found

    def adapt(self, collected: Sequence[Judged]) -> Params:
        """Make the inner steps by all these episodes but the last; derivatives go through them."""
        adapted = self.start(len(collected[0].advantages))
        for step, judged in enumerate(collected[:-1]):
            adapted = self.inner_step(adapted, judged, step)
        return adapted

    def inner_step(self, adapted: Params, judged: Judged, step: int) -> Params:
        """Step along the policy gradient of each task; derivatives go through the gradient too unless `first_order`."""
        through = torch.is_grad_enabled() and not self.settings["first_order"]
        share = 1.0 if step == 0 else self.settings["later_share"]
        with torch.enable_grad():
            at = adapted if through else {n: v.detach().requires_grad_() for n, v in adapted.items()}
            log_probs = self.log_probs(at, judged.rollouts)[1]
            gain = find_surrogate(
                self.settings["surrogate"], log_probs, judged.log_probs, judged.advantages, judged.rollouts.alive
            )
            ascent = torch.autograd.grad(gain.sum(), list(at.values()), create_graph=through)
        rate = self.settings["inner_lr"] * share
        return {name: adapted[name] + rate * slope for name, slope in zip(at, ascent, strict=True)}

    @torch.no_grad()
    def act(self, batch: Environments, adapted: Params, step: int) -> Judged:
        """Act in the episodes that follow inner step number `step`."""
        n = self.control.episodes
        rollouts = roll_out(batch, partial(self.output, adapted), self.kind, n, step * n)
        advantages = judge(rollouts, self.settings["discount"], self.settings["trace"])
        return Judged(rollouts, advantages, *self.log_probs(adapted, rollouts), adapted)

    def log_probs(self, adapted: Params, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Return the policy's outputs and the log-probabilities of the actions of episodes, [B, R, T, ...]."""
        seen = rollouts.observations
        outputs = self.output(adapted, seen.flatten(1, 2)).reshape(*seen.shape[:3], -1)
        return outputs, self.kind.log_prob(outputs, rollouts.actions)

    def _gain_and_divergence(self, collected: Sequence[Judged]) -> tuple[Tensor, Tensor]:
        """Return what the adapted policies gain, and how far they are from those that acted, means over tasks."""
        adapted, last = self.adapt(collected), collected[-1]
        outputs, log_probs = self.log_probs(adapted, last.rollouts)
        alive = last.rollouts.alive
        gain = find_surrogate("ratio", log_probs, last.log_probs, last.advantages, alive).mean()
        return gain, (self.kind.divergence(last.outputs, outputs) * alive).sum() / alive.sum()

    def _report(self, collected: Sequence[Judged]) -> Metrics:
        returns = {f"return@{step}": judged.rollouts.returns().mean() for step, judged in enumerate(collected)}
        last = returns.pop(f"return@{len(collected) - 1}")
        return {"loss": -last, "return": last, **returns}
