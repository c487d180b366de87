"""Print what a machine has, and whether float32 means float32 there.

python scripts/gpu/machine.py DEVICE      # exits with 1 if products or convolutions are rounded
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from metarun.core.machine import count_cores
from metarun.core.tuning import set_precision
from metarun.run.results import read_versions


def main(device: str) -> int:
    """Print versions, the device, and the precision of products and convolutions."""
    backends: Any = torch.backends
    print(", ".join(f"{name} {version}" for name, version in read_versions().items()))
    if device != "cpu":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        print(f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, {count_cores()} cores")
        print(f"cuDNN {backends.cudnn.version()}, CUDA {torch.version.cuda}")
    else:
        print(f"CPU, {count_cores()} cores")
    before = backends.cudnn.conv.fp32_precision
    set_precision("float32")
    found = {
        "cudnn.conv": backends.cudnn.conv.fp32_precision,
        "cudnn.rnn": backends.cudnn.rnn.fp32_precision,
        "cuda.matmul": backends.cuda.matmul.fp32_precision,
    }
    print(f"float32 is {found}; cudnn.conv was {before}")
    return int(set(found.values()) != {"ieee"})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
