"""The accuracy against the first knob.

A series is a condition without the first knob: one colour, dash and symbol each.
"""

from collections.abc import Sequence
from math import log10
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nnclr_study.report.figures.axes import axis_of, inert, percent, shown
from nnclr_study.report.figures.names import SMALL
from nnclr_study.report.look import BAND, MUTED, Look, empty_figure, look_of
from nnclr_study.study.plan import condition_label


def dose_response(
    trials: pd.DataFrame,
    arms: Sequence[dict[str, Any]],
    knobs: Sequence[str],
    trend: dict[str, Any] | None = None,
) -> go.Figure:
    """Return val_probe_top1 against the first knob: seeds, means, 95 % t-intervals.

    `arms` are the analysis' own, as is `trend`; a trial's `arm` is a place in them. Where the
    accuracy saturates within the doses, a grey band says from where on, with 95 % confidence.
    """
    knob = knobs[0] if knobs else ""
    axis = axis_of([arm["condition"].get(knob) for arm in arms])
    seeds = trials.dropna(subset="val_probe_top1")
    near = 0.02 * (seeds["val_probe_top1"].max() - seeds["val_probe_top1"].min())
    series = _series(arms, knob)
    figure = empty_figure()
    for number, (label, members) in enumerate(series.items()):
        dodge = (number - (len(series) - 1) / 2) * min(0.3, 0.8 / len(series)) * axis.step
        x = {arm: axis.places[arms[arm]["condition"].get(knob)] + dodge for arm in members}
        look = look_of(number)
        averaged = {arm: at for arm, at in x.items() if arms[arm]["val_probe_top1"]["n"] > 1}
        left = {arm: at - 0.12 * axis.step if arm in averaged else at for arm, at in x.items()}
        if axis.numeric:
            figure.add_trace(_line(arms, averaged, look, after=axis.edge))
        figure.add_trace(_dots(seeds, left, near, 0.08 * axis.step, look, label))
        figure.add_trace(_means(arms, averaged, look, label))
    figure.update_layout(
        xaxis={
            "title": {"text": f"{knob} (log scale)" if axis.log else knob},
            "tickvals": list(axis.places.values()),
            "ticktext": [shown(value) for value in axis.places],
            "range": [
                min(axis.places.values()) - axis.step / 2,
                max(axis.places.values()) + axis.step / 2,
            ],
        },
        showlegend=len(series) > 1,
    )
    if axis.edge is not None:
        figure.add_vline(axis.edge, line={"dash": "dot", "width": 1, "color": MUTED})
    if trend is not None and trend["saturated"]:
        _mark_saturation(figure, trend, axis.log)
    return figure


def _mark_saturation(figure: go.Figure, trend: dict[str, Any], log: bool) -> None:
    """Draw from which dose on the accuracy is flat, below all else."""
    doses = (*trend["saturation_interval"], trend["saturation"])
    low, high, best = (log10(dose) if log else dose for dose in doses)
    figure.add_vrect(low, high, fillcolor=MUTED + BAND, line_width=0, layer="below")
    figure.add_vline(best, line={"dash": "dash", "width": 1, "color": MUTED}, layer="below")
    figure.add_annotation(
        text="flat from here",
        x=best,
        y=0,
        yref="paper",
        yanchor="bottom",
        xanchor="right",
        showarrow=False,
        font={"size": SMALL, "color": MUTED},
    )


def _series(arms: Sequence[dict[str, Any]], knob: str) -> dict[str, list[int]]:
    """Return the places of the arms that share all but the first knob, by their label."""
    series: dict[str, list[int]] = {}
    for place, arm in enumerate(arms):
        others = {name: value for name, value in arm["condition"].items() if name != knob}
        series.setdefault(inert(condition_label(others)), []).append(place)
    return series


def _line(
    arms: Sequence[dict[str, Any]], x: dict[int, float], look: Look, after: float | None
) -> go.Scatter:
    """Join the means of a series, but not across the edge of a log axis."""
    met = sorted((at, arm) for arm, at in x.items() if after is None or at > after)
    return go.Scatter(
        x=[at for at, _ in met],
        y=[percent(arms[arm]["val_probe_top1"]["mean"]) for _, arm in met],
        mode="lines",
        line={"color": look.colour, "dash": look.dash, "width": 1},
        opacity=0.6,
        hoverinfo="skip",
        showlegend=False,
    )


def _dots(
    seeds: pd.DataFrame,
    x: dict[int, float],
    near: float,
    aside: float,
    look: Look,
    label: str,
) -> go.Scatter:
    """Draw every seed at its arm's x, further left where it would hide another."""
    own = seeds[seeds["arm"].isin(list(x))].sort_values(["arm", "val_probe_top1"])
    at, before, shift = [], (-1, 0.0), 0
    for arm, value in zip(own["arm"], own["val_probe_top1"], strict=True):
        shift = shift + 1 if before[0] == arm and value - before[1] <= near else 0
        at.append(x[arm] - aside * (shift % 3))
        before = (arm, value)
    return go.Scatter(
        x=at,
        y=[percent(value) for value in own["val_probe_top1"]],
        mode="markers",
        marker={"color": look.colour, "size": 8, "opacity": 0.55},
        customdata=own["seed"].tolist(),
        hovertemplate="seed %{customdata}: %{y:.2f} %<extra></extra>",
        name=f"{label}, seeds",
        showlegend=not own["arm"].duplicated().any(),
    )


def _means(
    arms: Sequence[dict[str, Any]], x: dict[int, float], look: Look, label: str
) -> go.Scatter:
    """Draw the mean of every arm of two or more seeds with its interval."""
    tops = [arms[arm]["val_probe_top1"] for arm in x]
    half = [top["interval"][1] - top["mean"] if top["interval"] else 0 for top in tops]
    return go.Scatter(
        x=list(x.values()),
        y=[percent(top["mean"]) for top in tops],
        error_y={"type": "data", "array": [percent(h) for h in half], "thickness": 2, "width": 6},
        mode="markers",
        marker={"color": look.colour, "symbol": look.symbol, "size": 11},
        customdata=[[inert(arms[arm]["label"]), arms[arm]["val_probe_top1"]["n"]] for arm in x],
        hovertemplate="%{customdata[0]}: mean %{y:.2f} % (n = %{customdata[1]})<extra></extra>",
        name=label,
        showlegend=bool(x),
    )
