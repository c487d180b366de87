"""Random numbers by name, so that one consumer more or less changes nothing for the others."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed for the consumer `name` of a run with `seed`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int, name: str) -> None:
    """Seed the global generators that layers draw from: initial weights, dropout.

    Episodes do not depend on them (metarun/core/episodes.py).
    """
    value = derive_seed(seed, name)
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)
