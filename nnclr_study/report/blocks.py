"""Arms compared over the same seeds: randomised complete blocks and what may be said of them.

A complete table is `values_SK`: a row a seed, a column an arm, shares of 1, arm 0 the baseline.
The model is `value ~ arm + seed`; its residual has (K - 1)(S - 1) degrees of freedom where a
paired test has S - 1.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from math import inf, nextafter, sqrt
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import nctdtrinc, ndtr, poch
from scipy.stats import binomtest, chi2
from scipy.stats import t as student

from nnclr_study.report.intervals import ALPHA, NO_SPREAD, holm, t_interval, t_test

Array: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]
Method: TypeAlias = Literal["dunnett", "holm"]
Verdict: TypeAlias = Literal["better", "equivalent", "not resolved", "worse", "depends on method"]

MIN_PAIRS = 3
"""Paired seeds below which there is an interval and no verdict."""
MAX_SD_RATIO = 3.0
"""Above it the arms' spreads are too unequal for one residual, and Holm must agree."""
POWER = 0.8
MAX_SEEDS = 1000
_Z = np.linspace(-9, 9, 91)
_WEIGHTS_Z = np.exp(-(_Z**2) / 2) / np.sum(np.exp(-(_Z**2) / 2))


@dataclass(frozen=True)
class Blocks:
    """The block model of a complete table."""

    seeds: int
    arms: int
    means_K: Array
    residual_sd: float
    df: int
    correlation: float
    """Of two arms over the seeds, ICC(3,1): what pairing by seed gains."""
    seed_share: float
    """Of the total sum of squares, what the seeds explain."""
    sd_ratio: float
    """Of the largest and the smallest standard deviation of an arm."""
    method: Method
    """What a verdict needs: the block model's interval alone, or Holm's agreement too."""

    @property
    def error(self) -> float:
        """Return the standard error of the difference of two arms."""
        return self.residual_sd * sqrt(2 / self.seeds)

    @property
    def critical(self) -> float:
        """Return how many standard errors from the baseline are a resolved difference."""
        return dunnett_critical(self.arms - 1, self.df)


@dataclass(frozen=True)
class Comparison:
    """An arm minus the baseline. None: too few seeds, or no spread."""

    pairs: int
    mean: float | None
    sd: float | None
    dz: float | None
    """Mean over standard deviation of the differences, without small samples' bias (Hedges)."""
    interval: Interval | None
    """Paired t, 95 %."""
    simultaneous: Interval | None
    """Dunnett's with the blocks' residual: 95 % for all comparisons together."""
    p_dunnett: float | None
    p_holm: float | None
    equivalence: Interval | None
    """90 %: inside the margin, two one-sided tests at 5 % call the arms equivalent."""


@dataclass(frozen=True)
class VersusBest:
    """An arm minus the best of the others, by Hsu's multiple comparisons with the best."""

    mean: float
    interval: Interval
    in_set: bool
    """Not ruled out as the best arm."""


@dataclass(frozen=True)
class Sufficient:
    """The smallest arm that is not worse than the largest by the margin or more."""

    arm: int
    lower: float
    """One-sided 95 % bound of this arm minus the largest; 0 for the largest itself."""


def fit(values_SK: Array) -> Blocks | None:
    """Return the block model; None below 2 seeds or 2 arms, or where nothing is left to chance."""
    seeds, arms = values_SK.shape
    if seeds < 2 or arms < 2:
        return None
    means_K, means_S, mean = values_SK.mean(axis=0), values_SK.mean(axis=1), values_SK.mean()
    df = (arms - 1) * (seeds - 1)
    left = float(np.sum((values_SK - means_K - means_S[:, None] + mean) ** 2)) / df
    if sqrt(left) < NO_SPREAD:
        return None
    of_seeds = arms * float(np.sum((means_S - mean) ** 2))
    between = of_seeds / (seeds - 1)
    smallest, *_, largest = sorted(values_SK.std(axis=0, ddof=1).tolist())
    sd_ratio = largest / smallest if smallest >= NO_SPREAD else inf
    return Blocks(
        seeds=seeds,
        arms=arms,
        means_K=means_K,
        residual_sd=sqrt(left),
        df=df,
        correlation=(between - left) / (between + (arms - 1) * left),
        seed_share=of_seeds / float(np.sum((values_SK - mean) ** 2)),
        sd_ratio=sd_ratio,
        method="holm" if sd_ratio > MAX_SD_RATIO else "dunnett",
    )


