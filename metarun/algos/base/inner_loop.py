from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from metarun.algos.base.inner_optimizer import InnerOptimizer, Rule
from metarun.algos.base.learn2learn import Engine
from metarun.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt


class InnerSettings(TypedDict):
    """Settings of every method with an inner loop: keywords of its constructor, keys of its YAML.

    Keys:
        inner_lr: step size of the inner loop (alpha in MAML's paper), > 0.
        inner_steps: steps on a task in meta-training, >= 1.
        test_inner_steps: the same in validation and test, >= 0.
        inner_optimizer: `sgd`, `momentum` or `adam` (without first moment), see InnerOptimizer.
        inner_clip_norm: largest norm of an inner step's gradient, > 0; None for no limit.
        engine, task_chunk: how the meta-batch is computed, see EpisodicLearner.
    """

    inner_lr: PositiveFloat
    inner_steps: PositiveInt
    test_inner_steps: NonNegativeInt
    inner_optimizer: NotRequired[Rule]
    inner_clip_norm: NotRequired[PositiveFloat | None]
    engine: Engine
    task_chunk: NonNegativeInt


@dataclass(frozen=True)
class InnerLoop:
    """The inner loop of a method: its step size, its numbers of steps and its optimizer.

    Args:
        lr: step size.
        steps, test_steps: steps in meta-training, and in validation and test.
        optimizer: turns a gradient into a step.
        report_steps: numbers of steps after which validation and test tasks are scored too.
        first_order: leave the second derivatives out of the meta-gradient.
    """

    lr: float
    steps: int
    test_steps: int
    optimizer: InnerOptimizer
    report_steps: Sequence[int] = ()
    first_order: bool = True

    @classmethod
    def of(
        cls, settings: InnerSettings, report_steps: Sequence[int] = (), first_order: bool = True, beta2: float = 0.999
    ) -> InnerLoop:
        """Make the inner loop from a method's settings; without `inner_optimizer` among them it uses `sgd`."""
        rule, clip_norm = settings.get("inner_optimizer", "sgd"), settings.get("inner_clip_norm")
        return cls(
            lr=settings["inner_lr"],
            steps=settings["inner_steps"],
            test_steps=settings["test_inner_steps"],
            optimizer=InnerOptimizer(rule, clip_norm, beta2=beta2),
            report_steps=report_steps,
            first_order=first_order,
        )

    def steps_in(self, training: bool) -> int:
        """Return the steps in meta-training, or else in validation and test."""
        return self.steps if training else self.test_steps

    def describe(self) -> dict[str, Any]:
        """Return facts to report beside a method's scores."""
        steps = {"train": self.steps, "test": self.test_steps}
        return {"inner_steps": steps, "inner_lr": self.lr, "inner_optimizer": self.optimizer.rule}
