"""How accuracy grows with a dose such as the queue's size: a line per doubling, or up to a point.

Doses are on a log2 axis, seeds are blocks. With five levels a power law's three parameters are
hardly determined, so the one curve that is tried is a line that stops rising: a hinge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Literal

import numpy as np
from scipy.stats import f as fisher
from scipy.stats import page_trend_test

from nnclr_study.report.blocks import Array, Interval, fit
from nnclr_study.report.intervals import ALPHA, t_interval

GRID = 2001
"""Places at which a hinge is tried, between the second dose and the largest."""


@dataclass(frozen=True)
class Trend:
    """Accuracy over log2 of the dose; a slope is a share of 1 per doubling."""

    slope: float
    slope_interval: Interval | None
    """Paired t, 95 %, over the slopes of the seeds."""
    n: int
    """Seeds."""
    page_p: float
    """Page's test of a rising order: one-sided, near 1 where accuracy falls."""
    lack_of_fit_p: float
    """F test of the line against free arms; below 0.05 it is not a line."""
    model: Literal["line", "hinge"]
    """The lower AICc."""
    saturation: float
    """The dose from which on the best hinge is flat."""
    saturation_interval: Interval
    """Profile likelihood, 95 %, within the doses studied."""
    saturated: bool
    """A hinge, and its interval ends below the largest dose."""


@dataclass(frozen=True)
class _Hinge:
    dose: float
    interval: Interval
    misfit: float


def trend(doses_K: Sequence[float], values_SK: Array) -> Trend | None:
    """Return the trend over the doses, in any order.

    None below 3 doses or 2 seeds, where a dose is not above 0 or occurs twice, and where the
    seeds leave nothing to chance.
    """
    blocks = fit(values_SK)
    order = np.argsort(doses_K)
    x_K = np.asarray(doses_K, dtype=float)[order]
    if blocks is None or blocks.arms < 3 or not x_K[0] > 0 or not np.all(np.diff(x_K) > 0):
        return None
    x_K, values_SK, means_K = np.log2(x_K), values_SK[:, order], blocks.means_K[order]
    spread = blocks.residual_sd**2 * blocks.df
    line = float(blocks.seeds * _misfit(x_K, means_K))
    hinge = _hinge(x_K, means_K, blocks.seeds, spread)
    lack = line / (blocks.arms - 2) / blocks.residual_sd**2

    count, parameters = values_SK.size, blocks.seeds + 2  # a level a seed, slope and variance
    aicc_line = _aicc(spread + line, count, parameters)
    aicc_hinge = _aicc(spread + hinge.misfit, count, parameters + 1)
    model: Literal["line", "hinge"] = "hinge" if aicc_hinge < aicc_line else "line"
    centred_K = x_K - x_K.mean()
    slopes = (values_SK @ centred_K / (centred_K @ centred_K)).tolist()
    return Trend(
        slope=float(np.mean(slopes)),
        slope_interval=t_interval(slopes),
        n=blocks.seeds,
        page_p=float(page_trend_test(values_SK).pvalue),
        lack_of_fit_p=float(fisher.sf(lack, blocks.arms - 2, blocks.df)),
        model=model,
        saturation=hinge.dose,
        saturation_interval=hinge.interval,
        saturated=model == "hinge" and hinge.interval[1] < float(2 ** x_K[-1]),
    )


def _hinge(x_K: Array, means_K: Array, seeds: int, spread: float) -> _Hinge:
    """Return the best min(x, k), k on a grid, with the k that fit hardly worse.

    The likelihood's ratio is held against F and not chi-squared, which at few seeds is too sure.
    """
    k_G = np.linspace(x_K[1], x_K[-1], GRID)
    misfit_G = seeds * _misfit(np.minimum(x_K, k_G[:, None]), means_K)
    best = int(misfit_G.argmin())
    df = seeds * len(x_K) - seeds - 2
    limit = (spread + misfit_G[best]) * (1 + fisher.isf(ALPHA, 1, df) / df)
    within_G = k_G[spread + misfit_G <= limit]
    # Flat from the second dose on is any k between the first two: they give the same values.
    low = x_K[0] if within_G[0] == x_K[1] else within_G[0]
    return _Hinge(
        float(2 ** k_G[best]), (float(2**low), float(2 ** within_G[-1])), float(misfit_G[best])
    )


def _misfit(x_K: Array, means_K: Array) -> Array:
    """Return the sum of squares of the means around a straight line in x, for each row of x."""
    centred_K, gap_K = x_K - x_K.mean(axis=-1, keepdims=True), means_K - means_K.mean()
    explained = (centred_K @ gap_K) ** 2 / np.sum(centred_K**2, axis=-1)
    left: Array = np.maximum(gap_K @ gap_K - explained, 0.0)
    return left


def _aicc(squares: float, count: int, parameters: int) -> float:
    """Return Akaike's criterion, corrected for few values (Hurvich and Tsai 1989)."""
    if count - parameters < 2:
        return inf
    penalty = 2 * parameters * count / (count - parameters - 1)
    return count * log(squares / count) + penalty
