"""What a search's trials tell, in figures; all of them exploratory."""

from math import ceil, floor, log10
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nnclr_study.report.figures.axes import percent
from nnclr_study.report.figures.value import UNITS, unit_of
from nnclr_study.report.load import Tables
from nnclr_study.report.look import INK, MUTED, SERIES, empty_figure
from nnclr_study.report.search_diagnostics import place_on
from nnclr_study.report.search_findings import rounded
from nnclr_study.report.wording import duration
from nnclr_study.report.wording import percent as in_words

ROW = 58
"""Height of a knob's row."""
ABSENT = -0.08
"""Where a trial stands whose knob did not apply, left of its scale."""
BLUE, ORANGE = SERIES[:2]


def search_figures(tables: Tables, diagnostics: dict[str, Any]) -> dict[str, go.Figure]:
    """Return the figures that there is something to draw in, by the names of their sentences."""
    if not diagnostics["finished"]:
        return {}
    finished = tables.trials.dropna(subset="val_probe_top1").sort_values("val_probe_top1")
    drawn = {
        "history": _history(diagnostics["history"]),
        "edf": _edf(diagnostics["edf"]["values"]),
        "pareto": _pareto(diagnostics["pareto"]),
    }
    if diagnostics["importance"]:
        drawn["importance"] = _importance(diagnostics["importance"])
    if diagnostics["contour"]:
        drawn["parallel"] = _parallel(finished, diagnostics)
        drawn["contour"] = _contour(finished, diagnostics)
    return drawn


def _history(rows: list[dict[str, Any]]) -> go.Figure:
    """Draw every trial as they began, and the best so far; below, those without an accuracy."""
    figure = empty_figure()
    tops = [row["val_probe_top1"] for row in rows if row["status"] == "finished"]
    edge = 0.05 * (max(tops) - min(tops)) or 0.01
    figure.add_scatter(
        x=[row["trial"] for row in rows if row["best"] is not None],
        y=[percent(row["best"]) for row in rows if row["best"] is not None],
        mode="lines",
        line={"color": ORANGE, "width": 2, "shape": "hv"},
        name="best so far",
        hoverinfo="skip",
    )
    looks = {
        "finished": ("finished", "circle", BLUE),
        "stopped": ("stopped early", "triangle-left-open", MUTED),
        "failed": ("failed", "x", INK),
    }
    for status, (name, symbol, colour) in looks.items():
        own = [row for row in rows if row["status"] == status]
        done = status == "finished"
        figure.add_scatter(
            x=[row["trial"] for row in own],
            y=[percent(row["val_probe_top1"]) if done else 0 for row in own],
            yaxis="y" if done else "y2",
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 8},
            customdata=[
                in_words(row["val_probe_top1"], 2)
                if done
                else f"{name}, epoch {row['epochs_done']}"
                for row in own
            ],
            hovertemplate="number %{x}: %{customdata}<extra></extra>",
            name=name,
            showlegend=bool(own),
        )
    figure.update_layout(
        xaxis={"title": {"text": "trial, numbered from 0 as they began"}, "anchor": "y2"},
        yaxis={
            "range": [percent(min(tops) - edge), percent(max(tops) + edge)],
            "domain": [0.1, 1],
        },
        yaxis2={"range": [-1, 1], "domain": [0, 0.08], "visible": False, "fixedrange": True},
        showlegend=True,
    )
    return figure


def _importance(importance: dict[str, Any]) -> go.Figure:
    """Draw a bar a knob; its name stands above it, where it takes no width from a phone."""
    times = importance["times_chance"]
    rows = list(range(len(times)))
    figure = empty_figure("")
    figure.add_bar(
        x=list(times.values()),
        y=rows,
        width=0.34,
        orientation="h",
        marker={"color": BLUE},
        text=[in_words(share, 0) for share in importance["shares"].values()],
        textposition="outside",
        textfont={"color": INK},
        cliponaxis=False,
        hoverinfo="skip",
    )
    for row, knob in enumerate(times):
        _name(figure, knob, row)
    figure.add_vline(1, line={"dash": "dot", "width": 2, "color": MUTED})
    figure.update_layout(
        xaxis={
            "title": {"text": "importance (1: what chance gives)"},
            "range": [0, 1.18 * max(1.0, *times.values())],
        },
        yaxis={"range": [len(rows) - 0.5, -0.7], "visible": False},
        height=80 + ROW * len(rows),
        showlegend=False,
    )
    return figure


