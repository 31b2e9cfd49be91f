import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import nnclr_study.report
from nnclr_study.report import look
from nnclr_study.report.figures.factors import SCALE

CSS = (Path(nnclr_study.report.__file__).parent / "style.css").read_text()
NAMES = dict(re.findall(r"--(\w+): light-dark\((#\w{6}), #\w{6}\)", CSS))
DARK_NAMES = dict(re.findall(r"--(\w+): light-dark\(#\w{6}, (#\w{6})\)", CSS))
THEMES = pytest.mark.parametrize(
    ("names", "palette"), [(NAMES, look.LIGHT), (DARK_NAMES, look.DARK)], ids=["light", "dark"]
)
SERIES = len(look.SERIES)

VISION = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""On linear sRGB at full severity: Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009."""
APART = 12
"""The least CIE76 distance of two series; about 2.3 are just noticed side by side."""


def linear(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.2's contrast ratio of two colours, linear or as hex."""
    rows = [linear(c) if isinstance(c, str) else c for c in (one, other)]
    bright, dim = sorted((row @ [0.2126, 0.7152, 0.0722] for row in rows), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def blended(colour, ground):
    """A colour with its alpha (#RRGGBBAA) on a ground; browsers blend the gamma-coded values."""
    alpha = int(colour[7:], 16) / 255
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    below = [int(ground[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [round(alpha * a + (1 - alpha) * b) for a, b in zip(parts, below, strict=True)]
    return "#" + "".join(f"{part:02X}" for part in mixed)


def lab(row):
    """CIELAB (D65) of linear sRGB."""
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    t = to_xyz @ np.clip(row, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_the_measures_know_black_white_and_red():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert lab(linear("#FFFFFF")) == pytest.approx([100, 0, 0], abs=0.01)
    assert lab(linear("#FF0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert all(np.sum(matrix, axis=1) == pytest.approx(1, abs=1e-5) for matrix in VISION.values())


def test_more_series_than_colours_still_look_different():
    assert len({look.look_of(number) for number in range(24)}) == 24


@THEMES
def test_text_and_series_stand_out(names, palette):
    for name in ("ink", "muted", "accent", "good", "bad", "warm"):
        for ground in ("page", "card"):
            assert contrast(names[name], names[ground]) >= 4.5, (name, ground)
    for colour in palette[:SERIES]:
        for ground in ("page", "card"):
            assert contrast(colour, names[ground]) >= 3, colour
    for colour in palette[SERIES : SERIES + 2]:
        assert contrast(colour, names["page"]) >= 4.5, colour


def test_series_keep_what_the_docstring_says_of_them():
    assert min(contrast(c, "#FFFFFF") for c in look.SERIES) >= 4.7
    assert min(contrast(c, "#11161D") for c in look.DARK[:SERIES]) >= 7.4


@THEMES
@pytest.mark.parametrize("vision", VISION)
def test_series_differ_to_every_eye(names, palette, vision):
    seen = {colour: lab(VISION[vision] @ linear(colour)) for colour in palette[:SERIES]}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= APART, (one, other)


@THEMES
def test_text_on_a_tint_stands_out(names, palette):
    dark = dict(zip(look.LIGHT, palette, strict=True))
    tints = [colour + look.TINT for colour in [*look.SERIES, look.MUTED]]
    tints += [colour for _, colour in SCALE]
    for tint in tints:
        ground = blended(dark[tint[:7]] + tint[7:], names["page"])
        assert contrast(dark[look.INK], ground) >= 4.5, tint


def test_swapping_the_themes_replaces_no_colour_twice():
    assert len(set(look.LIGHT)) == len(look.LIGHT)
    assert not set(look.LIGHT) & set(look.DARK)


def test_every_letter_stands_for_one_thing():
    states = {"finished", "stopped", "failed", "running", "interrupted", "waiting"}
    assert set(look.STATES) == states
    for letters in (look.STATES, look.VERDICTS):
        assert len(set(letters.values())) == len(letters)
