"""Image files decoded to 8-bit RGB: one rule for each pixel mode, anything else is refused."""

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from enum import IntFlag
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from nnclr_study.errors import DataError, StudyError, cut

BACKGROUND = "white"
"""Color that transparent pixels are put on."""
MAX_PIXELS = 2 * 89_478_485
"""Pixels of the largest image that is decoded; it is Pillow's own limit."""
LARGE = 2**26
"""Pixels of an image from which on images are decoded one at a time, to bound the memory."""
OPAQUE = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
NO_RANGE = {"FITS", "MCIDAS"}
"""Formats whose 16-bit integers are signed or have no fixed range."""
EXTERNAL = {"EPS", "WMF"}
"""Formats that Pillow hands to another program."""
NO_FRAMES = {"MPO", "PSD"}
"""Formats whose further frames are previews or layers of the one image."""
SMALL_GREY = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies grey values of 2 and 4 bits by, but not a PNG's transparent one."""
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation."""
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION, PLANES, SAMPLE_FORMAT = 258, 262, 274, 284, 339
WHITE_IS_ZERO, SEPARATE, SIGNED = 0, 2, 2
LONGEST_REASON = 200
"""Characters of what a decoder raised."""

_one_large = threading.Lock()

Flat = tuple[Image.Image, "Remark"]
"""An 8-bit RGB image, and what was done to get it."""


class Remark(IntFlag):
    """What a user may want to know of a prepared image."""

    TURNED = 1
    FRAMES = 2
    TRANSPARENT = 4
    SIXTEEN_BIT = 8
    FLOAT = 16
    ENLARGED = 32
    CUT = 64
    ONE_COLOR = 128
    DARK = 256


class RefusedError(Exception):
    """An image that breaks a rule; the text is the rule."""


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Have Pillow refuse truncated and huge images, whatever other packages have set.

    Its warnings are not shown: they name no file, and are about metadata that are not used.
    """
    kept = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, MAX_PIXELS // 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = kept


@contextmanager
def named(name: object) -> Iterator[None]:
    """Turn whatever a decoder raises into a DataError that names the image."""
    try:
        yield
    except StudyError:
        raise
    except RefusedError as rule:
        raise DataError(f"{name} cannot be used: {rule}") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{name} is not an image that can be read (unknown format); repair or remove it"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{name} cannot be used: it has more than {MAX_PIXELS:,} pixels; make it smaller"
        ) from None
    except Exception as error:  # decoders raise errors of any kind
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        reason = cut(reason or type(error).__name__, LONGEST_REASON)
        if getattr(error, "errno", None) is not None:  # the system's, and not a decoder's
            raise DataError(f"{name} cannot be read: {reason}; make it readable") from error
        raise DataError(
            f"{name} is not an image that can be read ({reason}); repair or remove it"
        ) from error


