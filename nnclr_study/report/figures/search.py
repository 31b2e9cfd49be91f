"""The accuracies of a search, whose trials are single seeds."""

from collections.abc import Sequence
from math import ceil

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nnclr_study.report.figures.axes import axis_of, few, inert, percent, shown
from nnclr_study.report.figures.learning import POINTS, epoch_axis, mode_of, thinned
from nnclr_study.report.look import empty_figure, look_of

ALL_POINTS = 20_000
"""Of all curves of a search together; the more there are, the coarser each is but the best."""


def slices(trials: pd.DataFrame, knobs: Sequence[str]) -> go.Figure:
    """Return val_probe_top1 of a search's finished trials by each searched knob."""
    finished = trials.dropna(subset="val_probe_top1")
    columns = min(2, len(knobs))
    rows = ceil(len(knobs) / columns)
    figure = make_subplots(
        rows, columns, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.28 / rows
    )
    figure.update_layout(empty_figure().layout)
    for place, knob in enumerate(knobs):
        tried = finished.dropna(subset=knob)
        axis = axis_of(tried[knob].tolist() or [None])
        where = {"row": place // columns + 1, "col": place % columns + 1}
        figure.add_scatter(
            x=[axis.places[value] for value in tried[knob]],
            y=[percent(value) for value in tried["val_probe_top1"]],
            mode="markers",
            marker={"color": look_of(0).colour, "size": 8, "opacity": 0.55},
            customdata=[shown(value) for value in tried[knob]],
            hovertemplate=f"{knob} %{{customdata}}: %{{y:.2f}} %<extra></extra>",
            showlegend=False,
            **where,
        )
        ticks = few(axis) if len(tried) else []
        figure.update_xaxes(
            title={"text": f"{knob} (log scale)" if axis.log else knob},
            tickvals=[axis.places[value] for value in ticks],
            ticktext=[shown(value) for value in ticks],
            tickangle=0,
            **where,
        )
    figure.update_layout(height=60 + 260 * rows)
    return figure


def search_curves(epochs: pd.DataFrame, best: int | None) -> go.Figure:
    """Return val_probe_top1 by epoch of a search's trials, the best one (an arm) thick."""
    figure = empty_figure()
    look = look_of(0)
    drawn = epochs[epochs["status"] != "failed"]
    curves, mode = drawn.groupby("arm"), mode_of(drawn)
    points = min(POINTS, max(2, ALL_POINTS // curves.ngroups))
    for arm, curve in curves:
        most = POINTS if arm == best else points
        figure.add_scatter(
            x=thinned(curve["epoch"].tolist(), most),
            y=[percent(value) for value in thinned(curve["val_probe_top1"].tolist(), most)],
            mode=mode,
            line={"width": 2.5 if arm == best else 1, "color": look.colour},
            opacity=1.0 if arm == best else 0.4,
            name=inert(curve["trial_id"].iloc[0]),
            hovertemplate="epoch %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(xaxis=epoch_axis(drawn), showlegend=False)
    return figure
