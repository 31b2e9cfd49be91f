"""Data sets prepared once: arrays of equal images in files that every process maps."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import time_ns
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.lib.format import open_memmap

from nnclr_study.errors import DataError, writing
from nnclr_study.study.plugins import is_plugin
from nnclr_study.trainer.contracts import PARTS, Original
from nnclr_study.trainer.fitting import CHUNK, RECORD, fill
from nnclr_study.trainer.folders import LISTED, together
from nnclr_study.trainer.sources import digits, key_of, open_original

RULES = 2
"""Version of the rules by which image files become pixels: with another one, image folders and
plug-ins' data sets are prepared anew."""
Progress = Callable[[str, int, int], None]
"""Told of a part's name, the images of it that are done, and all of them."""


class Prepared(NamedTuple):
    """A data set whose images all have one size."""

    classes: list[str]
    pixels: dict[str, np.ndarray]
    """(N, 3, S, S) uint8 of each part: `train`, `test` and, where there are any, `unlabelled`."""
    labels: dict[str, np.ndarray]
    """(N,) class numbers of each labelled part."""
    path: Path | None
    """Where it lies; None: in memory."""

    @classmethod
    def at(cls, path: Path) -> Self:
        """Map the files of a prepared data set; no image is read yet.

        Raises:
            DataError: they are not as `prepare` writes them.
        """
        try:
            about = json.loads((path / "about.json").read_text())
            parts, labelled = [], []
            for part in PARTS:
                if facts := about["parts"].get(part):
                    parts.append(part)
                    labelled += [part] if facts["images_of_class"] is not None else []
            if not {"train", "test"} <= set(labelled):
                raise ValueError("it has no labelled train and test images")
            found = cls(
                classes=[str(name) for name in about["classes"]],
                pixels={part: np.load(path / f"{part}.npy", mmap_mode="r") for part in parts},
                labels={part: np.load(path / f"{part}_labels.npy") for part in labelled},
                path=path,
            )
            for part, pixels in found.pixels.items():
                size = about["image_size"]
                if pixels.dtype != np.uint8 or pixels.shape[1:] != (3, size, size):
                    raise ValueError(
                        f"{part}.npy holds {pixels.dtype} of the shape {pixels.shape}, and not "
                        f"uint8 of (N, 3, {size}, {size})"
                    )
                _check(part, len(pixels), found.labels.get(part), len(found.classes))
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _spoilt(path, error) from None
        return found

    def records(self) -> dict[str, np.ndarray]:
        """Return the (N,) `RECORD` of each part; none where it was not remembered.

        Raises:
            DataError: they are not as `prepare` writes them.
        """
        if self.path is None or not (self.path / "train_records.npy").exists():
            return {}
        try:
            found = {part: np.load(self.path / f"{part}_records.npy") for part in self.pixels}
            if any(f.dtype != RECORD or len(f) != len(self.pixels[p]) for p, f in found.items()):
                raise ValueError("its records are not those of its images")
        except (OSError, EOFError, ValueError) as error:
            raise _spoilt(self.path, error) from None
        return found

    def names(self, part: str) -> list[str]:
        """Return what messages call each image of a part."""
        count = len(self.pixels[part])
        if self.path is None or not (self.path / f"{part}_names.json").exists():
            return [f"image {row} of {part}" for row in range(count)]
        try:
            found = json.loads((self.path / f"{part}_names.json").read_text())
            return [str(found[row]) for row in range(count)]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise _spoilt(self.path, error) from None

    def about(self, name: str) -> dict[str, Any]:
        """Return what is known of it: image size, counts, bytes and content, of each part."""
        if self.path is not None:
            known: dict[str, Any] = json.loads((self.path / "about.json").read_text())
            return known
        return _about(name, self.classes, self.pixels, self.labels)


def prepared(name: str, image_size: int, data: Path, among: Sequence[Path] = ()) -> Prepared:
    """Return a data set that is prepared, here and now if it never was.

    Args:
        name: as `TrialConfig.dataset`.
        image_size: side of the images.
        data: folder whose `prepared` folder holds it; what was asked for last counts.
        among: `Prepared.path` of some sets, which come before.

    Raises:
        DataError: it has to be prepared and cannot be.
    """
    if name == "digits":
        return _in_memory(digits(image_size), image_size)
    for path in among:
        if path.name.rpartition("-")[0] == _stem(name, image_size):
            return Prepared.at(path)
    known = sorted(
        (data / "prepared").glob(f"{_stem(name, image_size)}-*/about.json"),
        key=lambda about: about.stat().st_mtime_ns,
    )
    return Prepared.at(known[-1].parent) if known else prepare(name, image_size, data)


