"""TorchOpt, as its MAML example uses it: a differentiable optimizer moves the network, which is then moved back."""

from __future__ import annotations

import torch
import torchopt
from torch import Tensor

from contestants.peer import Learn2learn, Task
from contestants.settings import Setting


class TorchOpt(Learn2learn):
    """One setting of MAML, on the networks that learn2learn has."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.inner = torchopt.MetaSGD(self.net, lr=setting.inner_lr)

    def logits(self, task: Task) -> Tensor:
        start = [torchopt.extract_state_dict(moved, by="reference") for moved in (self.net, self.inner)]
        for _ in range(self.setting.steps):
            self.inner.step(self.loss(self.net(task.support_x), task.support_y))
        with torch.set_grad_enabled(self.setting.use == "train"):
            logits: Tensor = self.net(task.query_x)
        for moved, state in zip((self.net, self.inner), start, strict=True):
            torchopt.recover_state_dict(moved, state)
        return logits