def rgb(image: Image.Image) -> Flat:
    """Return an image as 8-bit RGB, turned upright, and what was done for that.

    Raises:
        RefusedError: no rule says how.
        Exception: the decoder fails; `named` turns that into a DataError.
    """
    if image.format in EXTERNAL:
        raise RefusedError(f"{image.format} is not read; save it as PNG or JPEG")
    large = image.width * image.height >= LARGE
    with _one_large if large else nullcontext():
        done = Remark(0)
        if image.format not in NO_FRAMES and getattr(image, "is_animated", False):
            done |= Remark.FRAMES
        tags = dict(getattr(image, "tag_v2", {})) if image.format == "TIFF" else {}
        tile = getattr(image, "tile", None)
        stored = str(tile[0][3]) if image.format == "PNG" and tile else ""
        image.load()
        flat, how = _flat(image, tags, stored)
        # Pillow turns TIFF images itself when it loads them, and then removes the tag.
        # An image without a format was made from another one, and may have been turned already.
        turn = UPRIGHT.get(_orientation(image)) if image.format else None
        if turn is not None:
            flat = flat.transpose(turn)
        if turn is not None or tags.get(ORIENTATION) in UPRIGHT:
            done |= Remark.TURNED
        return flat, done | how


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, which means upright, where it cannot be read."""
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # damaged metadata do not make the pixels unusable
        return 1
    return found if isinstance(found, int) else 1


def _flat(image: Image.Image, tags: Mapping[int, Any], stored: str) -> Flat:
    """Return a loaded image as 8-bit RGB without alpha, and what was done for that.

    Args:
        image: the image.
        tags: of a TIFF file.
        stored: how a PNG file stores its pixels, as Pillow's raw mode.
    """
    if tags.get(SAMPLE_FORMAT) in (SIGNED, (SIGNED,)):
        raise RefusedError(
            "signed integers have no agreed range; save it with 8 or 16 bits, unsigned"
        )
    bits = tags.get(BITS_PER_SAMPLE, (8,))
    if tags.get(PLANES) == SEPARATE and len(bits) > 1 and max(bits) > 8:  # Pillow garbles these
        raise RefusedError(
            "16-bit TIFF with separate planes is not read; save its channels interleaved"
        )
    # Pillow reads 16-bit PGM, and before version 11 PNG, as 32-bit integers.
    if image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_sixteen_bit(image, tags)
    if image.mode == "F":
        return _from_float(image, tags)
    if image.mode in ALPHA or (image.mode in OPAQUE and image.has_transparency_data):
        return _on_background(image, stored)
    if image.mode in OPAQUE:
        return image if image.mode == "RGB" else image.convert("RGB"), Remark(0)
    rule = f"pixels of mode {image.mode!r} have no agreed range; save it with 8 or 16 bits"
    raise RefusedError(f"{rule} per channel, unsigned")


def _from_sixteen_bit(image: Image.Image, tags: Mapping[int, Any]) -> Flat:
    """Scale unsigned integers by the full range of their bits, never by their own extremes."""
    if image.format in NO_RANGE:
        raise RefusedError(
            f"16-bit {image.format} has no agreed range; save it as 16-bit PNG or TIFF"
        )
    values = np.asarray(image).astype(np.uint32)
    top = 4095 if tags.get(BITS_PER_SAMPLE) in (12, (12,)) else 65535
    clear = image.info.get("transparency")
    see_through = values == clear if isinstance(clear, int) else np.zeros_like(values, bool)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = top - values
    grey = Image.fromarray(((values * 255 + top // 2) // top).astype(np.uint8)).convert("RGB")
    if see_through.any():
        grey.paste(BACKGROUND, mask=Image.fromarray(see_through))
        return grey, Remark.SIXTEEN_BIT | Remark.TRANSPARENT
    return grey, Remark.SIXTEEN_BIT


def _from_float(image: Image.Image, tags: Mapping[int, Any]) -> Flat:
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails as well
        raise RefusedError(
            "floating-point pixels must lie between 0 and 1, and these go from "
            f"{values.min():g} to {values.max():g}; scale all images of the data set alike"
        )
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 1 - values
    return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB"), Remark.FLOAT


def _on_background(image: Image.Image, stored: str) -> Flat:
    if stored == "RGB;16B":  # Pillow compares 8-bit pixels to the 16-bit transparent one
        raise RefusedError("16-bit RGB with one transparent color is not read; save it with alpha")
    if stored in SMALL_GREY:
        image.info["transparency"] *= SMALL_GREY[stored]
    if image.mode == "La":  # premultiplied; Pillow converts it to LA alone
        image = image.convert("LA")
    whole = image.convert("RGBA")
    if whole.getchannel("A").getextrema() == (255, 255):
        return whole.convert("RGB"), Remark(0)
    ground = Image.new("RGBA", whole.size, BACKGROUND)
    return Image.alpha_composite(ground, whole).convert("RGB"), Remark.TRANSPARENT
