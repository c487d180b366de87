from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.learn2learn import Engine
from metarun.algos.base.network import Network
from metarun.algos.optimizer.coordinates import CoordinateRule, scale_start
from metarun.algos.optimizer.evolution import Evolution
from metarun.core.ranges import CountsWith, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UpTo
from metarun.core.tasks import Batch, Examples, Metrics, Objective, TaskSource
from metarun.ops.functional import Params, call, flatten, gradient, unflatten, within
from metarun.ops.noise import draw_normal


class Carry(NamedTuple):
    """Where an unroll stands: the weights [n] of the network, and the rule's memory of each of them."""

    weights: Tensor
    memory: tuple[Tensor, ...]


class LearnedOptimizer(EpisodicLearner):
    """Learns an optimizer: a memory that reads the gradient of each weight and writes its update.

    All weights of a network share the rule, and each has a memory of its own. The network itself starts anew on each
    task, from random weights. The rule descends the mean loss of the query set along the trajectory (equation 3 with
    all weights 1); no meta-gradient flows through gradients. An outer step unrolls `unroll` of the `inner_steps`
    updates; the next one goes on with the same tasks, and what came before is a constant. Evolution strategies that
    persist are unbiased there (`estimator=pes`).

    Without a network (`backbone.widths=[]`) the model is linear and has no summand, as on data=quadratics.

    Shapes: support.x [S, ...], support.y [S, D_out]; predicts [M, outputs].
    Args:
        backbone: from inputs to features [R, out_features]; with `bn` of none or transductive.
        outputs: size of the linear head.
        objective: its `loss` is descended by the rule, and by the rule's own training.
        inner_steps, test_inner_steps: updates on a task in meta-training, and in validation and test.
        unroll: updates of an outer step, through which the meta-gradient flows.
        units: of each layer of the rule's memory.
        layers: of it; 0 is gradient descent with a learned rate.
        rate: size of the first updates: the factor of the rule's output, > 0.
        preprocess: the range of sizes that gradients are told in, e^-p to 1 (p in appendix A); 0 hands them on.
        start_scale: of the network's random start; 1 gives outputs of variance near 1.
        estimator: of the meta-gradient: `backprop`, or `pes`.
        perturbation: standard deviation of what `pes` adds to the rule's parameters.
        report_steps: numbers of updates after which validation and test tasks are scored too, as loss@100.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    Reference: Andrychowicz et al. Learning to Learn by Gradient Descent by Gradient Descent. NeurIPS 2016.
        arXiv:1606.04474. `pes`: Vicol, Metz, Sohl-Dickstein. Unbiased Gradient Estimation in Unrolled Computation
        Graphs with Persistent Evolution Strategies. ICML 2021. arXiv:2112.13835, Algorithm 2.
    """

    kinds = ("optimisation", "regression")
    shareable = False  # outer steps hand on a state

    noise: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        bn: str,
        outputs: int,
        objective: Objective,
        inner_steps: PositiveInt,
        test_inner_steps: PositiveInt,
        unroll: Annotated[PositiveInt, UpTo("inner steps")],
        units: PositiveInt,
        layers: NonNegativeInt,
        rate: PositiveFloat,
        preprocess: NonNegativeFloat,
        start_scale: PositiveFloat,
        estimator: Literal["backprop", "pes"],
        perturbation: Annotated[PositiveFloat, CountsWith("estimator", ("pes",))],
        report_steps: Sequence[NonNegativeInt],
        engine: Engine,
        task_chunk: NonNegativeInt,
    ) -> None:
        super().__init__(engine, task_chunk, objective)
        if bn in ("support", "running"):
            raise ValueError(f"bn={bn} has no meaning here, where networks are trained from the start: set bn=none")
        self.inner_steps, self.test_inner_steps, self.unroll = inner_steps, test_inner_steps, unroll
        self.report_steps, self.start_scale = tuple(report_steps), start_scale
        net = Network(backbone, outputs)
        if not list(backbone.parameters()):
            net.head = nn.Linear(int(backbone.out_features), outputs, bias=False)  # type: ignore[arg-type]
        self.template = (net,)  # in a tuple, which hides its weights from torch: only their shapes matter
        count = sum(value.numel() for value in net.parameters())
        draw = torch.Generator().manual_seed(0)  # the same start for all tests
        noise = torch.randn(count, dtype=torch.float64, generator=draw)
        self.register_buffer("noise", noise, persistent=False)
        self.rule = CoordinateRule(units, layers, rate, preprocess)
        self.evolution = Evolution(perturbation) if estimator == "pes" else None

    @property
    def steps(self) -> int:
        """Updates on a task in the present mode, training or test."""
        return self.inner_steps if self.training else self.test_inner_steps

    def adapt(self, params: Params, support: Examples, n_way: int) -> Tensor:
        """Return the weights after 0, 1, ... updates [T + 1, n]."""
        carry, path = self._begin(support.x), []
        for _ in range(self.steps if self.training else max(self.steps, *self.report_steps, 0)):
            path.append(carry.weights)
            carry = self._update(within(params, "rule"), carry, support)
        return torch.stack([*path, carry.weights])

    def predict(self, params: Params, state: Tensor, x: Tensor) -> Tensor:
        return self._run(state[self.steps], x)

    def extra_scores(self, params: Params, state: Tensor, query: Examples) -> dict[str, Tensor]:
        losses = torch.stack([self._find_loss(weights, query) for weights in state])  # [T + 1]
        scores = {"loss": losses[1 : self.steps + 1].mean()}
        return scores if self.training else scores | {f"loss@{step}": losses[step] for step in self.report_steps}

    def train_stream(self, source: TaskSource, step: int, meta_batch_size: int) -> Iterator[Batch]:
        """Yield each meta-batch as often as it takes to unroll it."""
        segments = -(-self.inner_steps // self.unroll)
        first, done = divmod(step, segments)
        for batch in source.episodes("train", first * meta_batch_size, meta_batch_size):
            for _ in range(done, segments):
                yield batch
            done = 0

    def outer_step(self, state: Any, batch: Batch, optims: dict[str, Optimizer]) -> tuple[Any, Metrics]:
        """Unroll some updates and learn from them; `state` is None before the first of a meta-batch."""
        for optim in optims.values():
            optim.zero_grad(set_to_none=True)
        state = state or self._open(batch)
        done = int(state["done"])
        loss, carry = self._learn(batch, min(self.unroll, self.inner_steps - done), state["carry"])
        for optim in optims.values():
            optim.step()
        done += min(self.unroll, self.inner_steps - done)
        ended = done == self.inner_steps
        return None if ended else {"done": torch.tensor(done), "carry": carry}, {"loss": loss.detach()}

    def describe(self) -> dict[str, Any]:
        return {"inner_steps": {"train": self.inner_steps, "test": self.test_inner_steps}}

    def _open(self, batch: Batch) -> dict[str, Any]:
        """Return the state before the first update."""
        carry: Any = tuple(torch.func.vmap(self._begin, randomness="different")(batch.support.x))
        if self.evolution:
            carry = (carry, carry, torch.zeros(()))
        return {"done": torch.tensor(0), "carry": carry}

    def _learn(self, batch: Batch, steps: int, carry: Any) -> tuple[Tensor, Any]:
        """Add the meta-gradient of some updates; return their mean loss, and where they end, as a constant."""
        unroll = partial(self._unroll_batch, batch, steps)
        if self.evolution:
            return self.evolution.estimate(self.rule, partial(unroll, 0), batch.n_tasks, carry)
        losses, carry = unroll(None, dict(self.rule.named_parameters()), carry)
        loss = losses.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss, pytree.tree_map(Tensor.detach, carry)

    def _unroll_batch(self, batch: Batch, steps: int, axis: int | None, rule: Params, carry: Any) -> tuple[Tensor, Any]:
        """Unroll `steps` updates of each task; return the mean losses [B], and where it then stands.

        Args:
            axis: of the tasks in the rule's parameters; None if they share them.
        """

        def task(rule: Params, support: Examples, query: Examples, carry: Any) -> tuple[Tensor, Any]:
            now, losses = Carry(*carry), []
            for _ in range(steps):
                now = self._update(rule, now, support)
                losses.append(self._find_loss(now.weights, query))
            return torch.stack(losses).mean(), tuple(now)

        tasks = torch.func.vmap(task, in_dims=(axis, 0, 0, 0))
        found: tuple[Tensor, Any] = tasks(rule, batch.support, batch.query, carry)
        return found

    def _begin(self, like: Tensor) -> Carry:
        noise = draw_normal(len(self.noise), like=like) if self.training else self.noise.to(like)
        weights = scale_start(self.template[0], self.start_scale, noise)
        return Carry(weights, self.rule.start(weights))

    def _update(self, rule: Params, carry: Carry, support: Examples) -> Carry:
        shapes = dict(self.template[0].named_parameters())
        grads = gradient(
            lambda net: self.objective(call(self.template[0], net, support.x), support.y)["loss"],
            unflatten(carry.weights, shapes),
            first_order=True,
        )
        step, memory = call(self.rule, rule, flatten(grads), carry.memory)
        return Carry(carry.weights + step, memory)

    def _find_loss(self, weights: Tensor, examples: Examples) -> Tensor:
        return self.objective(self._run(weights, examples.x), examples.y)["loss"]

    def _run(self, weights: Tensor, x: Tensor) -> Tensor:
        out: Tensor = call(self.template[0], unflatten(weights, dict(self.template[0].named_parameters())), x)
        return out
