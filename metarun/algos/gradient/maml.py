from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Unpack

from torch import Tensor, nn

from metarun.algos.base import wrappers
from metarun.algos.base.episodic import EpisodicLearner
from metarun.algos.base.inner_loop import InnerLoop, InnerSettings
from metarun.algos.base.network import Network, with_support
from metarun.core.ranges import NonNegativeInt
from metarun.core.tasks import Examples, Objective
from metarun.ops.functional import Params, call, gradient, within


class Adapted(NamedTuple):
    """A task's state: phi, the support set (for the statistics of `bn=support`), and phi after some inner steps."""

    phi: Params
    support: Examples
    after: dict[int, Params]


class MAMLSettings(InnerSettings):
    """Settings of MAML, and of the methods that change it.

    Keys: those of InnerSettings, and
        report_steps: numbers of inner steps after which validation and test tasks are scored too, each >= 0.
        first_order: leave the second derivatives out (FOMAML).
    """

    report_steps: Sequence[NonNegativeInt]
    first_order: bool


class MAML(EpisodicLearner):
    """Learns initial weights from which a few gradient steps on a new task's support set do well.

    The meta-gradient goes through the inner steps (second order) unless `first_order` is set. Losses are means over
    examples. The paper's code sums over the classes, so its step size 0.4 on 5-way tasks corresponds to 2.0 here.

    Shapes: support.x [S, ...], support.y [S] int64 in 0..N-1 or [S, D_out]; predicts [M, outputs].
    Args:
        backbone: from inputs to features [R, out_features].
        outputs: size of the linear head.
        objective: its `loss` is descended in both loops.
        settings: see MAMLSettings.
    Reference: Finn, Abbeel, Levine. Model-Agnostic Meta-Learning. ICML 2017. arXiv:1703.03400;
        of `first_order`, Nichol, Achiam, Schulman. On First-Order Meta-Learning Algorithms. 2018. arXiv:1803.02999.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classification", "regression")
    recordable = True
    learn2learn = wrappers.maml

    def __init__(
        self, backbone: nn.Module, outputs: int, objective: Objective, **settings: Unpack[MAMLSettings]
    ) -> None:
        super().__init__(settings["engine"], settings["task_chunk"], objective)
        self.inner = InnerLoop.of(settings, settings["report_steps"], settings["first_order"])
        if self.engine == "learn2learn":
            wrappers.check_inner(self.inner)
        self.net = self.network(backbone, outputs)

    @property
    def steps(self) -> int:
        """Inner steps in the present mode, training or test."""
        return self.inner.steps_in(self.training)

    def network(self, backbone: nn.Module, outputs: int) -> Network:
        """Build the network that the inner loop trains."""
        return Network(backbone, outputs)

    def adapt(self, params: Params, support: Examples, n_way: int) -> Adapted:
        return self.adapt_from(within(params, "net"), support, params)

    def adapt_from(self, net: Params, support: Examples, params: Params) -> Adapted:
        """Run the inner loop on a network that starts as `net`."""
        phi, after = self.descend(self.support_loss(net, support), self.select_adapted(net), params)
        return Adapted(net | phi, support, {steps: net | moved for steps, moved in after.items()})

    def select_adapted(self, net: Params) -> Params:
        """Select the parameters of the network that the inner loop changes."""
        return net

    def support_loss(self, net: Params, support: Examples) -> Callable[[Params], Tensor]:
        """Return the loss of the inner loop, as a function of the parameters that `select_adapted` returns."""
        return lambda phi: self.objective(call(self.net, net | phi, support.x), support.y)["loss"]

    def descend(
        self, loss: Callable[[Params], Tensor], phi: Params, params: Params
    ) -> tuple[Params, dict[int, Params]]:
        """Return phi after `steps` inner steps on `loss`, and phi after each number in `list_reported_steps()`."""
        reported = self.list_reported_steps()
        path, memory = [phi], self.inner.optimizer.start(phi)
        for step in range(max(self.steps, *reported, 0)):
            grads = self.inner_gradient(loss, phi, params, step)
            phi, memory = self.inner.optimizer.step(phi, grads, memory, step, partial(self.rate, params, step))
            path.append(phi)
        return path[self.steps], {steps: path[steps] for steps in reported}

    def list_reported_steps(self) -> Sequence[int]:
        """List the numbers of inner steps after which phi is kept for further scores."""
        return () if self.training else self.inner.report_steps

    def inner_gradient(self, loss: Callable[[Params], Tensor], phi: Params, params: Params, step: int) -> Params:
        """Return the gradient of an inner step. `params` is theta, with all that is meta-learned beside the network."""
        return gradient(loss, phi, self.inner.first_order)

    def rate(self, params: Params, step: int, name: str) -> Tensor | float:
        """Return the step size of the network's parameter `name` in inner step `step`, counted from 0."""
        return self.inner.lr

    def predict(self, params: Params, state: Adapted, x: Tensor) -> Tensor:
        return with_support(self.net, partial(call, self.net, state.phi), state.support.x, x)

    def extra_scores(self, params: Params, state: Adapted, query: Examples) -> dict[str, Tensor]:
        scores: dict[str, Tensor] = {}
        for steps, phi in state.after.items():
            output = self.predict(params, state._replace(phi=phi), query.x)
            found = self.score(params, state, output, query.y)
            scores |= {f"{name}@{steps}": value for name, value in found.items() if name != "loss"}
        return scores

    def describe(self) -> dict[str, Any]:
        return self.inner.describe()