def compare(values_SK: Array) -> list[Comparison]:
    """Return arms 1, 2, .. against arm 0; p-values only from MIN_PAIRS seeds on."""
    blocks = fit(values_SK)
    differences = [(column - values_SK[:, 0]).tolist() for column in values_SK.T[1:]]
    enough = len(values_SK) >= MIN_PAIRS
    tests = holm([t_test(values) if enough else None for values in differences])
    return [_compared(*each, blocks) for each in zip(differences, tests, strict=True)]


def _compared(differences: list[float], p_holm: float | None, blocks: Blocks | None) -> Comparison:
    pairs = len(differences)
    mean = float(np.mean(differences)) if pairs else None
    sd = float(np.std(differences, ddof=1)) if pairs > 1 else None
    dz = simultaneous = p = equivalence = None
    if mean is not None and sd is not None and sd >= NO_SPREAD and pairs >= MIN_PAIRS:
        dz = mean / sd * float(poch(pairs / 2 - 1, 0.5)) / sqrt((pairs - 1) / 2)
    if mean is not None and blocks is not None:
        simultaneous = _around(mean, blocks.critical * blocks.error)
        if pairs >= MIN_PAIRS:
            p = dunnett_p(mean / blocks.error, blocks.arms - 1, blocks.df)
            # At the very border rounding must not let the interval and p tell two stories.
            p = min(p, nextafter(ALPHA, 0)) if _excludes_0(simultaneous) else max(p, ALPHA)
        if blocks.method == "dunnett":
            equivalence = _around(mean, float(student.isf(ALPHA, blocks.df)) * blocks.error)
        else:
            equivalence = t_interval(differences, 2 * ALPHA)
    return Comparison(
        pairs, mean, sd, dz, t_interval(differences), simultaneous, p, p_holm, equivalence
    )


def verdict(comparison: Comparison, margin: float, method: Method) -> Verdict | None:
    """Return the word for a difference; None below MIN_PAIRS seeds or without spread.

    Args:
        comparison: an arm against the baseline.
        margin: the difference, a share of 1, below which arms are alike in practice.
        method: of the blocks; for "holm" the paired tests must agree with the interval.
    """
    if comparison.simultaneous is None or comparison.pairs < MIN_PAIRS:
        return None
    resolved = _excludes_0(comparison.simultaneous)
    agreed = comparison.p_holm is not None and comparison.p_holm < ALPHA
    if method == "holm" and agreed != resolved:
        return "depends on method"
    if resolved:
        return "better" if comparison.simultaneous[0] > 0 else "worse"
    within = comparison.equivalence is not None and max(map(abs, comparison.equivalence)) < margin
    return "equivalent" if within else "not resolved"


def best_set(values_SK: Array) -> list[VersusBest] | None:
    """Return every arm against the best of the others (Hsu 1984); None where no verdict is given.

    The set of arms not ruled out holds the truly best one in 95 % of studies.
    """
    blocks = fit(values_SK)
    if blocks is None or blocks.seeds < MIN_PAIRS:
        return None
    half = dunnett_critical(blocks.arms - 1, blocks.df, one_sided=True) * blocks.error
    found = []
    for arm, own in enumerate(blocks.means_K):
        mean = float(own - np.delete(blocks.means_K, arm).max())
        low, high = _around(mean, half)
        found.append(VersusBest(mean, (min(0.0, low), max(0.0, high)), high > 0))
    return found


def sufficient(values_SK: Array, margin: float) -> Sufficient | None:
    """Return the smallest arm as good as the largest, but for less than the margin.

    The arms come smallest first. Steps down while an arm is not inferior (one-sided, 5 %): a fixed
    sequence, which needs no correction. None where no verdict is given.
    """
    blocks = fit(values_SK)
    if blocks is None or blocks.seeds < MIN_PAIRS:
        return None
    half = float(student.isf(ALPHA, blocks.df)) * blocks.error
    *smaller, largest = blocks.means_K.tolist()
    found = Sufficient(len(smaller), 0.0)
    for arm in reversed(range(len(smaller))):
        lower = smaller[arm] - largest - half
        if lower <= -margin:
            break
        found = Sufficient(arm, lower)
    return found


