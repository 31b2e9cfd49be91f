"""Images where they lie: rows of an array that nobody copies."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from nnclr_study.trainer.world import CPU

COPIED_BYTES = 64 << 20
"""Of an array that is copied to a GPU, at a time."""

_on_gpu: dict[tuple[torch.device, int], tuple[np.ndarray, Tensor]] = {}
"""Arrays and their copies on a GPU, by device and the array's id, for a process's next trial."""


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

    def on(self, device: torch.device) -> "Images":
        """Return the same images on a GPU, to which their array is copied if it is not there."""
        if isinstance(self._pixels, Tensor):
            return Images(self._pixels.to(device), self._rows.to(device))
        key = device, id(self._pixels)
        if key not in _on_gpu:
            _on_gpu[key] = self._pixels, _copied(self._pixels, device)
        return Images(_on_gpu[key][1], self._rows.to(device))

    @staticmethod
    def free_others(needed: Iterable["Images"], device: torch.device) -> None:
        """Free the copies on GPUs of all arrays but those of the images that are needed on one."""
        wanted = {(device, id(images._pixels)) for images in needed}
        for key in _on_gpu.keys() - wanted:
            del _on_gpu[key]


def _copied(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Return a copy of an array on a GPU, made in parts: of a memory map torch takes none."""
    copy = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    length = max(1, COPIED_BYTES // max(1, pixels[:1].nbytes))
    for start in range(0, len(pixels), length):
        part = np.array(pixels[start : start + length])  # torch warns of arrays that are read-only
        copy[start : start + length] = torch.from_numpy(part)
    return copy


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

    def on(self, device: torch.device, gpu_share: float = 1.0) -> Self:
        """Return the same images and labels where a worker computes.

        On a GPU the pixels come along where they take at most half of the worker's share of its
        memory; otherwise they stay where they are, to be streamed. They stay on the GPU for the
        next trial of this process, unless it needs other images.
        """
        if device == CPU:
            return self
        splits = {
            name: getattr(self, name)._replace(labels=getattr(self, name).labels.to(device))
            for name in ("train", "val", "test")
        }
        unlabelled = self.unlabelled
        fits = self.bytes <= gpu_share * torch.cuda.mem_get_info(device)[1] / 2
        needed = [unlabelled, *(split.images for split in splits.values())]
        Images.free_others(needed if fits else [], device)
        if fits:
            unlabelled = unlabelled.on(device)
            splits = {
                name: split._replace(images=split.images.on(device))
                for name, split in splits.items()
            }
        return replace(self, unlabelled=unlabelled, **splits)
