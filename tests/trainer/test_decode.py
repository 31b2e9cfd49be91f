"""Image files become 8-bit RGB by one rule for each pixel mode, or are refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from nnclr_study.errors import DataError
from nnclr_study.trainer import decode
from nnclr_study.trainer.decode import Remark, named, rgb, strict_pillow


def decoded(content):
    """Return the first row of an image, and what was done."""
    with strict_pillow(), named("photos/x"):
        image = Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content
        flat, remarks = rgb(image)
    assert flat.mode == "RGB"
    return np.asarray(flat)[0].tolist(), remarks


def greys(content):
    pixels, remarks = decoded(content)
    assert all(len(set(pixel)) == 1 for pixel in pixels)
    return [pixel[0] for pixel in pixels], remarks


def saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def png(width, depth, color, row, transparent=()):
    """Return a PNG of one row; of kinds that Pillow does not write."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, color, 0, 0, 0))]
    if transparent:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    chunks += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(rows, **tags):
    """Return an uncompressed TIFF of one row, little-endian; tags by number, as t262=0."""
    planes = [rows] if rows.ndim == 2 else [np.ascontiguousarray(plane) for plane in rows]
    height, width = planes[0].shape
    data, size = b"".join(plane.tobytes() for plane in planes), planes[0].nbytes
    known = {256: [width], 257: [height], 258: [8 * rows.itemsize] * len(planes), 259: [1]}
    known |= {262: [1], 273: [8 + size * n for n in range(len(planes))], 277: [len(planes)]}
    known |= {278: [height], 279: [size] * len(planes)}
    known |= {int(name[1:]): [value] for name, value in tags.items()}
    place = 8 + len(data)
    beyond = place + 2 + 12 * len(known) + 4
    entries, rest = struct.pack("<H", len(known)), b""
    for tag, values in sorted(known.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            packed, rest = struct.pack("<I", beyond + len(rest)), rest + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = b"II*\0" + struct.pack("<I", place)
    return head + data + entries + struct.pack("<I", 0) + rest


DEEP = np.array([[0, 1000, 32768, 65535]], np.uint16)
SCALED = [0, 4, 128, 255]
"""`DEEP` divided by 257, rounded."""


@pytest.mark.parametrize(
    "content",
    [
        Image.fromarray(DEEP),
        saved(Image.fromarray(DEEP), "PNG"),
        saved(Image.fromarray(DEEP), "TIFF"),
        saved(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(DEEP), "JPEG2000", irreversible=False),
        saved(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
        tiff(65535 - DEEP, t262=0),
        b"P5 4 1 65535\n" + DEEP.astype(">u2").tobytes(),
    ],
    ids=["array", "png", "tiff", "lzw", "jpeg2000", "big-endian", "white is zero", "pgm"],
)
def test_sixteen_bits_are_scaled_by_their_whole_range(content):
    assert greys(content) == (SCALED, Remark.SIXTEEN_BIT)


def test_a_dark_sixteen_bit_image_stays_dark():
    assert greys(Image.fromarray(DEEP // 65535 * 500))[0] == [0, 0, 0, 2]


def test_sixteen_bit_color_keeps_its_high_byte():
    pixels = np.array([257 * 7, 65535, 300, 0, 257, 1000], ">u2").tobytes()
    assert decoded(png(2, 16, 2, pixels)) == ([[7, 255, 1], [0, 1, 3]], 0)
    assert decoded(b"P6 2 1 65535\n" + pixels)[0][0] == [7, 255, 1]


def test_twelve_bits_are_scaled_by_twelve():
    half = tiff(np.array([[0xFF, 0xF8, 0x00]], np.uint8), t256=2, t258=12)
    assert greys(half) == ([255, 128], Remark.SIXTEEN_BIT)


def test_floats_from_0_to_1_are_scaled_and_others_refused():
    values = np.array([[0, 0.25, 1]], np.float32)
    assert greys(Image.fromarray(values)) == ([0, 64, 255], Remark.FLOAT)
    assert greys(tiff(1 - values, t262=0, t339=3)) == ([0, 64, 255], Remark.FLOAT)
    for wrong, said in (
        (255 * values, "0 to 255"),
        (values - 1, "-1 to 0"),
        (values + np.nan, "nan"),
    ):
        with pytest.raises(DataError, match=f"photos/x cannot be used: .* 0 and 1, .* {said}"):
            decoded(Image.fromarray(wrong.astype(np.float32)))


@pytest.mark.parametrize(
    "content, said",
    [
        (Image.fromarray(DEEP.astype(np.int32)), "mode 'I' have no agreed range"),
        (saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), "signed integers"),
        (tiff(DEEP.astype(np.uint32)), "mode 'I' have no agreed range"),
        (tiff(DEEP, t339=2), "signed integers"),
        (tiff(DEEP.astype(np.uint8), t339=2), "signed integers"),
        (tiff(np.stack([DEEP] * 3), t262=2, t284=2), "separate planes"),
        (png(1, 16, 2, bytes(6), transparent=(0, 0, 0)), "with one transparent color"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS is not read"),
    ],
)
def test_what_no_rule_converts_is_refused_by_name(content, said):
    with pytest.raises(DataError, match=f"photos/x cannot be used: .*{said}.*save it"):
        decoded(content)


def test_every_mode_of_pillow_has_a_rule_and_others_are_refused(monkeypatch):
    refused = []
    for mode in Image.MODES:
        try:
            decoded(Image.new(mode, (2, 2)))
        except DataError:
            refused.append(mode)
    assert refused == ["I"]
    odd = Image.new("RGB", (2, 2))
    odd._mode = "BGR;24"
    monkeypatch.setattr(odd, "load", lambda: None)
    with pytest.raises(DataError, match=r"pixels of mode 'BGR;24' have no agreed range"):
        decoded(odd)


def clear(mode):
    """Return a clear pixel beside an opaque black one, in a mode with alpha."""
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    image = Image.fromarray(pixels)
    if mode == "P":
        return saved(image.quantize(4), "PNG")
    if mode == "La":
        return image.convert("LA").convert("La")
    if mode == "PA":
        return Image.merge("PA", (Image.new("P", (2, 1)), image.getchannel("A")))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "La", "RGBa"])
def test_alpha_is_put_on_white(mode):
    assert greys(clear(mode)) == ([255, 0], Remark.TRANSPARENT)


def test_half_transparent_is_half_white_and_opaque_is_as_it_was():
    half = Image.new("RGBA", (1, 1), (0, 0, 200, 128))
    assert decoded(half)[0] == [[127, 127, 227]]
    opaque = np.random.default_rng(0).integers(0, 256, (1, 9, 4), np.uint8)
    opaque[..., 3] = 255
    image = Image.fromarray(opaque)
    assert decoded(image) == (np.asarray(image.convert("RGB"))[0].tolist(), 0)


@pytest.mark.parametrize(
    "content, values",
    [
        (png(2, 1, 0, b"\x40", transparent=(0,)), [255, 255]),
        (png(2, 1, 0, b"\x40", transparent=(1,)), [0, 255]),
        (png(4, 2, 0, b"\x1b", transparent=(1,)), [0, 255, 170, 255]),
        (png(4, 4, 0, b"\x07\xf1", transparent=(7,)), [0, 255, 255, 17]),
        (png(2, 8, 0, b"\x07\x20", transparent=(7,)), [255, 32]),
        (png(2, 16, 0, b"\x10\x00\x10\x01", transparent=(4096,)), [255, 16]),
        (png(2, 8, 2, b"\x01\x01\x01\x02\x02\x02", transparent=(1, 1, 1)), [255, 2]),
    ],
)
def test_one_transparent_value_is_put_on_white(content, values):
    found, remarks = greys(content)
    assert found == values
    assert remarks & Remark.TRANSPARENT


ARROW = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14
"""Two rows of three pixels, all different."""


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "orientation, upright",
    [
        (1, ARROW),
        (2, ARROW[:, ::-1]),
        (3, ARROW[::-1, ::-1]),
        (4, ARROW[::-1]),
        (5, ARROW.swapaxes(0, 1)),
        (6, ARROW[::-1].swapaxes(0, 1)),
        (7, ARROW[::-1, ::-1].swapaxes(0, 1)),
        (8, ARROW[:, ::-1].swapaxes(0, 1)),
        (9, ARROW),
    ],
)
def test_images_are_turned_upright_once(kind, orientation, upright):
    tags = Image.Exif()
    tags[decode.ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(ARROW), kind, exif=tags, **options)
    turned, remarks = rgb(Image.open(io.BytesIO(content)))
    assert np.array_equal(np.asarray(turned), upright)
    assert remarks == (Remark.TURNED if 2 <= orientation <= 8 else 0)


def test_an_image_that_a_plug_in_has_turned_itself_is_not_turned_again():
    tags = Image.Exif()
    tags[decode.ORIENTATION] = 6
    photo = Image.open(io.BytesIO(saved(Image.fromarray(ARROW), "JPEG", exif=tags)))
    turned, remarks = rgb(photo.transpose(Image.Transpose.ROTATE_270))
    assert (turned.size, remarks) == (photo.size[::-1], 0)


def test_a_fault_of_the_machine_is_not_blamed_on_the_image():
    with (
        pytest.raises(DataError, match=r"^photos/x cannot be read: Input/output error; make"),
        named("photos/x"),
    ):
        raise OSError(5, "Input/output error")


def test_damaged_exif_does_not_make_an_image_unusable():
    content = saved(Image.fromarray(ARROW), "JPEG", exif=b"Exif\0\0broken")
    plain = saved(Image.fromarray(ARROW), "JPEG")
    assert decoded(content) == decoded(plain)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_used_and_told(kind):
    first, second = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    content = saved(first, kind, save_all=True, append_images=[second])
    pixels, remarks = decoded(content)
    assert pixels[0][0] > 240 > 15 > pixels[0][2]
    assert remarks == Remark.FRAMES
    assert decoded(saved(first, kind))[1] == 0


def test_truncated_images_are_refused_whatever_another_package_has_set(monkeypatch):
    whole = saved(Image.effect_noise((60, 60), 50), "PNG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match=r"photos/x is not an image .*truncated"):
        decoded(whole[: len(whole) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "what others set is theirs"


def test_an_image_larger_than_the_limit_is_refused_whatever_another_package_has_set(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(decode, "MAX_PIXELS", 2 * 50)
    assert len(decoded(saved(Image.new("L", (10, 10)), "PNG"))[0]) == 10
    with pytest.raises(DataError, match=r"photos/x cannot be used: .* more than 100 pixels"):
        decoded(saved(Image.new("L", (101, 1)), "PNG"))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to decode image"),
        NotImplementedError("Unimplemented pixel format"),
        MemoryError(),
        struct.error("unpack requires a buffer"),
        SyntaxError("broken\nfile"),
        EOFError(),
        IndexError("index out of range"),
        OverflowError("too large"),
        zlib.error("Error -3"),
        AttributeError("no such thing"),
        OSError("broken data stream"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_names_the_image(error):
    with (
        pytest.raises(
            DataError, match=r"^photos/x is not an image that can be read \(.+\); "
        ) as e,
        named("photos/x"),
    ):
        raise error
    assert "\n" not in str(e.value)


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(decode, "LARGE", 4)
    with decode._one_large:
        assert decoded(Image.new("L", (3, 1)))[1] == 0
    assert decoded(Image.new("L", (4, 1)))[1] == 0
    assert not decode._one_large.locked()
