"""The best checkpoints of a run by validation, and the mean of what they predict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metarun.algos.base.abilities import AdaptsToTask
from metarun.algos.base.learner import Learner
from metarun.core.batches import list_batches
from metarun.core.tasks import Batch, Examples, Metrics, Objective, SourceInfo, TaskBatch, TaskSource

State = Mapping[str, Tensor]


@dataclass
class BestOnes:
    """The weights of the best validations so far, the best first; of equal ones the first counts as better.

    Attributes:
        most: how many are kept, >= 1.
        members: the step, the score (the higher, the better) and the weights of each.
    """

    most: int
    members: list[tuple[int, float, State]] = field(default_factory=list)

    @classmethod
    def of(cls, learner: Learner, most: int) -> BestOnes:
        """Begin without any. Raises: ValueError if what the learner predicts cannot be averaged, for several."""
        if most > 1:
            check_outputs(learner, f"run.ensemble={most}", "set run.ensemble=1")
        return cls(most)

    def add(self, step: int, score: float, learner: Learner) -> bool:
        """Add the weights of an outer step, if they are among the best. Returns: whether they are.

        A score that is no number is the worst.
        """
        score = -math.inf if math.isnan(score) else score
        before = [member for member in self.members if member[0] != step]  # a resumed run makes some steps again
        place = sum(not score > other for _, other, _ in before)
        if place >= self.most:
            return False
        weights = {name: value.detach().clone() for name, value in learner.state_dict().items()}
        self.members = [*before[:place], (step, score, weights), *before[place:]][: self.most]
        return True

    def pack(self) -> dict[str, Any]:
        """Return what goes into the best checkpoint; `restore` reads it."""
        (step, score, weights), *others = self.members
        return {"learner": weights, "step": step, "score": score} | ({"others": others} if others else {})

    def restore(self, saved: Mapping[str, Any]) -> None:
        first = (saved["step"], saved["score"], saved["learner"])
        self.members = [first, *map(tuple, saved.get("others", ()))]


class Ensemble(Learner):
    """A learner whose answer for a query is the mean of what it predicts with several weights, for tests alone.

    Classes are answered by the mean of the probabilities, functions by the mean of the values. Its scores are those of
    the tasks themselves; a method's own scores, as those after other numbers of inner steps, are left out.

    Args:
        learner: gets one weights after the other.
        objective: scores the outputs of a task.
        states: the weights.
    Reference: Lakshminarayanan, Pritzel, Blundell. Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles. NeurIPS 2017. arXiv:1612.01474, section 2.4; of one run's checkpoints, Antoniou, Edwards, Storkey.
        How to Train Your MAML. ICLR 2019. arXiv:1810.09502, section 5 (whose code takes the mean of the logits).
    """

    def __init__(self, learner: Learner, objective: Objective, states: Sequence[State]) -> None:
        super().__init__()
        self.learner, self.objective, self.states = learner, objective, states
        self.many_shapes = learner.many_shapes  # type: ignore[misc]
        self.answers = learner.answers  # type: ignore[misc]

    def eval_stream(self, source: TaskSource, split: str, first: int, batch_size: int) -> Iterator[TaskBatch]:
        return self.learner.eval_stream(source, split, first, batch_size)

    def meta_loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        raise NotImplementedError("an ensemble is for tests alone")

    @torch.no_grad()
    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        tasks = [task for part in list_batches(batch) for task in _take_apart(part)]
        found: list[list[Tensor]] = []
        for state in self.states:
            self.learner.load_state_dict(dict(state))
            found.append([self._predict(*task) for task in tasks])  # [M, N] each
        scores = []
        for (_, query, n_way, _), of_task in zip(tasks, zip(*found, strict=True), strict=True):
            each = torch.stack(of_task)
            mean = each.log_softmax(-1).logsumexp(0) - math.log(len(each)) if n_way else each.mean(0)
            scores.append(self.objective(mean, query.y))
        return {name: torch.stack([one[name] for one in scores]) for name in scores[0]}

    def _predict(self, support: Examples, query: Examples, n_way: int, facts: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(self.learner, AdaptsToTask)
        return self.learner.adapt_to(support, n_way, **facts)(query.x)


def check_outputs(learner: Learner, asked: str, instead: str) -> None:
    """Raise ValueError if the learner has no outputs whose mean could be taken, as is `asked`."""
    if not isinstance(learner, AdaptsToTask):
        name = type(learner).__name__
        raise ValueError(
            f"{asked} takes the mean of what a method predicts, and {name} predicts nothing for a task: {instead}"
        )


def take_weights(learner: Learner, info: SourceInfo, best: Mapping[str, Any]) -> tuple[Learner, list[int]]:
    """Load the best checkpoint; return the learner that is tested, or the ensemble, and the steps of its weights."""
    learner.load_state_dict(best["learner"])
    steps, states = list_members(best)
    return (Ensemble(learner, info.objective, states) if len(states) > 1 else learner), steps


def list_members(best: Mapping[str, Any]) -> tuple[list[int], list[State]]:
    """List the steps and the weights that are in the best checkpoint, the best first."""
    others = best.get("others", ())
    return [best["step"], *(step for step, _, _ in others)], [best["learner"], *(state for _, _, state in others)]


def _take_apart(batch: Batch) -> Iterator[tuple[Examples, Examples, int, Mapping[str, Tensor]]]:
    for row in range(batch.n_tasks):
        support, query = (Examples(side.x[row], side.y[row]) for side in (batch.support, batch.query))
        yield support, query, batch.n_way, batch.facts(row)
