"""A picture of what is in a data set."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nnclr_study.errors import DataError, writing
from nnclr_study.trainer.prepared import Prepared

PER_ROW = 12
MAX_CLASSES = 40
SIDE = 64
GAP = 4
TITLE = 140
"""Pixels: of an image, between two, and of the names on the left."""


def contact_sheet(found: Prepared, path: Path) -> Path:
    """Write a PNG with the first labelled images of each class, and the first unlabelled ones.

    A row a class, at most `MAX_CLASSES`, evenly spaced among all.
    """
    part = "train" if "train" in found.pixels else next(iter(found.labels))
    images, labels = found.pixels[part], found.labels[part]
    step = -(-len(found.classes) // MAX_CLASSES)
    rows = {
        found.classes[kind]: images[np.flatnonzero(labels == kind)[:PER_ROW]]
        for kind in range(0, len(found.classes), step)
    }
    if "unlabelled" in found.pixels:
        rows["unlabelled"] = found.pixels["unlabelled"][:PER_ROW]
    pitch = SIDE + GAP
    sheet = Image.new("RGB", (TITLE + PER_ROW * pitch, len(rows) * pitch + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, (name, pictures) in enumerate(rows.items()):
        top = GAP + row * pitch
        draw.text((GAP, top + SIDE // 2 - 8), name[:18], "black", font)
        for column, pixels in enumerate(pictures):
            picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            sheet.paste(picture.resize((SIDE, SIDE)), (TITLE + column * pitch, top))
    with writing(path, "--data", DataError):
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    return path
