"""The images of a trial: which are labelled, which are val, and the order of the batches."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnclr_study.errors import DataError
from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.images import Dataset, Images, Split
from nnclr_study.trainer.prepared import Prepared, prepared
from nnclr_study.trainer.world import CPU, random_stream

SPLIT_SEED = 2104_14548
"""Fixes which images are val (and, for digits, which are what) in every trial of every study."""
DIGITS_SHARES = (500 / 1797, 500 / 1297)
"""Of all digits that are test; and of the others that are labelled."""


def load_dataset(config: TrialConfig, folder: Path, among: Sequence[Path] = ()) -> Dataset:
    """Return the images of a trial.

    Where a data set has no unlabelled images, they are the labelled train images that are not
    val.

    Args:
        config: of the trial.
        folder: holds data sets that are not embedded.
        among: prepared sets that it is taken from if it is one of them, whatever has been
            prepared since.

    Raises:
        DataError: the images cannot be had, or are too few for a batch or for val.
    """
    found = _prepared(config.dataset, config.image_size, folder, tuple(among))
    unlabelled, train, val, test = splits(found, config)
    if not len(val.labels) or not len(train.labels):
        count = len(train.labels) + len(val.labels)
        raise DataError(
            f"val_fraction={config.val_fraction} of the {count} labelled images of "
            f"{config.dataset} leaves no image to {'train on' if len(val.labels) else 'val'}; use "
            "a share that gives both some"
        )
    unlabelled = train.images if unlabelled is None else unlabelled
    for count, kind, size, knob in (
        (len(unlabelled), "unlabelled", config.batch_size, "batch_size"),
        (len(train.labels), "labelled train", config.labelled_batch_size, "labelled_batch_size"),
    ):
        if count < size:
            raise DataError(
                f"{knob}={size} is more than the {count} {kind} images of {config.dataset}; "
                f"use {knob} <= {count}"
            )
    return Dataset(
        unlabelled,
        train,
        val,
        test,
        num_classes=len(found.classes),
        bytes=sum(pixels.nbytes for pixels in found.pixels.values()),
    )


def splits(found: Prepared, config: TrialConfig) -> tuple[Images | None, Split, Split, Split]:
    """Return the unlabelled images, if there are any, and train, val and test."""
    if config.dataset == "digits":
        labelled, test, unlabelled = _digits(found)
    else:
        labelled, test, unlabelled = _parts(found)
    return (unlabelled, *_hold_out(labelled, config.val_fraction), test)


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
def _prepared(name: str, image_size: int, folder: Path, among: tuple[Path, ...]) -> Prepared:
    return prepared(name, image_size, folder, among)


def _digits(found: Prepared) -> tuple[Split, Split, Images | None]:
    """Deal the digits out: 797 unlabelled, 500 labelled, 500 test."""
    everything = _split(found, "all")
    of_test, of_labelled = DIGITS_SHARES
    rest, test = _hold_out(everything, of_test)
    unlabelled, labelled = _hold_out(rest, of_labelled)
    return labelled, test, unlabelled.images


def _parts(found: Prepared) -> tuple[Split, Split, Images | None]:
    unlabelled = _images(found, "unlabelled") if "unlabelled" in found.pixels else None
    return _split(found, "train"), _split(found, "test"), unlabelled


def _images(found: Prepared, part: str) -> Images:
    return Images(found.pixels[part], torch.arange(len(found.pixels[part])))


def _split(found: Prepared, part: str) -> Split:
    return Split(_images(found, part), torch.from_numpy(found.labels[part]).long())


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
        Split(split.images.some(kept_rows), split.labels[kept_rows]),
        Split(split.images.some(held_rows), split.labels[held_rows]),
    )
