from __future__ import annotations

import torch
from torch import Tensor, nn


class Count(nn.Module):
    """A whole number in a learner's state that controls its computation. It is read without waiting for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.number)

    def set_extra_state(self, state: Tensor) -> None:
        self.number = int(state)
