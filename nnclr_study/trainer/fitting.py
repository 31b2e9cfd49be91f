"""Images of any size brought to one, and what is remembered of each."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from nnclr_study.errors import DataError, reason
from nnclr_study.trainer.contracts import Part
from nnclr_study.trainer.decode import Remark, named, rgb, strict_pillow

CHUNK = 256
"""Images that a thread reads at a time."""
RECORD = np.dtype([("hash", "<u8"), ("remarks", "<u2")])
"""What is remembered of a prepared image: a hash of its pixels, and a `Remark`."""
DARKEST = 16
"""Largest value of an image that looks black."""
MOST_CUT = 2
"""Ratio of the sides above which less than half of an image is kept."""


def fill(
    name: str, part: Part, pixels: np.ndarray, records: np.ndarray
) -> Iterator[tuple[int, list[str]]]:
    """Fill arrays with the images of a part, in threads.

    Yields:
        How many images were read, and what is wrong with those that cannot be used.
    """
    size = pixels.shape[-1]

    def read(start: int) -> tuple[int, list[str]]:
        rows, wrong = range(start, min(start + CHUNK, part.length)), []
        for row in rows:
            try:
                image, remarks = part.read(row), Remark(0)
                if isinstance(image, Image.Image):
                    with named(getattr(image, "filename", None) or part.named(name, row)):
                        image, remarks = rgb(image)
                square, how = fitted(image, size)
            except DataError as error:
                wrong.append(str(error))
                continue
            except OSError as error:
                wrong.append(f"{part.named(name, row)} cannot be read: {reason(error)}")
                continue
            pixels[row] = square.transpose(2, 0, 1)
            records[row] = _hash(pixels[row]), remarks | how | _looks(pixels[row])
        return len(rows), wrong

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with strict_pillow():
            yield from pool.map(read, range(0, part.length, CHUNK))
    finally:
        pool.shutdown(cancel_futures=True)


def fitted(image: np.ndarray | Image.Image, size: int) -> tuple[np.ndarray, Remark]:
    """Return an image, (size, size, 3): the shorter side resized, the middle cut out."""
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (size, size):
            return image, Remark(0)
        image = Image.fromarray(image)
    shorter, longer = sorted(image.size)
    how = Remark.ENLARGED if shorter < size else Remark(0)
    if longer > MOST_CUT * shorter:
        how |= Remark.CUT
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image), how


def _hash(pixels: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(pixels.data, digest_size=8).digest(), "little")


def _looks(pixels: np.ndarray) -> Remark:
    """Return whether a (3, S, S) image has one color, or is almost black."""
    first = pixels[:, :1, :1]
    if (pixels[:, 0] == first[:, 0]).all() and (pixels == first).all():
        return Remark.ONE_COLOR
    return Remark.DARK if pixels.max() <= DARKEST else Remark(0)