def _parallel(finished: pd.DataFrame, found: dict[str, Any]) -> go.Figure:
    """Draw a line a trial down the knobs' scales to its accuracy: for a phone, upright."""
    scales, good = found["scales"], set(found["good"])
    tops = found["edf"]["values"]
    accuracy = {"low": tops[0], "high": tops[-1], "log": False, "whole": False}
    names = [*scales, "val_probe_top1 (%)"]
    figure = empty_figure("")
    for trial in finished.to_dict("records"):  # the best last, on top
        best = trial["arm"] in good
        at = [
            ABSENT if pd.isna(trial[knob]) else place_on(scale, trial[knob])
            for knob, scale in scales.items()
        ]
        top1 = trial["val_probe_top1"]
        figure.add_scatter(
            x=[*at, place_on(accuracy, top1) if tops[0] < tops[-1] else 0.5],
            y=list(range(len(names))),
            mode="lines",
            line={"color": BLUE if best else MUTED, "width": 2.2 if best else 1},
            opacity=0.75 if best else 0.3,
            name=f"number {trial['arm']}: {in_words(top1, 2)}",
            hovertemplate="%{fullData.name}<extra></extra>",
        )
    for row, name in enumerate(names):
        _name(figure, name, row)
    for row, scale in enumerate(scales.values()):
        _ticks_below(figure, _ticks(scale), row)
    ends = dict.fromkeys((tops[0], tops[-1]))
    last = {place_on(accuracy, t) if len(ends) > 1 else 0.5: f"{100 * t:.1f}" for t in ends}
    _ticks_below(figure, last, len(scales))
    figure.update_layout(
        xaxis={"range": [-0.1, 1.09], "visible": False},
        yaxis={"range": [len(names) - 0.5, -0.5], "visible": False},
        height=40 + (ROW + 12) * len(names),
        showlegend=False,
    )
    return figure


def _contour(finished: pd.DataFrame, found: dict[str, Any]) -> go.Figure:
    """Draw the trials by two knobs, the best third filled, and lines of equal means."""
    contour, good = found["contour"], set(found["good"])
    across, up = contour["knobs"]
    scales = [found["scales"][knob] for knob in (across, up)]
    tried = finished.dropna(subset=[across, up])
    figure = empty_figure(_axis_name(up, scales[1]))
    if contour["means"]:
        at = [place / (len(contour["means"]) - 1) for place in range(len(contour["means"]))]
        figure.add_contour(
            x=at,
            y=at,
            z=[[None if v is None else percent(v) for v in row] for row in contour["means"]],
            contours={
                "coloring": "none",
                "showlabels": True,
                "labelfont": {"color": INK, "size": 12},
            },
            line={"color": ORANGE, "width": 1.5},
            ncontours=8,
            showscale=False,
            name="equal means (%)",
            showlegend=True,
            hoverinfo="skip",
        )
    for best in (False, True):
        own = tried[tried["arm"].isin(good) == best]
        figure.add_scatter(
            x=[place_on(scales[0], value) for value in own[across]],
            y=[place_on(scales[1], value) for value in own[up]],
            mode="markers",
            marker={
                "color": BLUE if best else MUTED,
                "symbol": "diamond" if best else "circle-open",
                "size": 9 if best else 7,
            },
            customdata=[in_words(top1, 2) for top1 in own["val_probe_top1"]],
            hovertemplate="%{customdata}<extra></extra>",
            name="the best third" if best else "the others",
        )
    axes = [
        {"tickvals": list(ticks), "ticktext": list(ticks.values()), "range": [-0.04, 1.04]}
        for ticks in map(_ticks, scales)
    ]
    title = {"title": {"text": _axis_name(across, scales[0])}}
    figure.update_layout(xaxis=axes[0] | title, yaxis=axes[1], showlegend=True)
    return figure


