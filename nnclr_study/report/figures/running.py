"""How a run went: what became of its trials, how fast, where and when."""

from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nnclr_study.report.figures.axes import inert
from nnclr_study.report.figures.names import SMALL, WIDE, Names, column_axis, cut
from nnclr_study.report.figures.rows import lay_rows
from nnclr_study.report.look import INK, MUTED, SERIES, STATES, TINT, empty_figure
from nnclr_study.report.wording import duration

_COLOURS = {
    "finished": SERIES[2],
    "running": SERIES[0],
    "failed": SERIES[1],
    "stopped": SERIES[4],
    "interrupted": SERIES[3],
    "waiting": MUTED,
}
ALL_ROWS = 700
"""Pixels for the rows of a timeline, beyond which they grow thinner."""


def completeness(
    trials: pd.DataFrame, arms: Sequence[dict[str, Any]], seeds: Sequence[int]
) -> go.Figure:
    """Return what became of each trial: a colour and a letter by arm and seed."""
    states = [state for state in STATES if (trials["status"] == state).any()]
    by_cell = {(row["seed"], row["arm"]): row for row in trials.to_dict("records")}
    cells = [[by_cell.get((seed, arm)) for arm in range(len(arms))] for seed in seeds]
    axis, below = column_axis(arms)
    figure = empty_figure("seed")
    figure.add_heatmap(
        z=[[states.index(cell["status"]) if cell else None for cell in row] for row in cells],
        text=[[STATES[cell["status"]] if cell else "" for cell in row] for row in cells],
        customdata=[[_cell(cell) if cell else "" for cell in row] for row in cells],
        texttemplate="%{text}",
        textfont={"color": INK, "size": 14},
        hovertemplate="%{customdata}<extra></extra>",
        colorscale=_steps([_COLOURS[state] + TINT for state in states]),
        zmin=-0.5,
        zmax=len(states) - 0.5,
        showscale=False,
        xgap=3,
        ygap=3,
    )
    for state in states:
        _explain(figure, state)
    figure.update_layout(
        xaxis=axis | {"showline": False},
        yaxis={
            "tickvals": list(range(len(seeds))),
            "ticktext": [str(seed) for seed in seeds],
            "range": [len(seeds) - 0.5, -0.5],
            "showgrid": False,
        },
        showlegend=True,
        height=84 + below + 30 * len(seeds),
    )
    return figure


def throughput(trials: pd.DataFrame) -> go.Figure:
    """Return the images per second of every trial by host, from 0 on."""
    timed = trials.dropna(subset=["images_per_second", "host"])
    hosts = sorted(timed["host"].unique())
    own = {host: timed[timed["host"] == host] for host in hosts}
    figure = empty_figure("host")
    figure.add_scatter(
        x=timed["images_per_second"].tolist(),
        y=[hosts.index(host) for host in timed["host"]],
        mode="markers",
        marker={"color": SERIES[0], "size": 10, "opacity": 0.55},
        customdata=[
            f"{inert(row.trial_id)}<br>{inert(row.host)}, {inert(row.device)}"
            for row in timed.itertuples()
        ],
        hovertemplate="%{customdata}: %{x:,.0f} images/s<extra></extra>",
        showlegend=False,
    )
    texts = [f"{len(rows)} trial{'' if len(rows) == 1 else 's'}" for rows in own.values()]
    lay_rows(figure, Names("host", [[cut(host, WIDE)] for host in hosts]), texts)
    figure.update_layout(
        xaxis={
            "title": {"text": "images per second"},
            "tickformat": ",",
            "rangemode": "tozero",
            "nticks": 6,
        }
    )
    return figure


