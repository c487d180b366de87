"""Which convolutions are timed, and the ways in which each is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from metarun.ops import patches
from metarun.ops.convolution import Geometry, choose_way, put_channels_last


class Shape(NamedTuple):
    """One layer on the images of one meta-batch."""

    net: str
    channels: int
    filters: int
    side: int
    stride: int
    tasks: int
    rows: int

    @property
    def name(self) -> str:
        layer = f"{self.channels}-{self.filters} on {self.side}x{self.side}/{self.stride}"
        return f"{self.net:14} {layer:22} {self.tasks:4} x {self.rows:3}"

    @property
    def geometry(self) -> Geometry:
        return Geometry((self.stride, self.stride), (1, 1), self.tasks)

    @property
    def out(self) -> int:
        return (self.side - 1) // self.stride + 1

    @property
    def flops(self) -> int:
        return 2 * self.tasks * self.rows * self.out**2 * self.filters * self.channels * 9

    @property
    def bytes(self) -> int:
        """Of a table of patches, its copy and the images beside it: what the hungriest way asks for in float32."""
        patches = self.tasks * self.rows * max(self.out**2 * self.channels, self.side**2 * self.filters)
        return 4 * patches * (2 * 9 + 4)


LAYERS = {  # C, O, side, stride
    "omniglot /2": [(1, 64, 28, 2), (64, 64, 14, 2), (64, 64, 7, 2), (64, 64, 4, 2)],
    "omniglot pool": [(1, 64, 28, 1), (64, 64, 14, 1), (64, 64, 7, 1)],
    "cifar": [(3, 64, 32, 1), (64, 64, 16, 1), (64, 64, 8, 1)],
    "84x84": [(3, 32, 84, 1), (32, 32, 42, 1), (32, 32, 21, 1)],
}
OWN = [(32, 5), (4, 25), (32, 25), (4, 5), (128, 5), (4, 80), (32, 80), (128, 25), (128, 80)]
"""Tasks, and images of each, with filters of their own; those that matter most first."""

SHARED = [(1, 25), (1, 160), (1, 800), (1, 5), (1, 80)]
"""The same with filters that tasks share, so that all images are of one."""

RESNET = [(64, 64, 32, 1), (160, 160, 16, 1), (320, 320, 8, 1), (640, 640, 4, 1)]


def shapes(quick: bool) -> Iterator[Shape]:
    """All that are timed, the most telling first."""
    if quick:
        for net, (layer, *_) in LAYERS.items():
            yield Shape(net, *layer, 2, 2)
        yield Shape("omniglot /2", *LAYERS["omniglot /2"][1], 2, 2)
        yield Shape("resnet12", *RESNET[-1], 1, 2)
        return
    for place in range(max(len(OWN), len(SHARED))):
        for net, layers in LAYERS.items():
            for tasks, rows in (*OWN[place : place + 1], *SHARED[place : place + 1]):
                yield from (Shape(net, *layer, tasks, rows) for layer in layers)
        yield from (Shape("resnet12", *layer, 1, 100) for layer in RESNET if place == 0)


Operations = dict[str, dict[str, Callable[[], Tensor]]]


def operations(shape: Shape, device: torch.device) -> Operations:
    """By operation and way, what is timed; torch's first."""
    generator = torch.Generator(device).manual_seed(0)

    def images(channels: int, side: int) -> Tensor:
        return torch.randn(shape.rows, shape.tasks * channels, side, side, device=device, generator=generator)

    x, gy = images(shape.channels, shape.side), images(shape.filters, shape.out)
    size = (shape.tasks * shape.filters, shape.channels, 3, 3)
    w, g = torch.randn(size, device=device, generator=generator), shape.geometry
    aten = torch.ops.aten

    def backward(gy: Tensor, x: Tensor, w: Tensor, image: bool) -> Tensor:
        wanted = (image, not image, False)
        found = aten.convolution_backward(gy, x, w, None, *g[:2], (1, 1), False, (0, 0), g.groups, wanted)
        gradient: Tensor = found[0 if image else 1]
        return gradient

    def forward(x: Tensor) -> Tensor:
        y: Tensor = aten.convolution(x, w, None, *g[:2], (1, 1), False, (0, 0), g.groups)
        return y

    ways: Operations = {
        "y": {"grouped": lambda: forward(x), "patches": lambda: patches.convolve(x, w, *g)},
        "gw": {
            "grouped": lambda: backward(gy, x, w, False),
            "patches": lambda: patches.filter_gradient(gy, x, *g, w.shape),
        },
    }
    if shape.channels <= 3:  # the images themselves, of which nobody wants the gradient
        return ways
    ways["gx"] = {
        "grouped": lambda: backward(gy, x, w, True),
        "folded": lambda: patches.folded_image_gradient(gy, w, *g, x.shape),
    }
    if shape.stride == 1:
        ways["gx"]["turned"] = lambda: patches.turned_image_gradient(gy, w, g.padding, g.groups)
    if shape.tasks == 1:
        last, last_gy = put_channels_last(x), put_channels_last(gy)  # as the layers before and after leave them
        ways["y"]["last"] = lambda: forward(last)
        ways["gx"]["last"] = lambda: backward(last_gy, last, w, True)
        ways["gw"]["last"] = lambda: backward(last_gy, last, w, False)
    return ways


def searched(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same by the fastest of cuDNN's ways, for which it tries them all at the first call."""

    def run() -> Tensor:
        torch.backends.cudnn.benchmark = True
        try:
            return call()
        finally:
            torch.backends.cudnn.benchmark = False

    return run


def by_rule(shape: Shape, device: torch.device) -> dict[str, str]:
    """The way that ops/convolution.py takes for each operation."""
    images = (shape.rows, shape.tasks * shape.channels, shape.side, shape.side)
    filters = (shape.tasks * shape.filters, shape.channels, 3, 3)
    like = torch.empty(0, device=device)
    chosen: dict[str, str] = {op: choose_way(op, like, images, filters, shape.geometry) for op in ("y", "gx", "gw")}
    if chosen["gx"] == "patches":
        chosen["gx"] = "turned" if patches.is_faster_turned(images, filters, *shape.geometry) else "folded"
    return chosen
