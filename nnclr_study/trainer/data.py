"""Image sets as uint8 tensors: unlabelled, and labelled train / val / test."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nnclr_study.errors import DataError
from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.world import CPU, random_stream

SPLIT_SEED = 2104_14548
"""Fixes which images are val (and, for digits, which are what) in every trial of every study."""


class Split(NamedTuple):
    """Labelled images: (N, 3, S, S) uint8 and (N,) class numbers."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """The images of a trial. `val` is held out of the labelled training images."""

    unlabelled: Tensor
    train: Split
    val: Split
    test: Split
    num_classes: int

    @property
    def side(self) -> int:
        """Of the square images, in pixels."""
        return self.unlabelled.shape[-1]


def load_dataset(config: TrialConfig, folder: Path) -> Dataset:
    """Return the images of a trial; `folder` holds data sets that are not embedded.

    Raises:
        DataError: the images cannot be had, or are too few for a batch.
    """
    unlabelled, labelled, test = _load(config.dataset, folder)
    train, val = _hold_out(labelled, config.val_fraction)
    for count, kind, size, knob in (
        (len(unlabelled), "unlabelled", config.batch_size, "batch_size"),
        (len(train.labels), "labelled train", config.labelled_batch_size, "labelled_batch_size"),
    ):
        if count < size:
            raise DataError(
                f"{knob}={size} is more than the {count} {kind} images of {config.dataset}; "
                f"use {knob} <= {count}"
            )
    return Dataset(unlabelled, train, val, test, num_classes=int(test.labels.max()) + 1)


def batches(count: int, size: int, steps: range, seed: int, name: str) -> Tensor:
    """Return the indices of the batches of some steps, (len(steps), size).

    They are a window on an endless sequence of shuffled passes over `count` images, in which
    pass k depends on seed and k alone: a step's batch is the same however one got there.
    """
    first, last = steps.start * size, steps.stop * size
    passes = range(first // count, -(-last // count))
    shuffled = [torch.randperm(count, generator=random_stream(seed, name, k, CPU)) for k in passes]
    window = slice(first - passes.start * count, last - passes.start * count)
    return torch.cat(shuffled)[window].view(len(steps), size)


@lru_cache(maxsize=1)
def _load(name: str, folder: Path) -> tuple[Tensor, Split, Split]:
    return {"digits": _digits, "stl10": _stl10}[name](folder)


def _digits(_: Path) -> tuple[Tensor, Split, Split]:
    """Return scikit-learn's 1,797 handwritten digits (UCI, 8x8 grey) brought to 32 px."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    large = F.interpolate(small, size=32, mode="bicubic", align_corners=False)
    images = (large * 255).round().clamp(0, 255).byte().expand(-1, 3, -1, -1).contiguous()
    everything = Split(images, torch.from_numpy(digits.target).long())
    rest, test = _hold_out(everything, 500 / 1797)
    unlabelled, labelled = _hold_out(rest, 500 / len(rest.labels))
    return unlabelled.images, labelled, test


def _stl10(folder: Path) -> tuple[Tensor, Split, Split]:
    """Return STL-10 (Coates, Lee, Ng 2011), downloaded by torchvision where it is not there."""
    from torchvision.datasets import STL10

    def split(name: str) -> Split:
        images = STL10(str(folder), split=name)
        return Split(torch.from_numpy(images.data), torch.from_numpy(images.labels).long())

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / "stl10.lock"):
            STL10(str(folder), split="test", download=True)
        return split("unlabeled").images, split("train"), split("test")
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"STL-10 is not in {folder} and could not be downloaded ({error}); unpack "
            f"stl10_binary.tar.gz there, so that {folder / 'stl10_binary'} holds its .bin files, "
            "or name another folder with --data"
        ) from error


def _hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """Return the rest and a stratified part: the same share of every class, at random."""
    generator = random_stream(SPLIT_SEED, "hold out", 0, CPU)
    shuffled = torch.randperm(len(split.labels), generator=generator)
    by_class = shuffled[split.labels[shuffled].sort(stable=True).indices].numpy()
    part = round(fraction * len(by_class))
    # Evenly spaced places in class order take each class's share to within one image.
    held = np.zeros(len(by_class), dtype=bool)
    held[(np.arange(part) * len(by_class)) // max(part, 1)] = True
    kept_rows, held_rows = (torch.from_numpy(np.sort(by_class[mask])) for mask in (~held, held))
    return (
        Split(split.images[kept_rows], split.labels[kept_rows]),
        Split(split.images[held_rows], split.labels[held_rows]),
    )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process of a machine at a time through, so that none downloads beside another."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
