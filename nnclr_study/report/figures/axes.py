"""Where tested values stand on an axis, and how values are shown on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import log10

from nnclr_study.study.plan import show_value
from nnclr_study.study.search import Value


@dataclass(frozen=True)
class Axis:
    """Where the tested values stand on a linear x axis, in its own units."""

    places: dict[Value | None, float]
    numeric: bool
    log: bool = False
    edge: float | None = None
    """Between 0 and the log axis, on which 0 has no place."""

    @property
    def step(self) -> float:
        """The least distance of two values; where they nearly meet, of what can be told apart."""
        places = sorted(self.places.values())
        least = min((b - a for a, b in pairwise(places)), default=1.0)
        return max(least, (places[-1] - places[0]) / 25)


def axis_of(values: Sequence[Value | None]) -> Axis:
    """Place the tested values: by logarithm over a decade, by value, or one after another."""
    tested = list(dict.fromkeys(values))
    numbers = [v for v in tested if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(tested) or len(tested) == 1:
        return Axis({value: float(place) for place, value in enumerate(tested)}, numeric=False)
    positive = sorted(v for v in numbers if v > 0)
    if positive[-1] <= 10 * positive[0]:
        return Axis({value: float(value) for value in numbers}, numeric=True)
    places: dict[Value | None, float] = {v: log10(v) for v in numbers if v}
    if 0 not in numbers:
        return Axis(places, numeric=True, log=True)
    gap = (log10(positive[-1]) - log10(positive[0])) / (len(positive) - 1)
    zero = log10(positive[0]) - gap
    return Axis({0: zero} | places, numeric=True, log=True, edge=zero + gap / 2)


def few(axis: Axis) -> list[Value | None]:
    """Return at most four of an axis's values to name, spread over its length."""
    places = axis.places
    low, high = min(places.values()), max(places.values())
    wanted = [low + (high - low) * third / 3 for third in range(4)]
    return list(
        dict.fromkeys(min(places, key=lambda value: abs(places[value] - at)) for at in wanted)
    )


def shown(value: Value | None) -> str:
    """Return a tested value as a tick."""
    return inert(show_value(value))


def percent(share: float) -> float:
    """Return a share of 1 in per cent, without the noise of binary fractions."""
    return round(100 * share, 4)


def inert(text: object) -> str:
    """Return text of a file so that Plotly, which draws some HTML, draws it as it is."""
    return escape(str(text), quote=False)
