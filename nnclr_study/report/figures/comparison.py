"""Arms against each other: with the baseline, with the best, and seed by seed."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nnclr_study.report.figures.axes import axis_of, inert, percent
from nnclr_study.report.figures.names import column_axis, legend_name, row_names
from nnclr_study.report.figures.rows import bars, difference, lay_rows, mark_zero
from nnclr_study.report.look import BAND, MUTED, SERIES, VERDICTS, empty_figure, look_of
from nnclr_study.report.wording import p_value

_MARKS: dict[str | None, tuple[str, str]] = {
    "better": ("triangle-up", SERIES[2]),
    "equivalent": ("square", SERIES[0]),
    "not resolved": ("circle-open", MUTED),
    "worse": ("triangle-down", SERIES[1]),
    "depends on method": ("diamond-open", SERIES[3]),
    None: ("circle", SERIES[0]),
}
"""The symbol and the colour of a verdict; None: there is none, or not yet."""


def forest(arms: Sequence[dict[str, Any]], margin: float) -> go.Figure:
    """Return the difference of every arm to the first one, with simultaneous 95 % intervals.

    `margin` is the difference, a share of 1, that does not matter: the grey band.
    """
    others = arms[1:]
    names = row_names(others)
    figure = empty_figure(f"{names.title}<br>baseline: {legend_name(arms[0])}")
    figure.add_trace(_margin(margin, len(others)))
    mark_zero(figure)
    for verdict, (symbol, colour) in _MARKS.items():
        own = [
            (place, arm["label"], arm["vs_baseline"])
            for place, arm in enumerate(others)
            if arm["vs_baseline"]["mean"] is not None and arm["vs_baseline"]["verdict"] == verdict
        ]
        if own:
            means = [vs["mean"] for _, _, vs in own]
            figure.add_scatter(
                x=[percent(mean) for mean in means],
                y=[place for place, _, _ in own],
                error_x=bars(means, [vs["simultaneous"] for _, _, vs in own]),
                mode="markers",
                marker={"symbol": symbol, "color": colour, "size": 12} | _outline(colour),
                customdata=[f"{inert(label)}: {_details(vs)}" for _, label, vs in own],
                hovertemplate="%{customdata}<extra></extra>",
                name=verdict or "no verdict",
                showlegend=False,
            )
    lay_rows(figure, names, [_said(arm["vs_baseline"]) for arm in others], room=94 + 18)
    figure.update_layout(
        xaxis={"title": {"text": "difference (points)"}}, margin={"t": 52}, showlegend=True
    )
    return figure


def best_set(arms: Sequence[dict[str, Any]]) -> go.Figure:
    """Return every arm minus the best of the others; filled where it may be the best."""
    names = row_names(arms)
    figure = empty_figure(names.title)
    mark_zero(figure)
    for within, colour in ((True, SERIES[0]), (False, MUTED)):
        own = [
            (place, arm)
            for place, arm in enumerate(arms)
            if arm["vs_best"] is not None and arm["in_best_set"] is within
        ]
        means = [arm["vs_best"]["mean"] for _, arm in own]
        figure.add_scatter(
            x=[percent(mean) for mean in means],
            y=[place for place, _ in own],
            error_x=bars(means, [arm["vs_best"]["interval"] for _, arm in own]),
            mode="markers",
            marker={
                "symbol": "diamond" if within else "diamond-open",
                "color": colour,
                "size": 12,
            }
            | _outline(colour),
            customdata=[f"{inert(arm['label'])}: {_to_best(arm)} points" for _, arm in own],
            hovertemplate="%{customdata}<extra></extra>",
            name="may be the best" if within else "ruled out as the best",
            showlegend=bool(own),
        )
    lay_rows(figure, names, [_standing(arm) for arm in arms])
    figure.update_layout(xaxis={"title": {"text": "to the best other (points)"}}, showlegend=True)
    return figure


def paired_seeds(
    trials: pd.DataFrame, arms: Sequence[dict[str, Any]], knobs: Sequence[str]
) -> go.Figure:
    """Return val_probe_top1 by arm, one line a seed; a line breaks where a trial is missing.

    The arms of a single knob stand in its order, else in that of the analysis.
    """
    order = list(range(len(arms)))
    if len(knobs) == 1:
        at = axis_of([arm["condition"][knobs[0]] for arm in arms]).places
        order.sort(key=lambda place: at[arms[place]["condition"][knobs[0]]])
    axis, below = column_axis([arms[place] for place in order])
    figure = empty_figure()
    finished = trials.dropna(subset="val_probe_top1")
    for number, (seed, own) in enumerate(finished.groupby("seed")):
        look, top1 = look_of(number), dict(zip(own["arm"], own["val_probe_top1"], strict=True))
        figure.add_scatter(
            x=list(range(len(order))),
            y=[percent(top1[place]) if place in top1 else None for place in order],
            mode="lines+markers",
            line={"color": look.colour, "dash": look.dash, "width": 1.5},
            marker={"symbol": look.symbol, "size": 9},
            customdata=[inert(arms[place]["label"]) for place in order],
            hovertemplate="%{customdata}: %{y:.2f} %<extra>%{fullData.name}</extra>",
            name=f"seed {seed}",
        )
    figure.update_layout(xaxis=axis, showlegend=True, height=380 + below)
    return figure


def _margin(margin: float, rows: int) -> go.Scatter:
    """Draw the band of differences that do not matter."""
    edge = percent(margin)
    return go.Scatter(
        x=[-edge, edge, edge, -edge],
        y=[-1, -1, rows, rows],
        mode="lines",
        fill="toself",
        fillcolor=MUTED + BAND,
        line={"width": 0, "color": MUTED},
        hoverinfo="skip",
        name=f"margin: ±{edge:g} points",
    )


def _outline(colour: str) -> dict[str, Any]:
    """Return the outline of a marker, which Plotly would draw in a colour of its own."""
    return {"line": {"width": 2, "color": colour}}


def _said(vs: dict[str, Any]) -> str:
    """Return what stands at the right end of a row: the numbers, and the verdict below them."""
    if vs["mean"] is None:
        return "no seed in both"
    numbers = difference(vs["mean"], vs["simultaneous"])
    verdict = vs["verdict"]
    return f"{numbers}<br>{VERDICTS[verdict]} {verdict}" if verdict else numbers


def _details(vs: dict[str, Any]) -> str:
    """Return what a row's hover says beside its name."""
    parts = [f"{difference(vs['mean'], vs['simultaneous'])} points", f"{vs['pairs']} pairs"]
    if vs["dz"] is not None:
        parts.append(f"dz {vs['dz']:.2f}")
    for test in ("dunnett", "holm"):
        if vs[f"p_{test}"] is not None:
            parts.append(f"{test.capitalize()} p {inert(p_value(vs[f'p_{test}']))}")
    return "<br>".join(parts)


def _standing(arm: dict[str, Any]) -> str:
    """Return what stands at the right end of a row of the best set."""
    if arm["vs_best"] is None:
        return "not compared"
    word = "◆ may be the best" if arm["in_best_set"] else "◇ ruled out"
    return f"{_to_best(arm)}<br>{word}"


def _to_best(arm: dict[str, Any]) -> str:
    return difference(arm["vs_best"]["mean"], arm["vs_best"]["interval"])
