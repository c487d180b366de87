from __future__ import annotations

from torch import nn


def freeze(net: nn.Module) -> None:
    """Turn all parameters into buffers, which are saved and moved with the network but not learned."""
    for module in net.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, value.detach())
