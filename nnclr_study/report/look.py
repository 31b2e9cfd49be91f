"""How every figure looks: colours, marks, and the one template.

The page's script swaps `LIGHT` for `DARK`, so a figure names no other colour.
"""

from dataclasses import dataclass

import plotly.graph_objects as go

SERIES = ["#0072B2", "#C24E00", "#007A5A", "#A8457E", "#6B5B00", "#4B4B4B"]
INK, MUTED, GRID = "#1B1F24", "#565D66", "#E3E6EA"
LIGHT = [*SERIES, INK, MUTED, GRID]
DARK = [
    *("#56B4E9", "#F5A04C", "#3CC79A", "#E79AC4", "#F0E442", "#C8CCD4"),
    *("#E8EBEF", "#A3ABB6", "#2A313B"),
]
"""Every series at least 4.8:1 on white and 7.9:1 on the dark page."""
SYMBOLS = ["diamond", "square", "triangle-up", "cross", "x", "star"]
DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
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


def empty_figure() -> go.Figure:
    """Return a figure of val_probe_top1 in per cent, to be filled.

    The y axis is named above its top end, where the name takes no width from a phone.
    """
    return go.Figure(layout={"template": TEMPLATE}).add_annotation(
        text="val_probe_top1 (%)",
        x=0,
        y=1,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        yshift=10,
        showarrow=False,
        font={"color": MUTED},
    )
