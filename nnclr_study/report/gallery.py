"""What the queue retrieves, from the pictures that trials left in the run folder."""

import base64
import struct
import warnings
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from nnclr_study.errors import RunFolderWarning
from nnclr_study.report.load import Tables
from nnclr_study.study.files import open_inside, parse_json
from nnclr_study.study.rows import Count, Number

SHOWN = 56
"""Pixels of an image on the page."""
MAX_BYTES = 300_000
"""Largest picture in bytes; a larger one would make the page too heavy to mail."""
MAX_PIXELS = 4_096
"""Largest width or height of a picture in pixels."""
_PNG = b"\x89PNG\r\n\x1a\n"


class _Row(BaseModel):
    """A query and what was retrieved for it: labels, and cosines as of the nearest first."""

    label: Count
    neighbours: Annotated[list[Count | None], Field(max_length=32)]
    similarities: Annotated[list[Annotated[Number, Field(ge=-2, le=2)]], Field(max_length=32)]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.neighbours) != len(self.similarities):
            raise ValueError("neighbours and similarities have different lengths")
        return self


class _Retrieved(BaseModel):
    """What a picture shows, row by row."""

    rows: Annotated[list[_Row], Field(min_length=1, max_length=64)]


def galleries(tables: Tables, analysis: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pictures of the smallest queue, and of the best arm that has one.

    A file that is missing or is not one of ours is left out: it is no result.
    """
    sizes = [config.queue_size for config in tables.configs]
    finished = tables.trials[tables.trials["status"] == "finished"]
    with_queue = finished[[sizes[place] > 0 for place in finished.index]]
    if with_queue.empty or analysis["best"] is None:
        return []
    order = sorted(with_queue.index, key=lambda place: (sizes[place], place))
    best = analysis["best"]["arm"]
    chosen = [order[0], *[place for place in order if tables.trials["arm"][place] == best][:1]]
    found = [_gallery(tables, analysis, place) for place in dict.fromkeys(chosen)]
    return [each for each in found if each is not None]


def gallery_said(analysis: dict[str, Any]) -> str:
    """Return the section's sentence."""
    shares = [s for arm in analysis["arms"] if (s := arm["health"]["nn_same_label"]) is not None]
    text = "The images whose projections the support set holds nearest to some val images."
    if shares:
        text += " Eight queries are an illustration; the share over all of them is under Queue."
    return text


def _gallery(tables: Tables, analysis: dict[str, Any], place: int) -> dict[str, Any] | None:
    trial = tables.trials.loc[place]
    name = f"gallery/{trial['trial_id']}"
    try:
        image, text = (_content(tables.path, f"{name}.{kind}") for kind in ("png", "json"))
        retrieved = _Retrieved.model_validate(parse_json(text))
        if not _is_picture(image):
            raise ValueError
    except OSError:
        return None
    except ValueError:
        said = f"{tables.path / name}.png and .json are not a picture of this version and are left"
        warnings.warn(RunFolderWarning(f"{said} out of the page"), stacklevel=2)
        return None
    rows = [_row(row) for row in retrieved.rows]
    return {
        "label": analysis["arms"][trial["arm"]]["label"],
        "seed": trial["seed"],
        "image": f"data:image/png;base64,{base64.b64encode(image).decode()}",
        "columns": len(rows[0]) - 1,
        "shown": SHOWN,
        "rows": rows,
    }


def _content(folder: Path, name: str) -> bytes:
    """Return the content of a file, cut off where it is too large to be of use."""
    with open_inside(folder, name) as file:
        return file.read(MAX_BYTES + 1)


def _is_picture(image: bytes) -> bool:
    """Tell whether bytes are a PNG that is small in the file and on the screen."""
    if not image.startswith(_PNG) or not 24 <= len(image) <= MAX_BYTES:
        return False
    return all(1 <= pixels <= MAX_PIXELS for pixels in struct.unpack(">II", image[16:24]))


def _row(row: _Row) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = [
        {"label": row.label, "said": f"class {row.label}", "kind": "query"}
    ]
    for other, cosine in zip(row.neighbours, row.similarities, strict=True):
        sign = "?" if other is None else "✓" if other == row.label else "✕"
        kind = {"?": "unknown", "✓": "same", "✕": "other"}[sign]
        cells.append({"label": other, "said": f"{sign} {cosine:.2f}", "kind": kind})
    return cells