def prepare(
    name: str,
    image_size: int,
    data: Path,
    originals: Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare a data set, unless that is done, and return it.

    It lies in a folder named after its content: a changed image folder is prepared anew. One
    process of a machine prepares, others wait for it; what is not whole is never seen. All images
    are read before those that cannot be used are told, together.

    Args:
        name: as `TrialConfig.dataset`.
        image_size: side of the images; others are resized (the shorter side) and cut.
        data: folder whose `prepared` folder takes it.
        originals: folder of the original; None: `data`.
        progress: is told how far it is.

    Raises:
        DataError: the original cannot be had, or is not what it should be.
    """
    if name == "digits":
        return _in_memory(digits(image_size), image_size)
    source = originals or data
    key = key_of(name, source)
    if key is None:
        if list((data / "prepared").glob(f"{_stem(name, image_size)}-*/about.json")):
            return prepared(name, image_size, data)
        missing = source / name.removeprefix("folder:")
        raise DataError(
            f"no folder {missing} for dataset {name!r}; put train/CLASS/* and test/CLASS/* "
            "there, or name the folder that holds it with --data"
        )
    if is_plugin(name) or name.startswith("folder:"):
        key = f"rules {RULES} {key}"
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:12]
    home = data / "prepared" / f"{_stem(name, image_size)}-{digest}"
    with writing(home, "--data", DataError):
        home.parent.mkdir(parents=True, exist_ok=True)
        with _alone(home.with_suffix(".lock")):
            if not home.exists():
                original = _opened(name, source, image_size)
                half = home.with_suffix(".half")
                shutil.rmtree(half, ignore_errors=True)
                half.mkdir()
                try:
                    _write(name, original, image_size, half, progress)
                    half.rename(home)
                except BaseException:
                    shutil.rmtree(half, ignore_errors=True)
                    raise
            # The one that was asked for last is the one that trials take.
            now = time_ns()  # finer than the system's own stamp
            os.utime(home / "about.json", ns=(now, now))
    return Prepared.at(home)


def _spoilt(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is no prepared data set ({error}); delete it, and it is prepared anew"
    )


def _opened(name: str, source: Path, image_size: int) -> Original:
    try:
        original = open_original(name, source, image_size)
    except OSError as error:
        raise DataError(f"{name} in {source} cannot be read: {error}") from None
    for part, told in original.parts.items():
        try:
            _check(part, told.length, told.labels, len(original.classes))
        except ValueError as error:
            raise DataError(f"{name} in {source}: {error}") from None
    return original


def _check(part: str, count: int, labels: np.ndarray | None, num_classes: int) -> None:
    """Raise ValueError where a part is empty, or its labels are not those of its images."""
    if count == 0:
        raise ValueError(f"{part} has no images")
    if labels is None:
        return
    if labels.shape != (count,):
        raise ValueError(f"{part} has {count:,} images and {labels.size:,} labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(f"{part} has the label {wrong}; labels go from 0 to {num_classes - 1}")


def _stem(name: str, image_size: int) -> str:
    return f"{name.replace(':', '-')}-{image_size}px"


def _write(
    name: str, original: Original, image_size: int, home: Path, progress: Progress | None
) -> None:
    pixels: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    needed = sum(part.length for part in original.parts.values()) * 3 * image_size**2
    if needed > shutil.disk_usage(home).free:  # a mapped file that finds no room ends the process
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for {needed:,} bytes")
    problems: list[str] = []
    count = 0
    for part_name, part in original.parts.items():
        shape = part.length, 3, image_size, image_size
        file = open_memmap(home / f"{part_name}.npy", "w+", np.uint8, shape)
        records, done = np.empty(part.length, RECORD), 0
        for read, wrong in fill(part_name, part, file, records):
            problems += wrong[: LISTED - len(problems)]
            count += len(wrong)
            done += read
            if progress:
                progress(part_name, done, part.length)
        file.flush()
        pixels[part_name] = file
        if part.labels is not None:
            np.save(home / f"{part_name}_labels.npy", part.labels)
            labels[part_name] = part.labels
        np.save(home / f"{part_name}_records.npy", records)
        if part.name:
            names = [part.name(row) for row in range(part.length)]
            (home / f"{part_name}_names.json").write_text(json.dumps(names))
    if problems:
        raise together(problems, count, name)
    about = _about(name, original.classes, pixels, labels)
    about |= {"notes": list(original.notes), "warnings": list(original.warnings)}
    (home / "about.json").write_text(json.dumps(about, indent=1))


def _about(
    name: str, classes: list[str], pixels: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> dict[str, Any]:
    facts, content = {}, hashlib.sha256()
    for part, images in pixels.items():
        for start in range(0, len(images), CHUNK):
            content.update(images[start : start + CHUNK].tobytes())
        of_class = None
        if part in labels:
            content.update(labels[part].astype("<i8").tobytes())
            of_class = np.bincount(labels[part], minlength=len(classes)).tolist()
        facts[part] = {
            "images": len(images),
            "bytes": images.nbytes,
            "images_of_class": of_class,
        }
    return {
        "dataset": name,
        "rules": RULES,
        "image_size": next(iter(pixels.values())).shape[-1],
        "classes": classes,
        "parts": facts,
        "sha256": content.hexdigest(),
    }


def _in_memory(original: Original, image_size: int) -> Prepared:
    pixels = {}
    for name, part in original.parts.items():
        pixels[name] = np.empty((part.length, 3, image_size, image_size), np.uint8)
        for _ in fill(name, part, pixels[name], np.empty(part.length, RECORD)):
            pass
    labels = {n: part.labels for n, part in original.parts.items() if part.labels is not None}
    return Prepared(original.classes, pixels, labels, path=None)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process of a machine at a time through."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
