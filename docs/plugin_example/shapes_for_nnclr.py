"""A data set, an encoder and an augmentation for studies, found by their entry points."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.contracts import DatasetPlugin, Original, Part

CLASSES = ["disc", "square", "cross"]
COUNTS = {"train": 300, "test": 150, "unlabelled": 600}
PATCH = 8
"""Side of what the encoder looks at, in pixels."""


def _key(_folder: Path) -> str:
    return f"{CLASSES} {COUNTS}"


def _open(_folder: Path, image_size: int) -> Original:
    parts = {}
    for name, count in COUNTS.items():
        kinds = np.arange(count) % len(CLASSES)
        labels = None if name == "unlabelled" else kinds
        parts[name] = Part(count, partial(_draw, name, kinds, image_size), labels)
    return Original(CLASSES, parts)


def _draw(part: str, kinds: np.ndarray, side: int, row: int) -> np.ndarray:
    """Return a shape of a random colour at a random place: (side, side, 3) uint8."""
    random = np.random.default_rng([list(COUNTS).index(part), row])
    y, x = np.mgrid[:side, :side] / side - random.uniform(0.4, 0.6, (2, 1, 1))
    y, x, radius = abs(y), abs(x), random.uniform(0.2, 0.35)
    disc, square = np.hypot(x, y) < radius, np.maximum(x, y) < radius
    cross = square & (np.minimum(x, y) < radius / 4)
    inside = [disc, square, cross][kinds[row]][:, :, None]
    pixels: np.ndarray = np.where(inside, random.integers(0, 256, 3), random.integers(0, 256, 3))
    return pixels.astype(np.uint8)


shapes = DatasetPlugin(key=_key, open=_open)


def patches(config: TrialConfig, _side: int) -> nn.Module:
    """Return an encoder that looks at patches one by one, and takes the mean of all."""
    return nn.Sequential(
        nn.Conv2d(3, config.width, PATCH, stride=PATCH // 2),
        nn.GELU(),
        nn.Conv2d(config.width, config.width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def erase(images: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Return images with a grey square each, of up to half their side at strength 1."""
    count, side = len(images), images.shape[-1]
    draws = torch.rand(3, count, 1, generator=generator, device=images.device)
    length, top, left = draws.unbind()
    length = length * strength / 2
    pixel = torch.arange(side, device=images.device) / side
    rows, columns = (
        (pixel >= start * (1 - length)) & (pixel < start * (1 - length) + length)
        for start in (top, left)
    )
    erased = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(erased, 0.5)
