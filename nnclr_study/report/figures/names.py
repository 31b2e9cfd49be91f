"""The names of arms where there is little room for them; all of them inert."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from nnclr_study.report.figures.axes import inert
from nnclr_study.study.plan import condition_label, show_value

LETTER = 6.6
"""Pixels of a letter in small text."""
SMALL = 12
"""Pixels of small text."""
PHONE = 300
"""Pixels of a plot on a phone."""
SHORT = 9
"""Characters of a name for which a phone has room beside a row."""
LINE = 28
"""Characters of a line for which it has room above a row."""
TICK = 12
"""Characters of a value below a column."""
WIDE = 42
"""Characters of a line for which it has room above a plot or in a legend."""
MAX_LINES = 3
MAX_COLUMNS = 20
"""Columns that can all be named; of more, every second, third, .. is."""


@dataclass(frozen=True)
class Names:
    """Names of rows, and what they are the values of."""

    title: str
    lines: list[list[str]]
    """Of each row, from its first line to its last."""

    @property
    def texts(self) -> list[str]:
        """Each name in one text."""
        return ["<br>".join(lines) for lines in self.lines]

    @property
    def height(self) -> int:
        """The most lines of a name."""
        return max(map(len, self.lines), default=1)

    @property
    def short(self) -> bool:
        """Whether every name has room beside its row."""
        return all(len(line) <= SHORT for lines in self.lines for line in lines)


def row_names(arms: Sequence[dict[str, Any]]) -> Names:
    """Return names for rows: values where a title has room for the knobs, else labels."""
    knobs = list(arms[0]["condition"])
    title = ", ".join(knobs)
    if 0 < len(knobs) <= MAX_LINES and len(title) <= WIDE:
        return Names(inert(title), [_wrapped(", ".join(_values(arm))) for arm in arms])
    return Names("condition", [_wrapped(_tied(arm)) for arm in arms])


def column_axis(arms: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], int]:
    """Return an x axis that names the columns 0, 1, .., and the pixels that its names take.

    The values of an arm stand one below the other where a phone has room for them, else in one
    upright line.
    """
    knobs = list(arms[0]["condition"])
    values = [
        [cut(value, TICK) for value in _values(arm)[:MAX_LINES]] or [inert(arm["label"])]
        for arm in arms
    ]
    widest = max(len(value) for own in values for value in own)
    upright = LETTER * (widest + 1) * len(arms) > PHONE
    names = [(", " if upright else "<br>").join(own) for own in values]
    named = range(0, len(arms), -(-len(arms) // MAX_COLUMNS))
    axis = {
        "title": {"text": inert(", ".join(knobs)) if len(knobs) <= MAX_LINES else "condition"},
        "tickvals": list(named),
        "ticktext": [names[place] for place in named],
        "tickangle": -90 if upright else 0,
        "tickfont": {"size": SMALL},
        "range": [-0.5, len(arms) - 0.5],
    }
    return axis, round(LETTER * max(map(len, names))) if upright else 16 * len(values[0])


def legend_name(arm: dict[str, Any]) -> str:
    """Return an arm's label for a legend, or its values where a phone has no room for it."""
    label = arm["label"]
    return inert(label) if len(label) < WIDE - 8 else cut(", ".join(_values(arm)), WIDE - 8)


def cut(text: str, width: int) -> str:
    """Return at most so many characters of a text."""
    return inert(text if len(text) <= width else f"{text[: width - 1]}…")


def _values(arm: dict[str, Any]) -> list[str]:
    return [show_value(value) for value in arm["condition"].values()]


def _tied(arm: dict[str, Any]) -> str:
    """Return an arm's label that is broken between knobs alone."""
    pairs = [condition_label({knob: value}) for knob, value in arm["condition"].items()]
    return ", ".join(pair.replace(" ", "\u00a0") for pair in pairs) or arm["label"]


def _wrapped(text: str) -> list[str]:
    lines = wrap(text, LINE, max_lines=MAX_LINES, placeholder=" …")
    return [inert(line) for line in lines]
