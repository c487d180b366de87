from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metarun.algos.base.count import Count
from metarun.algos.control.actions import make_actions
from metarun.algos.control.advantages import find_advantages, standardise, sum_discounted
from metarun.algos.control.bandit_optimum import BanditOptimum, is_feasible
from metarun.algos.control.bandit_rules import Thompson
from metarun.algos.control.environment_learner import EnvironmentLearner
from metarun.core.control import Control, Environments
from metarun.core.ranges import CountsWith, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share, UpTo
from metarun.core.tasks import Metrics


class Trials(NamedTuple):
    """B trials of n episodes of T steps, one after the other: inputs [B, nT, I], actions [B, nT, ...], rewards [B, nT],
    and `alive` [B, nT]: 1 for a step that its episode still had, else 0."""

    inputs: Tensor
    actions: Tensor
    rewards: Tensor
    alive: Tensor


class Judged(NamedTuple):
    """What the policy thought of the steps of trials before it learned from them, [B, nT] each; `targets` is what the
    critic should have said."""

    log_probs: Tensor
    advantages: Tensor
    targets: Tensor


class RL2(EnvironmentLearner):
    """A recurrent policy that learns a task by acting in it: its hidden state becomes the learning algorithm.

    A GRU gets what the environment shows, and the last action, its reward and whether an episode ended with it. It
    keeps its state from episode to episode of a task, so it can find out what pays; it is trained by ordinary
    reinforcement learning on the sum of rewards over all episodes. The paper trains by TRPO; here it is PPO, or an
    actor-critic (`a2c`), which makes one step with each batch of trials. The critic tells how many deviations the sum
    of rewards to come is away from its mean in the batch, so that its loss, whatever the unit of rewards and however
    many steps are to come, leaves the actor its share of the gradient.

    `return` is the sum of rewards over the episodes of a task where actions are drawn, `return@greedy` where the most
    likely one is taken.

    Args:
        control: from the source.
        hidden: units of the GRU.
        embedding: units of a layer that the GRU's inputs pass first, together with what the environment showed before
            the last action: so a whole move, from where, by what, for how much and to where, is seen at once. 0: none,
            as in the papers, where the GRU must remember from where.
        products: the GRU also gets the products of what was shown, the action taken and its reward, and actor and
            critic weigh what it has kept by what is shown now. So what each action of each state paid has a place of
            its own, where it is written and looked up without a layer that would have to learn how.
        memory_steps: the GRU's units forget in 1 to so many steps at first (Tallec 2018). 0: as torch draws them, in
            about two, and what a trial's first episodes told is gone before it can be used.
        update: `ppo` or `a2c`.
        epochs: times that PPO goes through the same trials; a2c does once.
        minibatches: parts that PPO cuts the trials into, an outer step with each; at most as many as there are trials.
        clip: how far from 1 the ratio of probabilities may go in PPO.
        discount: gamma of a step.
        trace: lambda of the advantages.
        value_weight: of the squared error of the critic in the loss, in deviations of what it tells.
        reward_weight: of the squared error of what an action will pay, told from the memory before it is paid, in
            deviations of rewards (Jaderberg 2017): each step then teaches the memory what to keep. 0: nothing is told.
        entropy: weight of the entropy of the actions in the loss at first, and `entropy_steps` later; a straight line
            between.
        entropy_steps: outer steps.
    Reference: Duan et al. RL2: Fast Reinforcement Learning via Slow Reinforcement Learning. 2016. arXiv:1611.02779;
        Wang et al. Learning to Reinforcement Learn. 2016. arXiv:1611.05763. Schulman et al. PPO. arXiv:1707.06347;
        Tallec, Ollivier. Can Recurrent Neural Networks Warp Time? ICLR 2018. arXiv:1804.11188, equation 16; Jaderberg
        et al. Reinforcement Learning with Unsupervised Auxiliary Tasks. ICLR 2017. arXiv:1611.05397.
    """

    shareable = False  # advantages are standardised over the whole batch
    tasks_drawn = 1000

    def __init__(
        self,
        control: Control,
        hidden: PositiveInt,
        embedding: NonNegativeInt,
        products: bool,
        memory_steps: NonNegativeInt,
        update: Literal["ppo", "a2c"],
        epochs: Annotated[PositiveInt, CountsWith("update", ("ppo",))],
        minibatches: Annotated[PositiveInt, CountsWith("update", ("ppo",)), UpTo("tasks of an outer step")],
        clip: Annotated[PositiveFloat, CountsWith("update", ("ppo",))],
        discount: Share,
        trace: Share,
        value_weight: NonNegativeFloat,
        reward_weight: NonNegativeFloat,
        entropy: tuple[NonNegativeFloat, NonNegativeFloat],
        entropy_steps: PositiveInt,
    ) -> None:
        super().__init__()
        self.control, self.kind = control, make_actions(control)
        self.update, self.clip = update, clip
        self.epochs, self.minibatches = (epochs, minibatches) if update == "ppo" else (1, 1)
        self.discount, self.trace, self.value_weight, self.reward_weight = discount, trace, value_weight, reward_weight
        self.entropy, self.entropy_steps = entropy, entropy_steps
        self.products, self.whole_moves = products, products or embedding > 0
        self.last = self.kind.size + 2 + (control.observation if self.whole_moves else 0)  # numbers of the last move
        inputs = control.observation + self.last + (2 * control.observation * self.kind.size if products else 0)
        self.embed = nn.Sequential(nn.Linear(inputs, embedding), nn.ReLU()) if embedding else nn.Identity()
        self.memory = nn.GRU(embedding or inputs, hidden, batch_first=True)
        found = hidden * (control.observation + 1) if products else hidden
        self.actor, self.critic = nn.Linear(found, self.kind.outputs), nn.Linear(found, 1)
        self.pay = nn.Linear(found, self.kind.size) if reward_weight else None
        self.outer_steps = Count()
        with torch.no_grad():
            self.actor.weight.mul_(0.1)  # first actions are close to uniform
            if memory_steps:  # with a gate at k / (k + 1) a unit forgets in about k steps
                self.memory.get_parameter("bias_ih_l0")[hidden : 2 * hidden] = torch.linspace(
                    1, memory_steps, hidden
                ).log()
                self.memory.get_parameter("bias_hh_l0")[hidden : 2 * hidden] = 0

    @torch.no_grad()
    def act(self, batch: Environments, greedy: bool = False) -> Trials:
        """Act in all episodes of each task, from an empty memory."""
        hidden, last = None, None
        inputs, actions, rewards, alive = (list[Tensor]() for _ in range(4))
        for episode in range(self.control.episodes):
            observation = batch.reset(1, episode)
            chance = batch.draw(1, episode, self.kind.numbers)  # [B, 1, T, numbers]
            if last is None:
                last = observation.new_zeros(batch.n_tasks, 1, self.last)
            over = torch.zeros_like(last[..., 0])
            for step in range(self.control.length):
                inputs.append(torch.cat([observation, last], -1))
                found, hidden = self.remember(inputs[-1], hidden)
                output = self.actor(found)  # [B, 1, outputs]
                action = self.kind.best(output) if greedy else self.kind.draw(output, chance[:, :, step])
                before, (observation, reward, done) = observation, batch.step(action)
                for kept, new in ((actions, action), (rewards, reward), (alive, 1 - over)):
                    kept.append(new)
                over = done.to(reward.dtype)
                last = torch.cat([self.kind.encode(action), reward[..., None], over[..., None]], -1)
                if self.whole_moves:
                    last = torch.cat([last, before], -1)
        return Trials(*(torch.cat(steps, 1) for steps in (inputs, actions, rewards, alive)))

    def remember(self, inputs: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what actor and critic see after each step of inputs [B, T, I], and the GRU's state after the last."""
        if not self.products:
            found, hidden = self.memory(self.embed(inputs), hidden)
            return found, hidden
        sizes = [self.control.observation, self.kind.size, 1, 1, self.control.observation]
        shown, action, reward, _, before = torch.split(inputs, sizes, -1)
        move = (before[..., :, None] * action[..., None, :]).flatten(-2)
        found, hidden = self.memory(self.embed(torch.cat([inputs, move, move * reward], -1)), hidden)
        shown = torch.cat([shown, torch.ones_like(reward)], -1)
        return (found[..., :, None] * shown[..., None, :]).flatten(-2), hidden

    def meta_step(self, batch: Environments, optims: dict[str, Optimizer]) -> Metrics:
        trials = self.act(batch)
        judged = self.judge(trials)
        most = min(self.minibatches, len(trials.rewards))
        cut = zip(*(part.tensor_split(most) for part in (*trials, *judged)), strict=True)
        found = []
        for parts in list(cut) * self.epochs:
            optims["outer"].zero_grad(set_to_none=True)
            loss, metrics = self.loss(Trials(*parts[: len(trials)]), Judged(*parts[len(trials) :]))
            loss.backward()  # type: ignore[no-untyped-call]
            optims["outer"].step()
            found.append(metrics)
        self.outer_steps.number += 1
        return {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}

    def meta_loss(self, batch: Environments) -> tuple[Tensor, Metrics]:
        trials = self.act(batch)
        return self.loss(trials, self.judge(trials))

    @torch.no_grad()
    def judge(self, trials: Trials) -> Judged:
        """Compare what followed each step with what the critic expected."""
        found, _ = self.remember(trials.inputs)
        returns = sum_discounted(trials.rewards, self.discount)
        others = (returns.sum(0) - returns) / max(1, len(returns) - 1)  # a mean without its own is no bias
        spread = (returns - others).square().mean().sqrt() + 1e-8
        values = others + spread * self.critic(found)[..., 0]
        advantages = find_advantages(trials.rewards, values, self.discount, self.trace)
        targets = (advantages + values - others) / spread
        return Judged(self.kind.log_prob(self.actor(found), trials.actions), advantages, targets)

    def loss(self, trials: Trials, judged: Judged) -> tuple[Tensor, Metrics]:
        """Return the loss of actor and critic for trials, and what to report of them."""
        found, _ = self.remember(trials.inputs)
        output, values = self.actor(found), self.critic(found)[..., 0]
        log_probs, count = self.kind.log_prob(output, trials.actions), trials.alive.sum()
        gain = standardise(judged.advantages, (0, 1), trials.alive)
        if self.update == "ppo":
            ratio = (log_probs - judged.log_probs).exp()
            gained = torch.minimum(ratio * gain, ratio.clamp(1 - self.clip, 1 + self.clip) * gain)
        else:
            gained = log_probs * gain
        error = (values - judged.targets).square()
        entropy = self.kind.entropy(output)
        parts = -gained - self.entropy_weight * entropy
        loss = (parts * trials.alive).sum() / count + self.value_weight * error.mean()
        if self.pay:
            told = (self.pay(found) * self.kind.encode(trials.actions)).sum(-1)
            wrong = (told - trials.rewards).square() / (trials.rewards.var() + 1e-8)
            loss = loss + self.reward_weight * (wrong * trials.alive).sum() / count
        metrics = {
            "loss": loss,
            "return": trials.rewards.sum(-1).mean(),
            "entropy": (entropy * trials.alive).sum() / count,
        }
        return loss, {name: value.detach() for name, value in metrics.items()}

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        drawn, greedy = (self.act(batch, greedy).rewards.sum(-1) for greedy in (False, True))
        return {"loss": -drawn, "return": drawn, "return@greedy": greedy}

    def draw(self, batch: Any) -> dict[str, Any]:
        """Draw the regret on bandits, beside that of Thompson sampling and of the optimum."""
        if not hasattr(batch, "means"):
            return {}
        from metarun.algos.control.pictures import draw_regret

        rewards = {"RL2": self.act(batch).rewards, "Thompson sampling": Thompson(self.control).rewards(batch)}
        if is_feasible(self.control):
            rewards["the exact optimum"] = BanditOptimum(self.control).rewards(batch)
        return {"regret": draw_regret(rewards, batch.means)}

    @property
    def entropy_weight(self) -> float:
        """Of the present outer step."""
        first, last = self.entropy
        return first + (last - first) * min(1.0, self.outer_steps.number / self.entropy_steps)
