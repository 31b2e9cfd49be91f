"""Encoders and heads."""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plugins import is_plugin
from nnclr_study.trainer.plugins import KEEPS_WEIGHTS, plugin_encoder

WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SMALL_SIDE = 64
"""Images up to this side get the small stem, as CIFAR's do everywhere."""


def build_encoder(config: TrialConfig, side: int) -> nn.Module:
    """Return the encoder: (B, 3, side, side) images to (B, config.features).

    Raises:
        PluginError: it is a plug-in that is missing, or not what it should be.
    """
    if is_plugin(config.encoder):
        return plugin_encoder(config, side)
    if config.encoder == "conv4":
        return conv4(config.width, side)
    block, layers = {
        "resnet18": (BasicBlock, [2, 2, 2, 2]),
        "resnet50": (Bottleneck, [3, 4, 6, 3]),
    }[config.encoder]
    return WidthResNet(block, layers, config.width, small_stem=side <= SMALL_SIDE)


def conv4(width: int, side: int) -> nn.Sequential:
    """Return the Keras example's 4-convolution encoder; its features are >= 0."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, channels in enumerate([3, width, width, width]):
        layers[f"conv{index}"] = nn.Conv2d(channels, width, kernel_size=3, stride=2)
        layers[f"relu{index}"] = nn.ReLU(inplace=True)
        side = (side - 3) // 2 + 1
    layers["flatten"] = nn.Flatten()
    layers["dense"] = nn.Linear(width * side * side, width)
    layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


class WidthResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet without its classifier, `width` channels in its first stage.

    At width 64 its weights have torchvision's names and shapes. The small stem is a 3x3
    convolution of stride 1 and no pooling (arXiv 2002.05709, B.9).
    """

    def __init__(
        self, block: type[nn.Module], layers: list[int], width: int, small_stem: bool
    ) -> None:
        super().__init__(block, layers)
        self.inplanes = width
        kernel, stride = (3, 1) if small_stem else (7, 2)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        if small_stem:
            self.maxpool = nn.Identity()
        self.layer1 = self._make_layer(block, width, layers[0])
        for stage in (1, 2, 3):
            layer = self._make_layer(block, width * 2**stage, layers[stage], stride=2)
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = nn.Identity()


def unusable(tensors: Mapping[str, Tensor]) -> str | None:
    """Return why tensors from a file cannot be an encoder's weights; None: they can."""
    for name, tensor in tensors.items():
        counts = name.endswith("num_batches_tracked") and tensor.dtype == torch.int64
        if not counts and tensor.dtype not in WEIGHT_TYPES:
            return f"{name} holds {str(tensor.dtype).removeprefix('torch.')} values, not floats"
        if not tensor.float().isfinite().all():
            return f"{name} holds NaN or infinite values, which are no numbers"
    return None


def mlp(dims: list[int], batch_norm: bool, norm_output: bool) -> nn.Sequential:
    """Return linear layers `dense0`, `dense1`, .. through `dims`, with ReLU between them.

    Args:
        dims: input, hidden and output dimensions.
        batch_norm: normalise after every hidden layer.
        norm_output: and after the last.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (before, after) in enumerate(pairwise(dims)):
        last = index == len(dims) - 2
        layers[f"dense{index}"] = nn.Linear(before, after)
        if batch_norm and (norm_output or not last):
            layers[f"norm{index}"] = nn.BatchNorm1d(after)
        if not last:
            layers[f"relu{index}"] = nn.ReLU()
    return nn.Sequential(layers)


def projection_head(config: TrialConfig) -> nn.Sequential:
    """Return the head whose output the queue holds: (B, features) to (B, projection_dim)."""
    hidden = [config.projector_width] * (config.projector_depth - 1)
    dims = [config.features, *hidden, config.projection_dim]
    return mlp(dims, config.head_batch_norm, norm_output=True)


def prediction_head(config: TrialConfig) -> nn.Module:
    """Return what predicts a neighbour from a projection (the paper's), or the identity."""
    if config.predictor_width is None:
        return nn.Identity()
    dims = [config.projection_dim, config.predictor_width, config.projection_dim]
    return mlp(dims, config.head_batch_norm, norm_output=False)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights: Glorot uniform and biases 0 as Keras does, He normal in ResNets.

    The encoder of a plug-in keeps those that it came with.
    """
    if hasattr(module, KEEPS_WEIGHTS):
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and isinstance(module, ResNet):
            nn.init.kaiming_normal_(
                layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
