"""By epoch: the accuracy, and what the queue and the features are like."""

from collections.abc import Sequence
from typing import Any, TypeVar

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nnclr_study.report.figures.axes import percent
from nnclr_study.report.figures.names import legend_name
from nnclr_study.report.intervals import t_interval
from nnclr_study.report.look import BAND, MUTED, empty_figure, look_of

T = TypeVar("T")

MIN_BAND = 3
"""Seeds below which a curve has no band."""
MANY = 200
"""Trials beyond which single seeds are not drawn."""
POINTS = 200
"""Of a curve, which a screen can show."""
FEW_EPOCHS = 8
HEALTH = {
    "nn_same_label": ("neighbours with the same label (%)", 100),
    "nn_age": ("age of neighbours (steps)", 1),
    "feature_std": ("feature_std", 1),
    "rankme": ("rankme (dimensions)", 1),
}
"""The name of each measure as it is drawn, and by what its values are multiplied."""


def learning_curves(epochs: pd.DataFrame, arms: Sequence[dict[str, Any]]) -> go.Figure:
    """Return val_probe_top1 by epoch: single seeds, and each arm's mean with a 95 % t band.

    Means and bands are over finished trials alone, so that no mean loses seeds on its way. Of
    many trials they are all that is drawn, once there are any.
    """
    figure = empty_figure()
    drawn = epochs[epochs["status"] != "failed"]
    ended = drawn[drawn["status"] == "finished"]
    crowded = drawn.groupby(["arm", "seed"]).ngroups > MANY and not ended.empty
    if crowded:
        drawn = ended
    early = drawn["epoch"].max() // 4
    mode = mode_of(drawn)
    late = [] if crowded else drawn[drawn["epoch"] > early]["val_probe_top1"].tolist()
    for place, arm in enumerate(arms):
        own = drawn[drawn["arm"] == place]
        look, label = look_of(place), legend_name(arm)
        lines: dict[str, Any] = {"legendgroup": label, "mode": mode, "hoverinfo": "skip"}
        for seed, curve in () if crowded else own.groupby("seed"):
            figure.add_scatter(
                x=thinned(curve["epoch"].tolist()),
                y=[percent(v) for v in thinned(curve["val_probe_top1"].tolist())],
                line={"width": 1, "color": look.colour},
                opacity=0.4,
                name=f"{label}, seed {seed}",
                showlegend=False,
                **lines,
            )
        finished = ended[ended["arm"] == place]
        by_epoch = {at: own.tolist() for at, own in finished.groupby("epoch")["val_probe_top1"]}
        if not by_epoch:
            continue
        x, values = thinned([*by_epoch]), thinned([*by_epoch.values()])
        n = len(values[-1])
        means = [sum(at) / len(at) for at in values]
        late += [mean for epoch, mean in zip(x, means, strict=True) if epoch > early]
        if n >= MIN_BAND:
            around = [t_interval(at) or (at[0], at[0]) for at in values]
            late += [
                bound
                for epoch, bounds in zip(x, around, strict=True)
                if epoch > early
                for bound in bounds
            ]
            figure.add_scatter(
                x=x + x[::-1],
                y=[percent(low) for low, _ in around] + [percent(h) for _, h in around[::-1]],
                fill="toself",
                fillcolor=look.colour + BAND,
                line={"width": 0},
                name=f"{label}, 95 % band",
                showlegend=False,
                **lines | {"mode": "lines"},
            )
        figure.add_scatter(
            x=x,
            y=[percent(mean) for mean in means],
            line={"width": 2.5, "color": look.colour, "dash": look.dash},
            marker={"size": 10, "symbol": look.symbol},
            name=f"{label} (n = {n})",
            **lines | {"hoverinfo": "all"},
            hovertemplate="epoch %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>",
        )
    # From 0 the first epochs' rise would press all that follows flat.
    edge = 0.05 * (max(late) - min(late)) or 0.01
    figure.update_layout(
        xaxis=epoch_axis(drawn),
        yaxis={"range": [percent(min(late) - edge), percent(max(late) + edge)]},
        showlegend=True,
    )
    return figure


def queue_health(epochs: pd.DataFrame, arms: Sequence[dict[str, Any]]) -> go.Figure:
    """Return how well the queue serves and whether the features collapse, by epoch and arm.

    Means over finished trials; a measure that no epoch has is left out, and so is an arm
    without it. At least one has to be there.
    """
    finished = epochs[epochs["status"] == "finished"]
    measures = [measure for measure in HEALTH if finished[measure].notna().any()]
    rows = len(measures)
    figure = make_subplots(rows, 1, shared_xaxes=True, vertical_spacing=0.26 / rows)
    figure.update_layout(empty_figure("").layout)
    named: set[int] = set()
    mode = mode_of(finished)
    for row, measure in enumerate(measures, start=1):
        title, times = HEALTH[measure]
        axis = figure.get_subplot(row, 1).yaxis
        figure.add_annotation(
            text=title,
            x=0,
            y=axis.domain[1],
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            yshift=4,
            showarrow=False,
            font={"color": MUTED},
        )
        for place, arm in enumerate(arms):
            own = finished[finished["arm"] == place].dropna(subset=measure)
            if own.empty:
                continue
            curve = own.astype({measure: float}).groupby("epoch")[measure].mean() * times
            look = look_of(place)
            figure.add_scatter(
                x=thinned(curve.index.tolist()),
                y=[float(f"{value:.5g}") for value in thinned(curve.tolist())],
                mode=mode,
                line={"width": 2, "color": look.colour, "dash": look.dash},
                name=f"{legend_name(arm)} (n = {own['seed'].nunique()})",
                legendgroup=str(place),
                legendrank=place,
                showlegend=place not in named,
                hovertemplate="epoch %{x}: %{y:.3g}<extra>%{fullData.name}</extra>",
                row=row,
                col=1,
            )
            named.add(place)
    figure.update_yaxes(nticks=4)
    figure.update_xaxes(epoch_axis(finished), row=rows, col=1)
    figure.update_layout(height=60 + 170 * rows, showlegend=True)
    return figure


def epoch_axis(epochs: pd.DataFrame) -> dict[str, Any]:
    """Return the axis of epochs: of few of them each has its tick, and nothing between has."""
    few = {"dtick": 1} if epochs["epoch"].max() <= FEW_EPOCHS else {}
    return {"title": {"text": "epoch"}} | few


def mode_of(epochs: pd.DataFrame) -> str:
    """Return how curves are drawn: of a single epoch as points, as a line would not be seen."""
    return "lines" if epochs["epoch"].nunique() > 1 else "markers"


def thinned(curve: Sequence[T], most: int = POINTS) -> list[T]:
    """Return at most so many values of a curve: every second, third, .. and the last."""
    step = -(-len(curve) // most) or 1
    return list(curve)[::-1][::step][::-1]
