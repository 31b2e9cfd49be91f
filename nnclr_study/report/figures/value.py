"""What an accuracy costs, and what is left of it on fresh seeds."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nnclr_study.report.figures.axes import inert, percent
from nnclr_study.report.figures.names import legend_name, row_names
from nnclr_study.report.figures.rows import bars, lay_rows
from nnclr_study.report.intervals import t_interval
from nnclr_study.report.look import MUTED, SERIES, empty_figure, look_of
from nnclr_study.report.wording import decimals_of, duration
from nnclr_study.report.wording import percent as in_percent

UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
"""Seconds of each."""


def cost(trials: pd.DataFrame, arms: Sequence[dict[str, Any]]) -> go.Figure:
    """Return each arm's val_probe_top1 against what a trial took, with 95 % t-intervals.

    What it took is GPU time, and plain time where no trial held a GPU. The dotted line joins the
    arms that no cheaper arm reaches.
    """
    finished = trials[trials["status"] == "finished"]
    on_gpu = finished["gpu_seconds"].sum() > 0
    column = "gpu_seconds" if on_gpu else "seconds"
    priced = [
        (arm[f"mean_{column}"], arm["val_probe_top1"]["mean"], place)
        for place, arm in enumerate(arms)
        if arm[f"mean_{column}"] is not None and arm["val_probe_top1"]["mean"] is not None
    ]
    unit = unit_of(max((seconds for seconds, _, _ in priced), default=0.0))
    drawn = [(seconds / UNITS[unit], mean, place) for seconds, mean, place in priced]
    figure = empty_figure()
    figure.add_trace(_front(drawn))
    bounds = []
    for x, mean, place in drawn:
        look, arm = look_of(place), arms[place]
        spent = (finished[finished["arm"] == place][column] / UNITS[unit]).dropna().tolist()
        took = t_interval(spent)
        half = took[1] - x if took else 0.0
        bounds += [x - half, x + half]
        figure.add_scatter(
            x=[x],
            y=[percent(mean)],
            error_x={"type": "data", "array": [half], "thickness": 1.5, "width": 4},
            error_y=bars([mean], [arm["val_probe_top1"]["interval"]])
            | {"thickness": 1.5, "width": 4},
            mode="markers",
            marker={"color": look.colour, "symbol": look.symbol, "size": 11},
            customdata=[[inert(arm["label"]), duration(x * UNITS[unit])]],
            hovertemplate=(
                f"%{{customdata[0]}}: %{{y:.2f}} %, %{{customdata[1]}}"
                f"{' of GPU time' if on_gpu else ''}<extra></extra>"
            ),
            name=legend_name(arm),
        )
    figure.update_layout(
        xaxis={
            "title": {"text": f"{'GPU-' if on_gpu else ''}{unit} a trial"},
            "range": _cost_range(bounds),
        },
        showlegend=True,
    )
    return figure


def unit_of(seconds: float) -> str:
    """Return the largest unit of time of which this is at least one."""
    return next((u for u in reversed(UNITS) if seconds >= UNITS[u]), "seconds")


def confirmation(arms: Sequence[dict[str, Any]], confirmation: dict[str, Any]) -> go.Figure:
    """Return by arm the score by which it was chosen, and its mean on fresh seeds.

    The baseline was not chosen and has no such score.
    """
    chosen = [None, *confirmation["val_probe_top1"]]
    names = row_names(arms)
    figure = empty_figure(names.title)
    fresh = [arm["val_probe_top1"] for arm in arms]
    met = [place for place, top1 in enumerate(fresh) if top1["mean"] is not None]
    labels = [inert(arm["label"]) for arm in arms]
    both = [(place, score) for place, score in enumerate(chosen) if score is not None]
    for place, score in both:
        if place in met:
            figure.add_scatter(
                x=[percent(score), percent(fresh[place]["mean"])],
                y=[place, place],
                mode="lines",
                line={"color": MUTED, "dash": "dot", "width": 1.5},
                hoverinfo="skip",
                showlegend=False,
            )
    figure.add_scatter(
        x=[percent(score) for _, score in both],
        y=[place for place, _ in both],
        mode="markers",
        marker={
            "symbol": "circle-open",
            "color": MUTED,
            "size": 11,
            "line": {"width": 2, "color": MUTED},
        },
        customdata=[labels[place] for place, _ in both],
        hovertemplate="%{customdata}: %{x:.2f} % when chosen<extra></extra>",
        name="when it was chosen",
    )
    means = [fresh[place]["mean"] for place in met]
    figure.add_scatter(
        x=[percent(mean) for mean in means],
        y=met,
        error_x=bars(means, [fresh[place]["interval"] for place in met]),
        mode="markers",
        marker={"symbol": "diamond", "color": SERIES[0], "size": 12},
        customdata=[[labels[place], fresh[place]["n"]] for place in met],
        hovertemplate=(
            "%{customdata[0]}: mean %{x:.2f} % (n = %{customdata[1]}), fresh seeds<extra></extra>"
        ),
        name="fresh seeds: mean, 95 % CI",
    )
    pairs = zip(chosen, fresh, strict=True)
    lay_rows(figure, names, [_said(score, top1) for score, top1 in pairs])
    figure.update_layout(
        xaxis={"title": {"text": "val_probe_top1 (%)"}, "nticks": 6}, showlegend=True
    )
    return figure


def _cost_range(bounds: Sequence[float]) -> list[float]:
    """Return a range from 0 on, or around arms of which none costs twice as much as another.

    Their distances would be lost beside their way from 0.
    """
    low, high = min(bounds, default=0.0), max(bounds, default=0.0) or 1.0
    return [0.0 if 2 * low < high else low - 0.1 * high, 1.1 * high]


def _front(drawn: Sequence[tuple[float, float, int]]) -> go.Scatter:
    """Join the points of cost and accuracy that no cheaper one reaches, as steps."""
    front: list[tuple[float, float]] = []
    for spent, mean, _ in sorted(drawn, key=lambda point: (point[0], -point[1])):
        if not front or mean > front[-1][1]:
            front.append((spent, mean))
    return go.Scatter(
        x=[spent for spent, _ in front],
        y=[percent(mean) for _, mean in front],
        mode="lines",
        line={"color": MUTED, "dash": "dot", "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
        name="no cheaper condition reaches it",
        showlegend=len(front) > 1,
    )


def _said(score: float | None, top1: dict[str, Any]) -> str:
    """Return what stands at the right end of a row: the fresh mean, and the score below it."""
    decimals = decimals_of(top1["interval"])
    now = "-" if top1["mean"] is None else in_percent(top1["mean"], decimals)
    return f"{now}<br>chosen at {in_percent(score, decimals)}" if score is not None else now
