"""Encoder, projection head and probe as the Keras example has them."""

from collections import OrderedDict

import torch
from torch import nn


def conv4(width: int, side: int) -> nn.Sequential:
    """Return the 4-convolution encoder: (B, 3, side, side) to (B, width) features >= 0."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, channels in enumerate([3, width, width, width]):
        layers[f"conv{index}"] = nn.Conv2d(channels, width, kernel_size=3, stride=2)
        layers[f"relu{index}"] = nn.ReLU()
        side = (side - 3) // 2 + 1
    layers["flatten"] = nn.Flatten()
    layers["dense"] = nn.Linear(width * side * side, width)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


def projection_head(width: int, projection_dim: int) -> nn.Sequential:
    """Return the two-layer head: (B, width) to (B, projection_dim), not normalised."""
    return nn.Sequential(
        OrderedDict(
            dense0=nn.Linear(width, width),
            relu=nn.ReLU(),
            dense1=nn.Linear(width, projection_dim),
        )
    )


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights as Keras does: Glorot uniform, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