def smallest_difference(arms: int, seeds: int) -> float | None:
    """Return the true difference to the baseline that is resolved in 80 % of studies.

    In residual standard deviations, by Dunnett's test with the blocks' residual: where the
    noncentral t exceeds the critical value with that probability (Cohen, Statistical Power
    Analysis, 1988, chapter 2). None: fewer than two arms, or than MIN_PAIRS seeds.
    """
    if arms < 2 or seeds < MIN_PAIRS:
        return None
    df = (arms - 1) * (seeds - 1)
    shift = nctdtrinc(df, 1 - POWER, dunnett_critical(arms - 1, df))
    return float(shift) * sqrt(2 / seeds)


def seeds_for_margin(residual_sd: float, arms: int, margin: float) -> int | None:
    """Return the fewest seeds that resolve a true difference of margin with 80 % power.

    Of one arm to the baseline, by Dunnett's test; at least MIN_PAIRS, None above MAX_SEEDS.
    """

    def is_resolved(seeds: int) -> bool:
        smallest = smallest_difference(arms, seeds)
        return smallest is not None and smallest * residual_sd <= margin

    counts = range(MIN_PAIRS, MAX_SEEDS + 1)
    place = bisect_left(counts, True, key=is_resolved)
    return counts[place] if place < len(counts) else None


@lru_cache(maxsize=1024)
def dunnett_critical(comparisons: int, df: int, one_sided: bool = False) -> float:
    """Return what the largest of several t statistics against one baseline exceeds in 5 %.

    Dunnett (1955): equal arms, so the statistics correlate by 0.5.
    """
    share = ALPHA if one_sided else ALPHA / 2
    # Between one comparison's value and Bonferroni's, which for one are the same.
    low, high = (float(student.isf(share / count, df)) for count in (1, comparisons))
    if comparisons == 1:
        return low

    def excess(t: float) -> float:
        return _all_within(t, comparisons, df, one_sided) - (1 - ALPHA)

    return float(brentq(excess, low, high, xtol=1e-10))


def dunnett_p(t: float, comparisons: int, df: int) -> float:
    """Return the two-sided p of one t statistic, adjusted for all comparisons."""
    if comparisons == 1:
        return float(2 * student.sf(abs(t), df))
    return max(0.0, 1 - _all_within(abs(t), comparisons, df))


def _all_within(t: float, comparisons: int, df: int, one_sided: bool = False) -> float:
    """Return the probability that no statistic exceeds t.

    Given the baseline's mean z and the residual's scale s the comparisons are independent, which
    leaves two integrals of a smooth function: the trapezoid rule has them to 1e-8 and always
    gives the same p, which a randomised rule does not.
    """
    scales_R1, weights_R = _scales(df)
    within_RZ = ndtr(_Z + sqrt(2) * t * scales_R1)
    if not one_sided:
        within_RZ = within_RZ + within_RZ[:, ::-1] - 1  # z is spaced evenly around 0
    return float(weights_R @ within_RZ**comparisons @ _WEIGHTS_Z)


@lru_cache(maxsize=1024)
def _scales(df: int) -> tuple[Array, Array]:
    """Return estimated over true standard deviations, evenly spaced in their log, and weights."""
    low, high = chi2.ppf(1e-14, df), chi2.isf(1e-14, df)
    log_R = np.linspace(np.log(low / df), np.log(high / df), 128) / 2
    density_R = np.exp(df * (log_R - np.expm1(2 * log_R) / 2))
    return np.exp(log_R)[:, None], density_R / density_R.sum()


def clopper_pearson(failed: int, planned: int) -> Interval:
    """Return the exact 95 % interval of a failure rate."""
    interval = binomtest(failed, planned).proportion_ci(1 - ALPHA, method="exact")
    return float(interval.low), float(interval.high)


def largest_of(count: int) -> float:
    """Return the expected largest of some standard normals: how much too good the best looks."""
    return float(np.sum(_WEIGHTS_Z * _Z * count * ndtr(_Z) ** (count - 1)))


def _around(mean: float, half: float) -> Interval:
    return mean - half, mean + half


def _excludes_0(interval: Interval) -> bool:
    return interval[0] > 0 or interval[1] < 0
