"""Encoders that others trained: ResNets, recognised by the names and shapes of their weights."""

import re
import stat
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from nnclr_study.errors import UsageError, cut, shown
from nnclr_study.trainer.encoder import WidthResNet, unusable
from nnclr_study.trainer.protocols import Subject

PICKLED = {".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl"}
PREFIX = re.compile(
    r"((?:(?:module|backbone|encoder|encoder_q|model)\.)*)layer1\.0\.conv1\.weight"
)
"""What training scripts put before an encoder's names; MoCo's is `module.encoder_q.`."""
NORMALISED = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation by name; `imagenet`: torchvision's."""
CONVERT = "bring its state dict into a safetensors file, with"
LARGEST = 2**18
"""Length of a weight along one dimension; the widest ResNets have thousands."""
MOST_WEIGHTS = 20_000
"""Tensors of an encoder; a ResNet of 1,000 layers has 6,000."""
SHOWN = 3
"""Names of weights that an error lists."""


class Published(NamedTuple):
    """An encoder that others trained, and what it is in words."""

    about: str
    subject: Subject


def published(path: Path, normalise: str) -> Published:
    """Return the ResNet whose weights lie in a safetensors file. Nothing is unpickled.

    Its depth, width and stem follow from the shapes. A 3x3 stem is taken for one of stride 1
    without pooling. A classifier `fc`, and what lies beside a prefixed encoder, is left out.

    Args:
        path: of the file.
        normalise: a name of `NORMALISED`, or MEAN/STD, three numbers each.

    Raises:
        UsageError: it is not there, no safetensors, or no ResNet as torchvision has it.
    """
    mean_3, std_3 = _normalisation(normalise)
    if path.suffix in PICKLED:
        raise UsageError(f"{path} is a pickle, which can run code; {CONVERT}", *_conversion(path))
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is not a regular file; give a safetensors file")
        with safe_open(path, framework="pt") as file:
            names = _named(path, file.keys())
            shapes = {own: file.get_slice(name).get_shape() for own, name in names.items()}
            _check_sizes(path, shapes)
            kind, block, layers = _recognised(path, shapes)
            width, stem = shapes["conv1.weight"][0], shapes["conv1.weight"][-1]
            build = partial(_build, block, layers, width, stem == 3, mean_3, std_3)
            with torch.device("meta"):  # a file's claims cost no memory before they are checked
                model = build()
            _check(path, shapes, model.state_dict())
            tensors = {own: file.get_tensor(name) for own, name in names.items()}
    except FileNotFoundError:
        raise UsageError(f"{path} is not there") from None
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{path} cannot be read as safetensors ({error}); {CONVERT}", *_conversion(path)
        ) from None
    if wrong := unusable(tensors):
        raise UsageError(f"{path} cannot be used as an encoder: {wrong}")
    features = 8 * width * (4 if block is Bottleneck else 1)
    about = f"{kind}, width {width}, {stem}x{stem} stem"
    return Published(about, Subject(build, tensors, features, seed=0, precision="float32"))


def _normalisation(text: str) -> tuple[list[float], list[float]]:
    if text in NORMALISED:
        mean, std = NORMALISED[text]
        return list(mean), list(std)
    try:
        mean_3, std_3 = ([float(n) for n in part.split(",")] for part in text.split("/"))
        if len(mean_3) == len(std_3) == 3 and min(std_3) > 0:
            return mean_3, std_3
    except ValueError:
        pass
    raise UsageError(
        f"--normalise {text}: use {', '.join(NORMALISED)}, or a mean and a standard deviation "
        "of red, green and blue from 0 to 1, as 0.49,0.48,0.45/0.25,0.24,0.26"
    )


def _conversion(path: Path) -> tuple[str, str]:
    """Return the lines of Python that convert a pickle."""
    return (
        f'    state = torch.load("{path.name}", map_location="cpu", weights_only=True)',
        f'    safetensors.torch.save_file(state.get("state_dict", state), '
        f'"{path.stem}.safetensors")',
    )


def _named(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the encoder's weights, by torchvision's names, as the file names them."""
    names = list(names)
    prefixes = [found[1] for name in names if (found := PREFIX.fullmatch(name))]
    if len(prefixes) != 1:
        several = f"several encoders, {', '.join(prefixes)}" if prefixes else _some(names)
        raise UsageError(
            f"{path} holds {several}, and not the weights of one ResNet as torchvision has it "
            "(conv1.weight, layer1.0.conv1.weight ..); save the state dict of such an encoder"
        )
    (prefix,) = prefixes
    own = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    return {short: name for short, name in own.items() if not short.startswith("fc.")}


def _check_sizes(path: Path, shapes: Mapping[str, Any]) -> None:
    """Refuse shapes of which no encoder could be built, however few bytes a file has for them."""
    for name, shape in shapes.items():
        if not all(0 < length <= LARGEST for length in shape):
            raise UsageError(
                f"{path} is no ResNet as torchvision has it: {shown(name)} has the shape "
                f"{cut('x'.join(map(str, shape)), 40)}, and a length is from 1 to {LARGEST:,}; "
                "save the state dict of such an encoder"
            )
    if len(shapes) > MOST_WEIGHTS:
        raise UsageError(
            f"{path} holds {len(shapes):,} weights, and an encoder has {MOST_WEIGHTS:,} at most; "
            "save the state dict of one"
        )


def _recognised(path: Path, shapes: Mapping[str, Any]) -> tuple[str, type[nn.Module], list[int]]:
    """Return a ResNet's name, block and number of blocks a stage."""
    block = Bottleneck if "layer1.0.conv3.weight" in shapes else BasicBlock
    stages = [re.match(r"layer([1-4])\.(\d+)\.", name) for name in shapes]
    blocks = {(int(found[1]), int(found[2])) for found in stages if found}
    layers = [sum(stage == of for of, _ in blocks) for stage in (1, 2, 3, 4)]
    if not all(layers) or len(shapes.get("conv1.weight", ())) != 4:
        raise UsageError(
            f"{path} is no ResNet as torchvision has it: conv1.weight or one of its four stages "
            "is missing; save the state dict of a whole encoder"
        )
    depth = sum(layers) * (3 if block is Bottleneck else 2) + 2
    return f"resnet{depth}", block, layers


def _build(
    block: type[nn.Module],
    layers: list[int],
    width: int,
    small_stem: bool,
    mean_3: list[float],
    std_3: list[float],
) -> nn.Module:
    model = WidthResNet(block, layers, width, small_stem)
    for name, values in (("input_mean", mean_3), ("input_std", std_3)):
        model.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
    model.register_forward_pre_hook(_normalised)
    return model


def _normalised(model: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
    return (given[0] - model.input_mean) / model.input_std  # type: ignore[operator]


def _check(path: Path, shapes: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> None:
    counts = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = wanted.keys() - counts - shapes.keys()
    strange = shapes.keys() - wanted.keys()
    differing = [
        f"{name} ({'x'.join(map(str, shapes[name]))}, not {'x'.join(map(str, tensor.shape))})"
        for name, tensor in wanted.items()
        if name in shapes and list(shapes[name]) != list(tensor.shape)
    ]
    found = (("it lacks", missing), ("has besides", strange), ("has other shapes:", differing))
    if wrong := [f"{said} {_some(sorted(names))}" for said, names in found if names]:
        raise UsageError(
            f"{path} is no ResNet as torchvision has it: {'; '.join(wrong)}; "
            "save the state dict of such an encoder"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"
