"""Embeddings of images by a network that stays as it is: computed once, for all tests of it and the next command."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from metarun.core.cached import EMBEDDINGS
from metarun.core.whole import written_whole

MAX_BYTES = 2**31
"""Bytes of embeddings that are kept of a network."""

log = logging.getLogger(__name__)


class Features:
    """What a network has made of batches of images, by the hash of their numbers: in memory, and in a file.

    The file's name is a hash of the network: of its settings, its structure and all its numbers. A damaged file is made
    again.

    Args:
        folder: where the files lie.
        key: what else the embeddings depend on: settings of the network, precision, device.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.known: dict[Path, dict[str, Tensor]] = {}
        self.grown: set[Path] = set()

    def remember(self, network: nn.Module, encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return `encode`, which embeds by `network`, so that it computes nothing twice."""
        file = self.folder / f"{EMBEDDINGS}{hash_network(network, self.key)[:16]}.safetensors"
        if file not in self.known:
            self.known[file] = _read(file)
        known = self.known[file]
        size = sum(one.nbytes for one in known.values())

        def encode_once(x: Tensor) -> Tensor:
            nonlocal size
            name = hashlib.sha256(f"{x.dtype}{tuple(x.shape)}".encode() + _read_bytes(x)).hexdigest()
            if name not in known:
                embedded = encode(x)
                if size + embedded.nbytes > MAX_BYTES:
                    return embedded
                known[name] = embedded.cpu().clone(memory_format=torch.contiguous_format)  # for the file, and no view
                size += embedded.nbytes
                self.grown.add(file)
            return known[name].to(x.device)

        return encode_once

    def write(self) -> None:
        """Write what is new, if the folder lets us."""
        for file in sorted(self.grown):
            tensors = self.known[file]
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with written_whole(file) as out:
                    out.write(save(tensors, {"sha256": _hash_tensors(tensors)}))
            except OSError as error:
                log.info("embeddings are not kept for the next command: %s", error)
        self.grown.clear()


def hash_network(network: nn.Module, key: str) -> str:
    """Return a hash of all numbers of a network, those that are not saved too, with its structure and `key`."""
    digest = hashlib.sha256(f"{key}\n{network!r}\n{network.training}".encode())
    for name, value in sorted([*network.named_parameters(), *network.named_buffers()]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + _read_bytes(value))
    return digest.hexdigest()


def _read(file: Path) -> dict[str, Tensor]:
    """Read the embeddings in a file; none if it is missing, damaged or changed."""
    try:
        with safe_open(file, framework="pt") as found:
            tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
            told = (found.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return {}
    return tensors if told == _hash_tensors(tensors) else {}


def _hash_tensors(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + _read_bytes(tensors[name]))
    return digest.hexdigest()


def _read_bytes(x: Tensor) -> bytes:
    return x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
