from __future__ import annotations

import math

from torch import Tensor, nn

from metarun.algos.processes.cnp import make_mlp

HALVINGS = 2


class ImageDecoder(nn.Module):
    """Turns vectors into images, or into numbers for each pixel: a map of a quarter of the side, doubled twice.

    Shapes: [R, inputs] -> [R, *shape].
    Args:
        inputs: size of a vector.
        shape: C, H, W of the result.
        filters: of the last map before the pixels; the first map has twice as many.
    """

    def __init__(self, inputs: int, shape: tuple[int, int, int], filters: int) -> None:
        super().__init__()
        self.shape = shape
        channels, *sides = shape
        height, width = (math.ceil(side / 2**HALVINGS) for side in sides)
        self.layers = nn.Sequential(
            nn.Linear(inputs, 2 * filters * height * width),
            nn.ReLU(),
            nn.Unflatten(1, (2 * filters, height, width)),
            nn.ConvTranspose2d(2 * filters, filters, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(filters, channels, 4, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out[..., : self.shape[1], : self.shape[2]]


def make_decoder(inputs: int, shape: tuple[int, ...], numbers: int, width: int, layers: int, filters: int) -> nn.Module:
    """Make a network from vectors [R, inputs] to `numbers` numbers for each number of an input [R, numbers, *shape].

    For images it is an ImageDecoder of `filters`, for other inputs an MLP of `layers` hidden layers of `width`.
    """
    if len(shape) == 3:
        channels, height, side = shape
        image = ImageDecoder(inputs, (numbers * channels, height, side), filters)
        return nn.Sequential(image, nn.Unflatten(1, (numbers, channels)))
    return nn.Sequential(
        make_mlp(inputs, width, layers, numbers * math.prod(shape)), nn.Unflatten(1, (numbers, *shape))
    )
