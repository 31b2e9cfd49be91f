"""Whether one knob's effect depends on another: two crossed factors, seeds as blocks."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import f as fisher

from nnclr_study.report.blocks import Array, Interval, fit
from nnclr_study.report.intervals import t_interval


@dataclass(frozen=True)
class Interaction:
    """How far two factors do not simply add."""

    p: float
    """F test of `a:b` in `value ~ a * b + seed`."""
    difference: float
    """b's effect, last level minus first, at a's last level minus that at a's first."""
    interval: Interval | None
    """Paired t, 95 %, over the seeds."""


def interaction(values_SAB: Array) -> Interaction | None:
    """Return the interaction of factors a and b, a value for each seed and pair of levels.

    None below 2 seeds or 2 levels of a factor, and where the seeds leave nothing to chance.
    """
    seeds, levels_a, levels_b = values_SAB.shape
    blocks = fit(values_SAB.reshape(seeds, levels_a * levels_b))
    if blocks is None or min(levels_a, levels_b) < 2:
        return None
    cells_AB = values_SAB.mean(axis=0)
    rows_A1, columns_B = cells_AB.mean(axis=1, keepdims=True), cells_AB.mean(axis=0)
    beyond = seeds * float(np.sum((cells_AB - rows_A1 - columns_B + cells_AB.mean()) ** 2))
    df = (levels_a - 1) * (levels_b - 1)
    effect_SA = values_SAB[:, :, -1] - values_SAB[:, :, 0]
    difference_S = effect_SA[:, -1] - effect_SA[:, 0]
    return Interaction(
        p=float(fisher.sf(beyond / df / blocks.residual_sd**2, df, blocks.df)),
        difference=float(difference_S.mean()),
        interval=t_interval(difference_S.tolist()),
    )
