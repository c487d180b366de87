from __future__ import annotations

import torch
from torch import Tensor, nn

from metarun.backbones.maps import image_shape
from metarun.core.ranges import PositiveInt
from metarun.ops.convolution import Conv2d
from metarun.ops.layer_norm import LayerNorm


class ViT(nn.Module):
    """A small vision transformer: the patches of an image attend to each other, and features are the mean token.

    It normalises each patch separately (LayerNorm), so the run's `bn` has no effect. There is no class token and no
    dropout. Attention is written out, since torch's fused kernels have no second derivative.

    Shapes: x [R, C, H, W] -> features [R, hidden]; feature_map [R, *map_shape] has a position for each patch.
    Args:
        input_shape: C, H, W.
        hidden: length of a token, a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads in each block.
        patch_size: side of a patch in pixels; pixels beyond the last whole patch are cut off. null means about a
            seventh of the shorter side, so that 28, 84 and 224 pixels make 7x7 patches.
        mlp_ratio: hidden units between a block's two linear layers, as a multiple of `hidden`.
        pool: average the tokens; otherwise features are all tokens.
    Raises: ValueError if `heads` does not divide `hidden` or a patch is larger than the images.
    Reference: Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021. arXiv:2010.11929, equations 1 to 4.
        Beyer, Zhai, Kolesnikov. Better plain ViT baselines for ImageNet-1k. 2022. arXiv:2205.01580 (mean of tokens).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        hidden: PositiveInt = 192,
        layers: PositiveInt = 6,
        heads: PositiveInt = 4,
        patch_size: PositiveInt | None = None,
        mlp_ratio: PositiveInt = 4,
        pool: bool = True,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape("ViT", input_shape)
        side = patch_size or max(1, min(height, width) // 7)
        if side > min(height, width):
            raise ValueError(f"backbone.patch_size={side} is above the {height}x{width} pixels of the images")
        if hidden % heads:
            raise ValueError(f"backbone.hidden={hidden} is no multiple of backbone.heads={heads}")
        self.map_shape = (hidden, height // side, width // side)
        patches = self.map_shape[1] * self.map_shape[2]
        self.pool, self.out_features = pool, hidden if pool else hidden * patches
        self.patches = Conv2d(channels, hidden, side, stride=side)
        self.places = nn.Parameter(torch.empty(1, patches, hidden))
        nn.init.trunc_normal_(self.places, std=0.02)
        self.blocks = nn.Sequential(*(Block(hidden, heads, mlp_ratio) for _ in range(layers)))
        self.norm = LayerNorm(hidden)

    def feature_map(self, x: Tensor) -> Tensor:
        return self._tokens(x).mT.reshape(-1, *self.map_shape)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self._tokens(x)
        return tokens.mean(1) if self.pool else torch.flatten(tokens, 1)

    def _tokens(self, x: Tensor) -> Tensor:
        """Return the last layer's tokens [R, patches, hidden]."""
        tokens = self.patches(x).flatten(2).mT + self.places  # [R, patches, hidden], equation 1
        out: Tensor = self.norm(self.blocks(tokens))  # equation 4
        return out


class Block(nn.Module):
    """Attention between tokens, then two linear layers for each token. Both normalise first and add to their input.

    Shapes: tokens [R, T, hidden] -> the same.
    """

    def __init__(self, hidden: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = LayerNorm(hidden), LayerNorm(hidden)
        self.query_key_value, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, mlp_ratio * hidden), nn.GELU(), nn.Linear(mlp_ratio * hidden, hidden)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm_attention(tokens))  # equation 2
        out: Tensor = tokens + self.mlp(self.norm_mlp(tokens))  # equation 3
        return out

    def attention(self, tokens: Tensor) -> Tensor:
        """Average the values of all tokens for each token, weighted by how well its query matches their keys."""
        split = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)  # [R, heads, T, hidden / heads]
        weights = (query @ key.mT * key.shape[-1] ** -0.5).softmax(-1)  # [R, heads, T, T]
        out: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return out