def _edf(values: list[float]) -> go.Figure:
    """Draw which share of the finished trials reaches each accuracy at most."""
    figure = empty_figure("finished trials (%)")
    edge = 0.03 * (values[-1] - values[0]) or 0.01
    figure.add_scatter(
        x=[percent(value) for value in [values[0], *values]],
        y=[percent(place / len(values)) for place in range(len(values) + 1)],
        mode="lines",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        hovertemplate="%{y:.0f} % have at most %{x:.2f} %<extra></extra>",
    )
    figure.update_layout(
        xaxis={
            "title": {"text": "val_probe_top1 (%), at most"},
            "range": [percent(values[0] - edge), percent(values[-1] + edge)],
        },
        yaxis={"range": [0, 104]},
        showlegend=False,
    )
    return figure


def _pareto(pareto: dict[str, Any]) -> go.Figure:
    """Draw accuracy against time, and the line of those that none beats in both."""
    figure, front = empty_figure(), set(pareto["front"])
    points = sorted(pareto["points"], key=lambda p: (p["hours"], p["val_probe_top1"]))
    unit = unit_of(3600 * points[-1]["hours"])
    units = 3600 / UNITS[unit]
    for best, name in ((False, "beaten in both"), (True, "beaten by none")):
        own = [point for point in points if (point["trial"] in front) == best]
        figure.add_scatter(
            x=[units * point["hours"] for point in own],
            y=[percent(point["val_probe_top1"]) for point in own],
            mode="lines+markers" if best else "markers",
            line={"color": ORANGE, "width": 2, "shape": "hv"},
            marker={
                "color": ORANGE if best else BLUE,
                "symbol": "diamond" if best else "circle",
                "size": 10 if best else 8,
                "opacity": 1 if best else 0.55,
            },
            customdata=[[point["trial"], duration(3600 * point["hours"])] for point in own],
            hovertemplate="number %{customdata[0]}: %{y:.2f} %, %{customdata[1]}<extra></extra>",
            name=name,
            showlegend=bool(own),
        )
    title = f"{pareto['cost'].removesuffix('hours')}{unit} a trial"
    figure.update_layout(xaxis={"title": {"text": title}, "rangemode": "tozero"}, showlegend=True)
    return figure


def _axis_name(knob: str, scale: dict[str, Any]) -> str:
    return f"{knob} (log scale)" if scale.get("log") else knob


def _ticks(scale: dict[str, Any]) -> dict[float, str]:
    """Return what to name on a knob's scale by its place: the ends, and what lies between.

    A power of ten or a middle next to an end is left out.
    """
    if "choices" in scale:
        named = scale["choices"]
    else:
        low, high = scale["low"], scale["high"]
        middle = (low + high) // 2 if scale["whole"] else (low + high) / 2
        tens = (
            [10.0**power for power in range(ceil(log10(low)), floor(log10(high)) + 1)]
            if scale["log"]
            else [middle]
        )
        between = [int(ten) if scale["whole"] else ten for ten in tens]
        named = [low, *(v for v in between if 0.15 < place_on(scale, v) < 0.85), high]
    return {place_on(scale, value): rounded(value) for value in named}


def _name(figure: go.Figure, name: str, row: int) -> None:
    """Write a row's name above its left end."""
    figure.add_annotation(
        text=name,
        x=0,
        xref="paper",
        y=row,
        yshift=18,
        xanchor="left",
        showarrow=False,
        font={"color": INK},
    )


def _ticks_below(figure: go.Figure, ticks: dict[float, str], row: int) -> None:
    """Draw a row's scale, and name its ticks below it."""
    figure.add_scatter(
        x=list(ticks),
        y=[row] * len(ticks),
        mode="markers+text",
        marker={"symbol": "line-ns-open", "size": 8, "color": MUTED},
        text=list(ticks.values()),
        textposition="bottom center",
        textfont={"color": INK, "size": 12},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_shape(type="line", x0=0, x1=1, y0=row, y1=row, line={"color": MUTED, "width": 1})
