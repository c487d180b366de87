"""The processes that share the tasks of a run: each does some, and all stay in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from metarun.algos.base.learner import Learner
from metarun.core.seeding import derive_seed
from metarun.core.tasks import Metrics


class Lost(RuntimeError):
    """Another process of the group has ended."""


class Group:
    """This process and those that it shares the tasks with; of size 1, it alone.

    All have the same weights, bit for bit: each takes the gradient of its part of a meta-batch, all take their mean
    over the tasks, and then each does the same step of the optimizer. The first process alone writes.

    Args:
        rank: this process, from 0.
        size: all of them; from 2 on, torch.distributed connects them.
        seed: of the noise that methods draw in training, each process its own.
        connect: waits for the others to be there.
    """

    def __init__(self, rank: int = 0, size: int = 1, seed: int = 0, connect: Callable[[], None] = lambda: None) -> None:
        self.rank, self.size, self.seed, self.connect = rank, size, seed, connect
        self.weight = 1.0

    def share(self, n: int) -> tuple[int, int]:
        """This process's of n tasks, in order: the first, and the one after the last."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def tie(self, optim: Optimizer) -> None:
        """Make `optim` step by the mean gradient; before other hooks that look at gradients."""
        if self.size > 1:
            optim.register_step_pre_hook(self._average)

    def outer_step(
        self, learner: Learner, state: Any, batch: Any, optims: dict[str, Optimizer], step: int
    ) -> tuple[Any, Metrics]:
        """Outer step number `step` on a meta-batch, of which this process does its share; metrics are of the whole.

        Buffers, as the running averages of BatchNorm, move by the mean of how they move in each process.
        """
        if self.size == 1:
            return learner.outer_step(state, batch, optims)
        assert state is None, "a learner whose outer steps hand on a state has splits = False"
        assert hasattr(batch, "tasks"), "a learner that does not train on tasks has splits = False"
        torch.manual_seed(
            derive_seed(self.seed, f"training/{step}/{self.rank}")
        )  # so that a resumed run draws the same
        first, last = self.share(batch.n_tasks)
        self.weight = (last - first) / batch.n_tasks
        buffers = [buffer for buffer in learner.buffers() if buffer.is_floating_point()]
        before = [buffer.clone() for buffer in buffers]
        _, metrics = learner.outer_step(None, batch.tasks(first, last), optims)
        moves = [buffer - start for buffer, start in zip(buffers, before, strict=True)]
        means = self._mean([*metrics.values(), *moves])
        for buffer, start, move in zip(buffers, before, means[len(metrics) :], strict=True):
            buffer.copy_(start + move)
        return None, dict(zip(metrics, means[: len(metrics)], strict=True))

    def gathered(self, scores: Tensor, n: int) -> Tensor:
        """The scores of n tasks [n] on the CPU, of which `scores` are those of this process's share."""
        if self.size == 1:
            return scores.cpu()
        first, last = self.share(n)
        whole = torch.zeros(n, dtype=scores.dtype)
        whole[first:last] = scores
        self.sum(whole)
        return whole

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            self.sum(torch.zeros(1))

    def sum(self, flat: Tensor) -> None:
        """Add up what the processes have, in place. Raises: Lost if one of them has ended."""
        try:
            if flat.is_cuda:  # by gloo, which notices that a process has ended; nccl would wait for it
                dist.all_reduce(torch.zeros(1))
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise Lost("another process of this run has ended") from error

    def _average(self, optim: Optimizer, args: Any, kwargs: Any) -> None:
        weights = [weight for group in optim.param_groups for weight in group["params"] if weight.grad is not None]
        for weight, grad in zip(weights, self._mean([weight.grad for weight in weights]), strict=True):
            weight.grad = grad

    def _mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each over the tasks of the meta-batch, by one exchange."""
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]) * self.weight
        self.sum(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]
