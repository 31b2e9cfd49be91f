"""What a plug-in is: the contracts of data sets, encoders and augmentations, in one place.

docs/plugins.md shows a package that brings one of each.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nnclr_study.study.config import TrialConfig

PARTS = ("train", "test", "unlabelled")


class Part(NamedTuple):
    """Images that belong together."""

    length: int
    read: Callable[[int], np.ndarray | Image.Image]
    """Returns an image by its number: (H, W, 3) uint8, or as PIL opens it. Called in threads."""
    labels: np.ndarray | None
    """(length,) class numbers; None: unlabelled."""
    name: Callable[[int], str] | None = None
    """Returns what messages call an image; None: they give its number."""

    def named(self, part: str, row: int) -> str:
        """Return what messages call an image of the part of this name."""
        return self.name(row) if self.name else f"image {row} of {part}"


class Original(NamedTuple):
    """A data set as it comes: parts `train`, `test` and, where there are any, `unlabelled`."""

    classes: list[str]
    parts: dict[str, Part]
    notes: Sequence[str] = ()
    """Lines on what was done with files, such as those that were ignored."""
    warnings: Sequence[str] = ()
    """Lines on what may be a mistake, each with a fix."""


class DatasetPlugin(NamedTuple):
    """Of the group `nnclr_study.datasets`. Both are given the folder of `--data`."""

    key: Callable[[Path], str]
    """Returns a text that follows the images: where it is another, they are prepared anew."""
    open: Callable[[Path, int], Original]
    """Opens the data set; the number is the side in pixels to which images will be resized."""


EncoderPlugin = Callable[[TrialConfig, int], nn.Module]
"""Of the group `nnclr_study.encoders`: returns the encoder of a trial for images of a side.

It takes float32 images (B, 3, side, side) from 0 to 1 and gives float32 features (B, width), of
the knob `width`. Its weights stay as it made them; they follow the trial's seed where torch's own
generator draws them. It makes no random choices of its own when it encodes.
"""

AugmentationPlugin = Callable[[Tensor, torch.Generator, float], Tensor]
"""Of the group `nnclr_study.augmentations`: returns random views of images, in their shape.

They are float32 (B, 3, S, S) from 0 to 1 on the trial's device; they may be changed in place. The
generator, of the same device, is all the randomness there is; the number is `aug_strength`. The
images were flipped before, and cropped, shifted and so on as far as the study file sets these
parts: a plug-in's recipe has none. At strength 0 it is not called.
"""
