from __future__ import annotations

from collections.abc import Sequence

from metarun.backbones.pretrained import classifier
from metarun.backbones.trained_network import TrainedNetwork, WeightsLook
from metarun.core.ranges import FilePath, PositiveInt


class Torchvision(TrainedNetwork):
    """Any classifier of torchvision by its name, without its last linear layer, with or without trained weights.

    Shapes: x [R, C, H, W] -> features [R, out_features].
    Args:
        input_shape, bn, normalisation: see TrainedNetwork.
        name: name of the model, such as resnet18, convnext_tiny or vit_b_16.
        weights: null for random weights; DEFAULT or another name of the model's weights, which torchvision downloads;
            or a file with the model's state_dict, which may lack the last layer.
        frozen: learn nothing of the network, neither in the outer nor in an inner loop; with `bn=running` the averages
            stay too. The network then has no parameters.
        image_size: side in pixels that images are scaled to; null means the size of the weights, or no scaling without
            weights.
    Raises: ValueError if there is no such model or no such weights, or it does not take these images.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        bn: str,
        normalisation: tuple[Sequence[float], Sequence[float]] | None,
        name: str = "resnet18",
        weights: FilePath | None = None,
        frozen: bool = False,
        image_size: PositiveInt | None = None,
    ) -> None:
        net, transforms = classifier(name, weights)
        look = None
        if transforms:
            look = WeightsLook(transforms.mean, transforms.std, transforms.crop_size[0], transforms.interpolation.value)
        super().__init__(net, look, input_shape, bn, normalisation, name, frozen, image_size)
