"""Student's t for few seeds: intervals, paired tests, and Holm's correction.

At 3 to 5 seeds a percentile bootstrap of the mean covers 75 to 84 % where it claims 95 %, and
rank tests cannot reach 0.05 at all; the t-interval covers 95 %.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student

ALPHA = 0.05
NO_SPREAD = 1e-9
"""Seeds that differ by less than this are alike: a t-interval of no width is no evidence."""


def t_interval(values: Sequence[float], alpha: float = ALPHA) -> tuple[float, float] | None:
    """Return the two-sided 1 - alpha t-interval of the mean; None for one seed or no spread."""
    if len(values) < 2 or stdev(values) < NO_SPREAD:
        return None
    half = student.ppf(1 - alpha / 2, len(values) - 1) * stdev(values) / sqrt(len(values))
    return fmean(values) - float(half), fmean(values) + float(half)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return n, mean, standard deviation and t-interval of a condition's seeds, ready for JSON."""
    return {
        "n": len(values),
        "mean": fmean(values) if values else None,
        "sd": stdev(values) if len(values) > 1 else None,
        "interval": t_interval(values),
    }


def t_test(values: Sequence[float]) -> float | None:
    """Return the two-sided p of a mean of 0; None where there is no t-interval."""
    if t_interval(values) is None:
        return None
    t = fmean(values) / (stdev(values) / sqrt(len(values)))
    return float(2 * student.sf(abs(t), len(values) - 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values; a comparison without a p still counts as one."""
    adjusted: list[float | None] = [None] * len(p_values)
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted
