from __future__ import annotations

from torch import Tensor, nn

from metarun.backbones.maps import MapNetwork, convolution, image_shape
from metarun.core.ranges import NonNegativeFloat, PositiveInt
from metarun.ops.noise import Noise, check_rate
from metarun.ops.norm import batch_norm


class WideResNet(MapNetwork):
    """Wide residual network, by default WRN-28-10: three stages of blocks with a normalisation before each convolution.

    Shapes: x [R, C, H, W] -> features [R, out_features]; feature_map [R, *map_shape].
    Args:
        input_shape: C, H, W.
        bn: where normalisation takes its statistics from, see metarun/ops/norm.py.
        depth: number of convolutions, 6 n + 4 for n blocks per stage.
        width: the stages have 16, 32 and 64 times this many filters; the last two halve height and width.
        drop_rate: share of numbers dropped between the two convolutions of a block in training, in [0, 1); the paper
            has 0 or 0.3. Inner loops drop nothing, see metarun/ops/noise.py.
        pool: average the last map over positions, see MapNetwork.
    Raises: ValueError if there is no network of this depth.
    Reference: Zagoruyko, Komodakis. Wide Residual Networks. BMVC 2016. arXiv:1605.07146, table 1.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        depth: PositiveInt = 28,
        width: PositiveInt = 10,
        drop_rate: NonNegativeFloat = 0.0,
        pool: bool = True,
    ) -> None:
        channels, height, wide = image_shape("WRN", input_shape)
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"backbone.depth={depth} is not 6 n + 4 for a number n of blocks: 10, 16, 22, 28, ...")
        check_rate(drop_rate)
        inputs = 16
        layers: list[nn.Module] = [convolution(channels, inputs, bn)]
        for stage in range(3):
            outputs = 16 * 2**stage * width
            for block in range((depth - 4) // 6):
                layers.append(WideBlock(inputs, outputs, bn, 2 if stage and not block else 1, drop_rate))
                inputs = outputs
        layers += [batch_norm(outputs, bn), nn.ReLU()]
        super().__init__(nn.Sequential(*layers), (outputs, -(-height // 4), -(-wide // 4)), pool)


class WideBlock(nn.Module):
    """A block that normalises first. If the shape changes, the shortcut starts behind the first normalisation."""

    def __init__(self, inputs: int, outputs: int, bn: str, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.before = nn.Sequential(batch_norm(inputs, bn), nn.ReLU())
        body = [convolution(inputs, outputs, bn, stride=stride), batch_norm(outputs, bn), nn.ReLU()]
        body += [Noise(nn.Dropout(drop_rate))] if drop_rate else []
        self.body = nn.Sequential(*body, convolution(outputs, outputs, bn))
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else convolution(inputs, outputs, bn, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        ready = self.before(x)
        out: Tensor = self.body(ready) + (x if self.shortcut is None else self.shortcut(ready))
        return out
