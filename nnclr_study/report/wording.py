"""How numbers are printed: shares of 1 as per cent, their differences as points."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor, log10
from typing import Any, Literal

Level = Literal["claim", "hint", "none"]
TABLE = 2
"""Decimals in a table, where a column of one width reads best."""


@dataclass(frozen=True)
class Finding:
    """A sentence, the numbers in it, and how much it may be relied on."""

    text: str
    level: Level = "none"
    numbers: dict[str, Any] = field(default_factory=dict)


def percent(share: float, decimals: int = 1) -> str:
    """Return a share of 1 as `91.2 %`."""
    return f"{_fixed(share, decimals)} %"


def number(share: float | None) -> str:
    """Return a share of 1 as a table's cell, in per cent: `91.23`; `-` where it is missing."""
    return "-" if share is None else _fixed(share, TABLE)


def points(difference: float, decimals: int = 1) -> str:
    """Return the size of a difference of shares as `1.2 points`."""
    return f"{_fixed(abs(difference), decimals)} points"


def margin_said(margin: float) -> str:
    """Return a margin, a share of 1, as it was declared: `0.25 points`."""
    return f"{100 * margin:g} points"


def signed(difference: float, decimals: int = TABLE) -> str:
    """Return a difference of shares in points as `+1.2`."""
    text = _fixed(difference, decimals)
    return f"+{text}" if difference > 0 else text


def span(interval: Sequence[float], decimals: int = TABLE) -> str:
    """Return an interval as `-0.3 to 2.7`."""
    return " to ".join(_fixed(bound, decimals) for bound in interval)


def decimals_of(interval: Sequence[float] | None) -> int:
    """Return the decimals at which an interval in per cent shows two figures of its half-width.

    1 to 3 of them; more where a bound would round to 0, since its side of 0 is the verdict.
    """
    if interval is None:
        return 1
    low, high = interval
    decimals = significant((high - low) / 2)
    while decimals < 9 and any(b and not round(100 * b, decimals) for b in interval):
        decimals += 1
    return decimals


def significant(size: float) -> int:
    """Return the decimals, 1 to 3, at which a share in per cent shows two figures."""
    return min(3, max(1, 1 - floor(log10(abs(100 * size))))) if size else 1


def p_value(p: float) -> str:
    """Return a p-value to three decimals; more where rounding would move it across 0.05."""
    if p < 0.001:
        return "< 0.001"
    decimals = 3
    while (round(p, decimals) < 0.05) != (p < 0.05):
        decimals += 1
    return f"{p:.{decimals}f}"


def p_said(p: float) -> str:
    """Return a p-value as a sentence has it: `p = 0.012`, `p < 0.001`."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def duration(seconds: float | None) -> str:
    """Return seconds as a reader counts them: `48 s`, `12.5 min`, `3.4 h`."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def certainty(arm: dict[str, Any], split: str = "val_probe_top1") -> str:
    """Return what stands behind an arm's mean: `95 % CI 90.1 to 92.3; n = 3`."""
    top1, planned = arm[split], arm["planned"]
    n = f"n = {top1['n']}" if top1["n"] == planned else f"n = {top1['n']} of {planned}"
    if top1["interval"] is not None:
        return f"95 % CI {span(top1['interval'], decimals_of(top1['interval']))}; {n}"
    if top1["n"] == 1:
        return "one seed: no uncertainty estimate" + ("" if planned == 1 else f"; {n}")
    return f"{n}, all alike: no interval"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _fixed(share: float, decimals: int) -> str:
    # + 0.0 turns a rounded -0.0 into 0.0
    return f"{round(100 * share, decimals) + 0.0:.{decimals}f}"
