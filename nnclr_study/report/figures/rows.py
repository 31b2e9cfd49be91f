"""Figures of one row an arm: its name at the left, its interval, and its numbers at the right."""

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from nnclr_study.report.figures.axes import percent
from nnclr_study.report.figures.names import LETTER, SMALL, Names
from nnclr_study.report.look import INK, MUTED
from nnclr_study.report.wording import decimals_of, signed, significant, span

ROW = 40
"""Pixels of a row: two lines of small text, and space to the next two."""
TEXT_LINE = 16
"""Pixels of a line of small text."""


def lay_rows(figure: go.Figure, names: Names, texts: Sequence[str], room: int = 94) -> None:
    """Name the rows 0, 1, .. from the top down, and say `texts` at their right ends.

    A name for which a phone has no room beside its row stands above it. `room` are the pixels
    for all but the rows.
    """
    above = not names.short
    row = ROW + (TEXT_LINE * names.height if above else 0)
    count = len(names.lines)
    figure.update_yaxes(
        range=[count - 1 + ROW / 2 / row, ROW / 2 / row - 1],
        tickvals=list(range(count)),
        ticktext=names.texts,
        tickfont={"color": INK},
        showticklabels=not above,
    )
    for place, (name, text) in enumerate(zip(names.texts, texts, strict=True)):
        if above:
            _write(figure, place, name, x=0, yanchor="bottom", yshift=8)
        if text:
            _write(figure, place, text, x=1, xshift=10)
    lines = [line for text in texts for line in text.split("<br>")]
    right = 14 + LETTER * max(map(len, lines), default=0)
    figure.update_layout(margin={"r": round(right)}, height=room + row * count)


def difference(mean: float, interval: Sequence[float] | None) -> str:
    """Return a difference in points with its interval: `+1.48 (0.97 to 1.99)`."""
    if interval is None:
        return signed(mean, significant(mean))
    decimals = decimals_of(interval)
    return f"{signed(mean, decimals)} ({span(interval, decimals)})"


def bars(
    means: Sequence[float],
    intervals: Sequence[Sequence[float] | None],
    unit: Callable[[float], float] = percent,
) -> dict[str, object]:
    """Return the error bars, in the axis's unit, of means with these intervals."""
    known = [interval or (mean, mean) for mean, interval in zip(means, intervals, strict=True)]
    return {
        "type": "data",
        "array": [unit(high - mean) for mean, (_, high) in zip(means, known, strict=True)],
        "arrayminus": [unit(mean - low) for mean, (low, _) in zip(means, known, strict=True)],
        "thickness": 3,
        "width": 0,
    }


def mark_zero(figure: go.Figure) -> None:
    """Draw the line of no difference below all else."""
    figure.add_vline(0, line={"width": 1, "color": MUTED}, layer="below")


def _write(figure: go.Figure, place: int, text: str, x: int, **options: object) -> None:
    figure.add_annotation(
        text=text,
        x=x,
        y=place,
        xref="paper",
        xanchor="left",
        align="left",
        showarrow=False,
        font={"size": SMALL, "color": INK},
        **options,
    )
