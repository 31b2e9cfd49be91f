"""How every figure looks: colours, marks, and the one template.

The page's script swaps `LIGHT` for `DARK`, so a figure names no other colour.
"""

from dataclasses import dataclass

import plotly.graph_objects as go

SERIES = ["#0072B2", "#C24E00", "#007350", "#A8457E", "#5B4E00", "#4B4B4B"]
INK, MUTED, GRID = "#1B1F24", "#565D66", "#E3E6EA"
LIGHT = [*SERIES, INK, MUTED, GRID]
DARK = [
    *("#56B4E9", "#F5A04C", "#37D0A1", "#DA90B9", "#F0E442", "#C8CCD4"),
    *("#E8EBEF", "#A3ABB6", "#2A313B"),
]
"""Every series at least 4.7:1 on white and 7.4:1 on the dark page, and any two at least 12 apart
(CIE76), also as the colour-blind see them: tests/report/test_look.py."""
BAND = "1F"
"""Alpha of a band, appended to its colour."""
TINT = "55"
"""Alpha of a cell or bar that has text on it, appended to its colour."""
SYMBOLS = ["diamond", "square", "triangle-up", "cross", "x", "star"]
DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
STATES = {
    "finished": "✓",
    "running": "▸",
    "failed": "✕",
    "stopped": "◂",
    "interrupted": "‖",
    "waiting": "·",
}
"""What becomes of a trial, and its letter."""
VERDICTS = {
    "better": "▲",
    "equivalent": "■",
    "not resolved": "○",
    "worse": "▼",
    "depends on method": "◇",
}
"""What is said of a difference, and its letter."""
_AXIS = {
    "gridcolor": GRID,
    "linecolor": GRID,
    "zeroline": False,
    "ticks": "",
    "tickfont": {"color": MUTED},
    "title": {"font": {"color": MUTED, "size": 14}, "standoff": 12},
    "automargin": True,
    "fixedrange": True,
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, 'Segoe UI', Roboto, sans-serif", "size": 14, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 34, "b": 8},
        "xaxis": _AXIS | {"showgrid": False, "showline": True},
        "yaxis": _AXIS | {"nticks": 7},
        "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": "inherit"}},
    }
)


@dataclass(frozen=True)
class Look:
    """What tells a series apart: with and without colour."""

    colour: str
    dash: str
    symbol: str


def look_of(number: int) -> Look:
    """Return the look of a series; a second round of colours has other dashes and symbols."""
    turn, place = divmod(number, len(SERIES))
    other = (turn + place) % len(SERIES)
    return Look(SERIES[place], DASHES[other], SYMBOLS[other])


def empty_figure(head: str = "val_probe_top1 (%)") -> go.Figure:
    """Return a figure to be filled.

    Its y axis is named by `head` above its top end, where a name takes no width from a phone.
    """
    return go.Figure(layout={"template": TEMPLATE}).add_annotation(
        text=head,
        x=0,
        y=1,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        yshift=10,
        align="left",
        showarrow=False,
        font={"color": MUTED},
    )
