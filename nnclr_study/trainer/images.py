"""Images where they lie: rows of an array that nobody copies."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from nnclr_study.trainer.world import CPU


class Images:
    """Some rows of an array of square RGB images, memory-mapped or on a GPU.

    Args:
        pixels: (N, 3, S, S) uint8. A memory map is shared by all processes of a machine.
        rows: which of them these are, (M,), on the device of the pixels.
    """

    def __init__(self, pixels: np.ndarray | Tensor, rows: Tensor) -> None:
        self._pixels, self._rows = pixels, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return images, (B, 3, S, S) uint8, on the device of the pixels."""
        picked = self._rows[rows]
        if isinstance(self._pixels, Tensor):
            return self._pixels[picked]
        return torch.from_numpy(self._pixels[picked.numpy()])

    @property
    def side(self) -> int:
        """Of the square images, in pixels."""
        return int(self._pixels.shape[-1])

    @property
    def rows(self) -> Tensor:
        """Numbers of these images in the array, (N,)."""
        return self._rows

    def some(self, rows: Tensor) -> "Images":
        """Return some of these images; nothing is copied."""
        return Images(self._pixels, self._rows[rows])

    def on(self, device: torch.device, held: dict[int, Tensor]) -> "Images":
        """Return the same images on a GPU; `held` has the arrays that are there already."""
        if isinstance(self._pixels, np.ndarray) and id(self._pixels) not in held:
            held[id(self._pixels)] = torch.from_numpy(np.ascontiguousarray(self._pixels)).to(
                device
            )
        return Images(held[id(self._pixels)], self._rows.to(device))


class Split(NamedTuple):
    """Labelled images and their (N,) class numbers."""

    images: Images
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """The images of a trial. `val` is held out of the labelled training images."""

    unlabelled: Images
    train: Split
    val: Split
    test: Split
    num_classes: int
    bytes: int
    """Of all pixels."""

    @property
    def side(self) -> int:
        """Of the square images, in pixels."""
        return self.unlabelled.side

    def on(self, device: torch.device) -> Self:
        """Return the same images and labels where a worker computes.

        On a GPU the pixels come along where they take at most half of its free memory;
        otherwise they stay where they are, to be streamed.
        """
        if device == CPU:
            return self
        splits = {
            name: getattr(self, name)._replace(labels=getattr(self, name).labels.to(device))
            for name in ("train", "val", "test")
        }
        unlabelled = self.unlabelled
        if self.bytes <= torch.cuda.mem_get_info(device)[0] / 2:
            held: dict[int, Tensor] = {}
            unlabelled = unlabelled.on(device, held)
            splits = {
                name: split._replace(images=split.images.on(device, held))
                for name, split in splits.items()
            }
        return replace(self, unlabelled=unlabelled, **splits)
