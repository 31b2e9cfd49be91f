"""What the queue retrieves, from the pictures that trials left in the run folder."""

import base64
import json
from typing import Any

from nnclr_study.report.load import Tables

SHOWN = 56
"""Pixels of an image on the page."""
MAX_BYTES = 300_000
"""Of a picture; a larger one would make the page too heavy to mail."""
_PNG = b"\x89PNG\r\n\x1a\n"


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
    home = tables.path / "gallery"
    try:
        image = (home / f"{trial['trial_id']}.png").read_bytes()
        told = json.loads((home / f"{trial['trial_id']}.json").read_text(encoding="utf-8"))
        rows = [_row(row["label"], row["neighbours"], row["similarities"]) for row in told["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not image.startswith(_PNG) or len(image) > MAX_BYTES or not rows:
        return None
    return {
        "label": analysis["arms"][trial["arm"]]["label"],
        "seed": trial["seed"],
        "image": f"data:image/png;base64,{base64.b64encode(image).decode()}",
        "columns": len(rows[0]) - 1,
        "shown": SHOWN,
        "rows": rows,
    }


def _row(
    label: int, neighbours: list[int | None], similarities: list[float]
) -> list[dict[str, Any]]:
    cells = [{"label": label, "said": f"class {int(label)}", "kind": "query"}]
    for other, cosine in zip(neighbours, similarities, strict=True):
        sign = "?" if other is None else "✓" if other == label else "✕"
        kind = {"?": "unknown", "✓": "same", "✕": "other"}[sign]
        cells.append({"label": other, "said": f"{sign} {float(cosine):.2f}", "kind": kind})
    return cells
