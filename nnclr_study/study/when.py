"""The `when` of a searched knob: what it may ask for, so that the knob is searched at all."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from nnclr_study.errors import Problem

if TYPE_CHECKING:
    from nnclr_study.study.search import Axis, Scalar

RARE = 0.01
"""Share of random draws below which a search hardly ever gets the value that a `when` asks for."""


def when_problems(
    at: str, knob: str, when: "Mapping[str, Scalar]", earlier: "Mapping[str, Axis]"
) -> Iterator[Problem]:
    """Yield which conditions of a knob name nothing that is searched, or hardly ever hold.

    Args:
        at: the key of the `when`.
        knob: the knob that it belongs to.
        when: the values that other knobs must have.
        earlier: the knobs that are searched further up.
    """
    needed: dict[str, Scalar] = {}
    for other, value in when.items():
        axis = earlier.get(other)
        if axis is None:
            rule = "must name a knob that is searched further up"
            yield Problem(f"{at}.{other}", value, rule)
            continue
        if not axis.holds(value):
            yield Problem(f"{at}.{other}", value, f"is nothing that {other} is searched for")
        elif axis.share(value) < RARE:
            of = f"{axis.count:,} values" if axis.count else "a continuous range"
            rule = (
                f"is practically never drawn: {other} has {of}, and {knob} is searched only where "
                f"{other} is exactly this; give {other} as {{ choices = [..] }}"
            )
            yield Problem(f"{at}.{other}", value, rule)
        for name, must in {**_needed(other, earlier), other: value}.items():
            if needed.setdefault(name, must) != must:
                rule = (
                    f"never holds: it needs both {name} = {needed[name]!r} and {name} = {must!r}, "
                    "as a knob exists only where its own `when` holds; take one of them out"
                )
                yield Problem(f"{at}.{other}", value, rule)


def _needed(knob: str, earlier: "Mapping[str, Axis]") -> "dict[str, Scalar]":
    """Return the values that other knobs have wherever a knob is searched."""
    found: dict[str, Scalar] = {}
    for other, value in earlier[knob].when.items():
        found |= {**_needed(other, earlier), other: value}
    return found
