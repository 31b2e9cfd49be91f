"""Two knobs that were crossed: whether one changes what the other does."""

from typing import Any

import plotly.graph_objects as go

from nnclr_study.report.figures.axes import axis_of, inert, percent, shown
from nnclr_study.report.look import INK, MUTED, SERIES, empty_figure, look_of
from nnclr_study.report.wording import number

SCALE = [[0.0, f"{SERIES[0]}0D"], [1.0, f"{SERIES[0]}80"]]
"""From the lowest to the highest mean; the text on it stands out at both ends."""


def interaction(interaction: dict[str, Any]) -> go.Figure:
    """Return the mean val_probe_top1 against the first knob, one line a level of the second."""
    (knob, other), (levels, others) = interaction["knobs"], interaction["levels"]
    axis = axis_of(levels)
    figure = empty_figure()
    for number_, level in enumerate(others):
        look = look_of(number_)
        points = sorted(
            (axis.places[value], row[number_])
            for value, row in zip(levels, interaction["means"], strict=True)
            if row[number_] is not None
        )
        if axis.edge is not None:  # a gap: no line leads over the edge to 0
            points = sorted([*points, (axis.edge, float("nan"))])
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[None if mean != mean else percent(mean) for _, mean in points],
            mode="lines+markers",
            line={"color": look.colour, "dash": look.dash, "width": 2},
            marker={"symbol": look.symbol, "size": 10},
            hovertemplate="%{y:.2f} %<extra>%{fullData.name}</extra>",
            name=f"{other} {shown(level)}",
        )
    figure.update_layout(
        xaxis={
            "title": {"text": f"{knob} (log scale)" if axis.log else knob},
            "tickvals": list(axis.places.values()),
            "ticktext": [shown(value) for value in axis.places],
        },
        showlegend=True,
    )
    if axis.edge is not None:
        figure.add_vline(axis.edge, line={"dash": "dot", "width": 1, "color": MUTED})
    return figure


def cell_means(interaction: dict[str, Any]) -> go.Figure:
    """Return the mean val_probe_top1 of every pair of levels, in per cent."""
    (knob, other), (levels, others) = interaction["knobs"], interaction["levels"]
    columns = [[row[place] for row in interaction["means"]] for place in range(len(others))]
    figure = empty_figure(f"{inert(other)}; mean val_probe_top1 (%)")
    figure.add_heatmap(
        z=[[None if mean is None else percent(mean) for mean in row] for row in columns],
        text=[["" if mean is None else number(mean) for mean in row] for row in columns],
        texttemplate="%{text}",
        textfont={"color": INK, "size": 13},
        colorscale=SCALE,
        showscale=False,
        xgap=3,
        ygap=3,
        hoverinfo="skip",
    )
    figure.update_layout(
        xaxis={
            "title": {"text": inert(knob)},
            "tickvals": list(range(len(levels))),
            "ticktext": [shown(value) for value in levels],
            "showline": False,
        },
        yaxis={
            "tickvals": list(range(len(others))),
            "ticktext": [shown(value) for value in others],
            "autorange": "reversed",
            "showgrid": False,
        },
        height=100 + 44 * len(others),
    )
    return figure