def timeline(trials: pd.DataFrame) -> go.Figure:
    """Return when each trial ran on which host, side by side where they ran at once.

    A running trial reaches to the last time that is known of any, an interrupted one as far as
    its epochs. At least one has to have begun.
    """
    begun = trials.dropna(subset="started_at").sort_values("started_at")
    starts, ends = begun["started_at"].tolist(), begun["ended_at"].tolist()
    latest = max([*starts, *(at for at in ends if pd.notna(at))])
    ends = [_end(trial, latest) for trial in begun.to_dict("records")]
    hosts = [str(host) if pd.notna(host) else "host not known" for host in begun["host"]]
    lanes = _lanes(hosts, starts, ends)
    # A line for its name above the lanes of each host
    rows = sorted({(host, -1) for host in hosts} | set(lanes))
    begun = begun.assign(end=ends, on=hosts, y=[rows.index(lane) for lane in lanes])
    figure = empty_figure("host")
    for state in (state for state in STATES if (begun["status"] == state).any()):
        own = begun[begun["status"] == state]
        took = [end - start for start, end in zip(own["started_at"], own["end"], strict=True)]
        figure.add_bar(
            orientation="h",
            base=[at.strftime("%Y-%m-%d %H:%M:%S") for at in own["started_at"]],
            x=[each / timedelta(milliseconds=1) for each in took],
            y=own["y"].tolist(),
            width=0.8,
            marker={
                "color": _COLOURS[state] + TINT,
                "line": {"color": _COLOURS[state], "width": 1},
            },
            text=STATES[state],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": INK},
            customdata=[
                f"{inert(trial)}<br>{inert(host)}: {state}, {duration(each.total_seconds())}"
                for trial, host, each in zip(own["trial_id"], own["on"], took, strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
            name=f"{STATES[state]} {state}",
        )
    for row, (host, lane) in enumerate(rows):
        if lane < 0:
            figure.add_annotation(
                text=cut(host, WIDE),
                x=0,
                y=row,
                xref="paper",
                xanchor="left",
                showarrow=False,
                font={"size": SMALL},
            )
    figure.update_layout(
        xaxis={
            "type": "date",
            "title": {"text": f"time (UTC), from {starts[0]:%Y-%m-%d}"},
            "nticks": 5,
        },
        yaxis={"range": [len(rows) - 0.4, -0.6], "showticklabels": False, "showgrid": False},
        height=100 + round(min(22 * len(rows), max(ALL_ROWS, 6 * len(rows)))),
        barmode="overlay",
        uniformtext={"minsize": 8, "mode": "hide"},
        showlegend=True,
    )
    return figure


def _cell(trial: Mapping[Hashable, Any]) -> str:
    """Return what a cell's hover says: the trial, its state, where and how long."""
    said = f"{inert(trial['trial_id'])}<br>{trial['status']}"
    if pd.notna(trial["host"]):
        said += f" on {inert(trial['host'])}"
    return f"{said}, {duration(trial['seconds'])}" if pd.notna(trial["seconds"]) else said


def _steps(colours: Sequence[str]) -> list[tuple[float, str]]:
    """Return the scale that gives each whole number from 0 on its colour."""
    share = 1 / len(colours)
    edges = [(place * share, colour) for place, colour in enumerate(colours)]
    return [step for at, colour in edges for step in ((at, colour), (at + share, colour))]


def _explain(figure: go.Figure, state: str) -> None:
    """Name a colour and its letter in the legend."""
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={"symbol": "square", "size": 12, "color": _COLOURS[state] + TINT},
        name=f"{STATES[state]} {state}",
    )


def _end(trial: Mapping[Hashable, Any], latest: datetime) -> datetime:
    """Return when a trial ended, or until when it is known to have run."""
    start: datetime = trial["started_at"]
    end: datetime = trial["ended_at"]
    if pd.notna(end):
        return end
    took = trial["seconds"] if pd.notna(trial["seconds"]) else 0.0
    return latest if trial["status"] == "running" else start + timedelta(seconds=took)


def _lanes(
    hosts: Sequence[str], starts: Sequence[datetime], ends: Sequence[datetime]
) -> list[tuple[str, int]]:
    """Return each trial's host and lane: the first that is free when it starts.

    The trials come in the order in which they started.
    """
    free: dict[tuple[str, int], datetime] = {}
    lanes = []
    for host, start, end in zip(hosts, starts, ends, strict=True):
        lane = next(n for n in count() if (at := free.get((host, n))) is None or at <= start)
        free[host, lane] = end
        lanes.append((host, lane))
    return lanes
