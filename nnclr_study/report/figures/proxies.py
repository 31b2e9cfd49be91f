"""How scores rank conditions and trials, beside how test accuracy does."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from nnclr_study.report.figures.names import Names, cut
from nnclr_study.report.figures.rows import bars, lay_rows, mark_zero
from nnclr_study.report.look import SERIES, empty_figure
from nnclr_study.report.wording import points

_KINDS = (
    ("across", "conditions", 0.04, "diamond", SERIES[0]),
    ("within", "trials of one condition", 0.26, "circle-open", SERIES[1]),
)
"""Which correlation, what it is of, how far below its row, symbol and colour."""


def proxies(found: dict[str, Any], arms: Sequence[dict[str, Any]]) -> go.Figure:
    """Return the rank correlation of every score with test_probe_top1, with 95 % intervals.

    At the right end of a row stands what choosing by the score would have cost.
    """
    scores = found["scores"]
    figure = empty_figure("")
    mark_zero(figure)
    for kind, of, below, symbol, colour in _KINDS:
        own = [(row, s[kind]) for row, s in enumerate(scores) if s[kind] is not None]
        rhos = [each["rho"] for _, each in own]
        figure.add_scatter(
            x=rhos,
            y=[row + below for row, _ in own],
            error_x=bars(rhos, [each["interval"] for _, each in own], unit=float),
            mode="markers",
            cliponaxis=False,
            marker={
                "symbol": symbol,
                "color": colour,
                "size": 11,
                "line": {"width": 2, "color": colour},
            },
            customdata=[scores[row]["score"] for row, _ in own],
            hovertemplate=f"%{{customdata}}, {of}: %{{x:.2f}}<extra></extra>",
            name=f"over {of}",
            showlegend=bool(own),
        )
    names = Names("", [[score["score"]] for score in scores])
    lay_rows(figure, names, [_costs(score, arms) for score in scores], room=112)
    figure.update_layout(
        xaxis={"title": {"text": "rank correlation (rho)"}, "range": [-1.15, 1.15]},
        showlegend=True,
    )
    return figure


def _costs(score: dict[str, Any], arms: Sequence[dict[str, Any]]) -> str:
    lost = f"{points(score['cost'])} lost" if score["cost"] > 0 else "the best"
    return f"picks {cut(arms[score['picks']]['label'], 18)}<br>{lost}"
