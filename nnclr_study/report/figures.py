"""From a table to a figure; no files, and no averages but over the rows that are drawn.

A series is a condition without the first knob: one colour, dash and symbol each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log10
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nnclr_study.report.intervals import t_interval
from nnclr_study.report.look import MUTED, Look, empty_figure, look_of
from nnclr_study.study.plan import condition_label, show_value
from nnclr_study.study.search import Value

BAND = "1F"
"""Alpha of a band, appended to its colour."""
MIN_BAND = 3
"""Seeds below which a curve has no band."""


def dose_response(
    trials: pd.DataFrame, arms: Sequence[dict[str, Any]], knobs: Sequence[str]
) -> go.Figure:
    """Return val_probe_top1 against the first knob: seeds, means, 95 % t-intervals.

    `arms` are the analysis' own; a trial's `arm` is a place in them.
    """
    knob = knobs[0] if knobs else ""
    axis = _axis_of([arm["condition"].get(knob) for arm in arms])
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
            "ticktext": [_shown(value) for value in axis.places],
            "range": [
                min(axis.places.values()) - axis.step / 2,
                max(axis.places.values()) + axis.step / 2,
            ],
        },
        showlegend=len(series) > 1,
    )
    if axis.edge is not None:
        figure.add_vline(axis.edge, line={"dash": "dot", "width": 1, "color": MUTED})
    return figure


def learning_curves(epochs: pd.DataFrame, arms: Sequence[dict[str, Any]]) -> go.Figure:
    """Return val_probe_top1 by epoch: single seeds, and each arm's mean with a 95 % t band.

    Means and bands are over finished trials alone, so that no mean loses seeds on its way.
    """
    figure = empty_figure()
    drawn = epochs[epochs["status"] != "failed"]
    early = drawn["epoch"].max() // 4
    late = drawn[drawn["epoch"] > early]["val_probe_top1"].tolist()
    for place, arm in enumerate(arms):
        own = drawn[drawn["arm"] == place]
        look, label = look_of(place), arm["label"]
        lines: dict[str, Any] = {"legendgroup": label, "mode": "lines", "hoverinfo": "skip"}
        for seed, curve in own.groupby("seed"):
            figure.add_scatter(
                x=curve["epoch"].tolist(),
                y=[_percent(v) for v in curve["val_probe_top1"]],
                line={"width": 1, "color": look.colour},
                opacity=0.4,
                name=f"{label}, seed {seed}",
                showlegend=False,
                **lines,
            )
        finished = own[own["status"] == "finished"]
        values = [group.tolist() for _, group in finished.groupby("epoch")["val_probe_top1"]]
        if not values:
            continue
        n, x = len(values[0]), list(range(1, len(values) + 1))
        if n >= MIN_BAND:
            around = [t_interval(at) or (at[0], at[0]) for at in values]
            late += [bound for bounds in around[early:] for bound in bounds]
            figure.add_scatter(
                x=x + x[::-1],
                y=[_percent(low) for low, _ in around] + [_percent(h) for _, h in around[::-1]],
                fill="toself",
                fillcolor=look.colour + BAND,
                line={"width": 0},
                name=f"{label}, 95 % band",
                showlegend=False,
                **lines,
            )
        figure.add_scatter(
            x=x,
            y=[_percent(sum(at) / len(at)) for at in values],
            line={"width": 2.5, "color": look.colour, "dash": look.dash},
            name=f"{label} (n = {n})",
            **lines | {"hoverinfo": "all"},
            hovertemplate="epoch %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>",
        )
    # From 0 the first epochs' rise would press all that follows flat.
    edge = 0.05 * (max(late) - min(late)) or 0.01
    figure.update_layout(
        xaxis={"title": {"text": "epoch"}},
        yaxis={"range": [_percent(min(late) - edge), _percent(max(late) + edge)]},
        showlegend=True,
    )
    return figure


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
        shown = finished.dropna(subset=knob)
        axis = _axis_of(shown[knob].tolist() or [None])
        where = {"row": place // columns + 1, "col": place % columns + 1}
        figure.add_scatter(
            x=[axis.places[value] for value in shown[knob]],
            y=[_percent(value) for value in shown["val_probe_top1"]],
            mode="markers",
            marker={"color": look_of(0).colour, "size": 8, "opacity": 0.55},
            customdata=[show_value(value) for value in shown[knob]],
            hovertemplate=f"{knob} %{{customdata}}: %{{y:.2f}} %<extra></extra>",
            showlegend=False,
            **where,
        )
        ticks = _few(axis)
        figure.update_xaxes(
            title={"text": f"{knob} (log scale)" if axis.log else knob},
            tickvals=[axis.places[value] for value in ticks],
            ticktext=[_shown(value) for value in ticks],
            **where,
        )
    figure.update_layout(height=60 + 260 * rows)
    return figure


def search_curves(epochs: pd.DataFrame, best: int | None) -> go.Figure:
    """Return val_probe_top1 by epoch of a search's trials, the best one (an arm) thick."""
    figure = empty_figure()
    look = look_of(0)
    for arm, curve in epochs[epochs["status"] != "failed"].groupby("arm"):
        figure.add_scatter(
            x=curve["epoch"].tolist(),
            y=[_percent(value) for value in curve["val_probe_top1"]],
            mode="lines",
            line={"width": 2.5 if arm == best else 1, "color": look.colour},
            opacity=1.0 if arm == best else 0.4,
            name=str(curve["trial_id"].iloc[0]),
            hovertemplate="epoch %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(xaxis={"title": {"text": "epoch"}}, showlegend=False)
    return figure


@dataclass(frozen=True)
class _Axis:
    """Where the tested values stand on a linear x axis, in its own units."""

    places: dict[Value | None, float]
    numeric: bool
    log: bool = False
    edge: float | None = None
    """Between 0 and the log axis, on which 0 has no place."""

    @property
    def step(self) -> float:
        """The least distance of two values."""
        return min((b - a for a, b in pairwise(sorted(self.places.values()))), default=1.0)


def _axis_of(values: Sequence[Value | None]) -> _Axis:
    """Place the tested values: by logarithm over a decade, by value, or one after another."""
    tested = list(dict.fromkeys(values))
    numbers = [v for v in tested if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(tested) or len(tested) == 1:
        return _Axis({value: float(place) for place, value in enumerate(tested)}, numeric=False)
    positive = sorted(v for v in numbers if v > 0)
    if positive[-1] <= 10 * positive[0]:
        return _Axis({value: float(value) for value in numbers}, numeric=True)
    places: dict[Value | None, float] = {v: log10(v) for v in numbers if v}
    if 0 not in numbers:
        return _Axis(places, numeric=True, log=True)
    gap = (log10(positive[-1]) - log10(positive[0])) / (len(positive) - 1)
    zero = log10(positive[0]) - gap
    return _Axis({0: zero} | places, numeric=True, log=True, edge=zero + gap / 2)


def _few(axis: _Axis) -> list[Value | None]:
    """Return at most five of an axis's values to name, spread over it."""
    ordered = sorted(axis.places, key=lambda value: axis.places[value])
    last = min(len(ordered), 5) - 1
    return [ordered[place * (len(ordered) - 1) // max(1, last)] for place in range(last + 1)]


def _series(arms: Sequence[dict[str, Any]], knob: str) -> dict[str, list[int]]:
    """Return the places of the arms that share all but the first knob, by their label."""
    series: dict[str, list[int]] = {}
    for place, arm in enumerate(arms):
        others = {name: value for name, value in arm["condition"].items() if name != knob}
        series.setdefault(condition_label(others), []).append(place)
    return series


def _line(
    arms: Sequence[dict[str, Any]], x: dict[int, float], look: Look, after: float | None
) -> go.Scatter:
    """Join the means of a series, but not across the edge of a log axis."""
    met = sorted((at, arm) for arm, at in x.items() if after is None or at > after)
    return go.Scatter(
        x=[at for at, _ in met],
        y=[_percent(arms[arm]["val_probe_top1"]["mean"]) for _, arm in met],
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
        y=[_percent(value) for value in own["val_probe_top1"]],
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
        y=[_percent(top["mean"]) for top in tops],
        error_y={"type": "data", "array": [_percent(h) for h in half], "thickness": 2, "width": 6},
        mode="markers",
        marker={"color": look.colour, "symbol": look.symbol, "size": 11},
        customdata=[[arms[arm]["label"], arms[arm]["val_probe_top1"]["n"]] for arm in x],
        hovertemplate="%{customdata[0]}: mean %{y:.2f} % (n = %{customdata[1]})<extra></extra>",
        name=label,
        showlegend=bool(x),
    )


def _shown(value: Value | None) -> str:
    return "" if value is None else show_value(value)


def _percent(share: float) -> float:
    return round(100 * share, 4)
