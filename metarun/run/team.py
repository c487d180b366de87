"""The processes that share the tasks of a run and stay in step."""

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
    """The processes that share the tasks, this one among them; a group of size 1 is this process alone.

    All have the same weights, bit for bit. Each computes the gradient of its part of a meta-batch, they average the
    gradients over the tasks, and then each makes the same step of the optimizer. Only the first process writes.

    Args:
        rank: number of this process, from 0.
        size: number of processes; from 2 on, torch.distributed connects them.
        seed: seed of the noise that methods draw in training; each process draws its own.
        connect: waits until all processes are there.
    """

    def __init__(self, rank: int = 0, size: int = 1, seed: int = 0, connect: Callable[[], None] = lambda: None) -> None:
        self.rank, self.size, self.seed, self.connect = rank, size, seed, connect
        self.weight = 1.0

    def share(self, n: int) -> tuple[int, int]:
        """Return this process's part of n tasks: the first task, and the one after the last."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def tie(self, optim: Optimizer) -> None:
        """Make `optim` step by the mean gradient. Call this before adding hooks that read gradients."""
        if self.size > 1:
            optim.register_step_pre_hook(self._average)

    def outer_step(
        self, learner: Learner, state: Any, batch: Any, optims: dict[str, Optimizer], step: int
    ) -> tuple[Any, Metrics]:
        """Make outer step number `step` on this process's part of a meta-batch; return metrics of the whole.

        Buffers, such as the running averages of BatchNorm, change by the mean of their changes in all processes.
        """
        if self.size == 1:
            return learner.outer_step(state, batch, optims)
        assert state is None, "a learner whose outer steps hand on a state must declare shareable = False"
        assert hasattr(batch, "tasks"), "a learner that does not train on tasks must declare shareable = False"
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

    def gather(self, scores: Tensor, n: int) -> Tensor:
        """Gather the scores of n tasks [n, ...] on the CPU; `scores` are those of this process's part."""
        if self.size == 1:
            return scores.cpu()
        first, last = self.share(n)
        whole = torch.zeros(n, *scores.shape[1:], dtype=scores.dtype)
        whole[first:last] = scores
        self.sum(whole)
        return whole

    def ask_first(self, value: float) -> float:
        """Return the value that the first process has."""
        if self.size == 1:
            return value
        told = torch.tensor([value if self.rank == 0 else 0.0], dtype=torch.float64)
        self.sum(told)
        return float(told)

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            self.sum(torch.zeros(1))

    def sum(self, flat: Tensor) -> None:
        """Add up the tensors of all processes, in place. Raises: Lost if a process has ended."""
        try:
            if flat.is_cuda:  # gloo notices that a process has ended; nccl would wait for it
                dist.all_reduce(torch.zeros(1))
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise Lost("another process of this run has ended") from error

    def _average(self, optim: Optimizer, args: Any, kwargs: Any) -> None:
        weights = [weight for group in optim.param_groups for weight in group["params"] if weight.grad is not None]
        for weight, grad in zip(weights, self._mean([weight.grad for weight in weights]), strict=True):
            weight.grad = grad

    def _mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the mean of each tensor over the tasks of the meta-batch, by one exchange."""
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]) * self.weight
        self.sum(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]
