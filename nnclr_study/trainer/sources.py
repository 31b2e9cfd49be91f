"""Where images come from: every known data set as rows that can be read one by one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nnclr_study.errors import DataError
from nnclr_study.study.plugins import is_plugin
from nnclr_study.trainer.contracts import Original, Part
from nnclr_study.trainer.folders import ImageFolder, is_folder
from nnclr_study.trainer.plugins import dataset_key, open_dataset

SYNTHETIC_COUNTS = {"unlabelled": 4_000, "train": 1_000, "test": 1_000}
SYNTHETIC_CLASSES = 10
STL10_CLASSES = ["airplane", "bird", "car", "cat", "deer"]
STL10_CLASSES += ["dog", "horse", "monkey", "ship", "truck"]


def key_of(name: str, folder: Path) -> str | None:
    """Return a text that follows the content of a data set; None: its original is not there.

    Of an archive the checksums that torchvision expects; of an image folder the path, size
    and time of every file; of a plug-in its version and what it says.
    """
    import torchvision.datasets as known

    if is_plugin(name):
        return dataset_key(name, folder)
    if name.startswith("folder:"):
        base = folder / name.removeprefix("folder:")
        return ImageFolder(base).fingerprint() if is_folder(base) else None
    if name == "synthetic":
        return f"{SYNTHETIC_COUNTS} {SYNTHETIC_CLASSES}"
    archive = {"stl10": known.STL10, "cifar10": known.CIFAR10, "cifar100": known.CIFAR100}[name]
    return repr((archive.train_list, archive.test_list))


def open_original(name: str, folder: Path, image_size: int) -> Original:
    """Open a data set; torchvision's are downloaded to the folder where they are not there.

    Raises:
        DataError: it cannot be had, or is not what it should be.
        PluginError: its plug-in is missing, or not what it should be.
    """
    if is_plugin(name):
        return open_dataset(name, folder, image_size)
    if name.startswith("folder:"):
        return _image_folder(folder / name.removeprefix("folder:"))
    if name == "synthetic":
        return _synthetic(image_size)
    if name == "stl10":
        return _stl10(folder)
    return _cifar(name, folder)


def digits(image_size: int) -> Original:
    """Return scikit-learn's 1,797 handwritten digits (UCI, 8x8 grey), enlarged; all labelled."""
    from sklearn.datasets import load_digits

    small = load_digits()
    images = torch.from_numpy(small.images).float()[:, None] / 16
    large = F.interpolate(images, size=image_size, mode="bicubic", align_corners=False)
    pixels = (large * 255).round().clamp(0, 255).byte().expand(-1, 3, -1, -1).contiguous()
    rows = pixels.permute(0, 2, 3, 1).numpy()
    everything = Part(len(rows), rows.__getitem__, small.target.astype(np.int64))
    return Original([str(digit) for digit in range(10)], {"all": everything})


def _synthetic(image_size: int) -> Original:
    """Return waves of a direction and a pitch for each class, in random colours and noise."""

    def read(part: int, labels: np.ndarray, row: int) -> np.ndarray:
        random = np.random.default_rng([part, row])
        kind = labels[row]
        angle = np.pi * (kind % 5 + random.uniform(-0.3, 0.3)) / 5
        waves = (4 if kind < SYNTHETIC_CLASSES // 2 else 8) * random.uniform(0.8, 1.25)
        y, x = np.mgrid[:image_size, :image_size] / image_size
        phase = random.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        ground, colour = random.uniform(0.2, 0.8, 3), random.uniform(-0.3, 0.3, 3)
        noise = random.normal(0, 0.1, (image_size, image_size, 3))
        image = ground + colour * wave[:, :, None] + noise
        return np.asarray((image.clip(0, 1) * 255).round(), dtype=np.uint8)

    parts = {}
    for number, (name, count) in enumerate(SYNTHETIC_COUNTS.items()):
        labels = np.arange(count) % SYNTHETIC_CLASSES
        known = None if name == "unlabelled" else labels
        parts[name] = Part(count, partial(read, number, labels), known)
    return Original([f"wave {kind}" for kind in range(SYNTHETIC_CLASSES)], parts)


def _stl10(folder: Path) -> Original:
    """Return STL-10 (Coates, Lee, Ng 2011); its binary files are mapped, not read."""
    from torchvision.datasets import STL10

    _fetched(partial(STL10, str(folder), split="test"), "STL-10", folder, "stl10_binary")
    base = folder / STL10.base_folder
    parts = {}
    for name, file in (("unlabelled", "unlabeled"), ("train", "train"), ("test", "test")):
        # On disk each image is 3 x width x height: columns first.
        path = base / f"{file}_X.bin"
        if (size := path.stat().st_size) == 0 or size % (3 * 96 * 96):
            raise DataError(f"{path} has {size:,} bytes: not a number of 3 x 96 x 96 images")
        pixels = np.memmap(path, np.uint8, "r").reshape(-1, 3, 96, 96)
        rows = pixels.transpose(0, 3, 2, 1)
        labels = None
        if name != "unlabelled":
            labels = np.fromfile(base / f"{file}_y.bin", np.uint8).astype(np.int64) - 1
        parts[name] = Part(len(rows), rows.__getitem__, labels)
    return Original(STL10_CLASSES, parts)


def _cifar(name: str, folder: Path) -> Original:
    """Return CIFAR-10 or CIFAR-100 (Krizhevsky 2009)."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    said = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[name]
    _fetched(partial(kind, str(folder), train=False), said, folder, kind.base_folder)
    parts = {}
    for part in ("train", "test"):
        split = kind(str(folder), train=part == "train")
        parts[part] = Part(len(split.data), split.data.__getitem__, np.array(split.targets))
    return Original(list(split.classes), parts)


def _fetched(open_with: Callable[..., Any], said: str, folder: Path, within: str) -> None:
    """Download a data set of torchvision's, unless it is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        open_with(download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{said} is not in {folder} and could not be downloaded ({error}); unpack its "
            f"archive there, so that {folder / within} holds its files, or name another folder "
            "with --data"
        ) from error


def _image_folder(base: Path) -> Original:
    """Return an image folder: train/CLASS/*, test/CLASS/* and, if there is one, unlabelled/**."""
    return ImageFolder(base).original()
