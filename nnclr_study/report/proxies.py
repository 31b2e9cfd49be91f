"""Whether a score of the features could have chosen in the place of test accuracy.

Rank correlations with intervals after Bonett and Wright, "Sample size requirements for estimating
Pearson, Kendall and Spearman correlations", Psychometrika 65 (2000), 23-28: Fisher's z of
Spearman's rho with a variance of (1 + rho^2 / 2) / (n - 3).
"""

from collections.abc import Sequence
from math import atanh, sqrt, tanh
from typing import Any

import pandas as pd
from scipy.stats import norm, rankdata

from nnclr_study.report.intervals import ALPHA, t_interval
from nnclr_study.report.load import Tables

HIGHER_IS_BETTER = {
    "rankme": True,
    "alignment": False,
    "uniformity": False,
    "c_acc": True,
    "val_knn_top1": True,
    "val_probe_top1": True,
}
"""Scores of a trial's last epoch; the last two need labels, and are what the others stand for."""
LABEL_FREE = ("rankme", "alignment", "uniformity", "c_acc")
MIN_RANKED = 5
"""Conditions, or trials within conditions, from which on ranks are correlated."""


def proxies(tables: Tables) -> dict[str, Any] | None:
    """Return how each score ranks conditions and trials, and what choosing by it costs.

    A score is turned so that more of it should be better: a rho of 1 ranks as test_probe_top1
    does. `across`: of the means of conditions. `within`: of what is left of score and accuracy
    when each trial's condition is taken off. `picks`: the condition with the best mean score;
    `cost`: by how much its mean test_probe_top1, a share of 1, is below the best one's, with the
    interval of that difference paired by seed. None below `MIN_RANKED` conditions with a
    finished trial.
    """
    finished = tables.trials.dropna(subset="test_probe_top1").set_index("trial_id")
    last = tables.epochs.groupby("trial_id").tail(1).set_index("trial_id").reindex(finished.index)
    accuracy = finished["test_probe_top1"].groupby(finished["arm"]).mean()
    if len(accuracy) < MIN_RANKED:
        return None
    by_seed = None
    if tables.study.search is None:
        by_seed = finished.pivot(index="seed", columns="arm", values="test_probe_top1")
    best = _largest(accuracy)
    scores = []
    for name, higher in HIGHER_IS_BETTER.items():
        turned = last[name].astype(float) * (1 if higher else -1)
        if turned.isna().any():
            continue
        means = turned.groupby(finished["arm"]).mean()
        picks = _largest(means)
        scores.append(
            {
                "score": name,
                "higher_is_better": higher,
                "across": spearman(means.tolist(), accuracy.tolist(), len(means)),
                "within": _within(turned, finished),
                "picks": picks,
                "cost": float(accuracy[best] - accuracy[picks]),
                "cost_interval": _paired(by_seed, best, picks),
            }
        )
    return {"arms": len(accuracy), "trials": len(finished), "best": best, "scores": scores}


def spearman(first: Sequence[float], second: Sequence[float], n: int) -> dict[str, Any] | None:
    """Return Spearman's rho of two lists, and its 95 % interval from `n` independent pairs.

    None where one of them is constant. No interval where all ranks agree: it would have no width.
    """
    ranks = pd.DataFrame({"first": rankdata(first), "second": rankdata(second)})
    if (ranks.nunique() < 2).any():
        return None
    rho = float(ranks["first"].corr(ranks["second"]))
    if abs(rho) > 1 - 1e-12 or n <= 3:
        return {"rho": rho, "interval": None, "n": n}
    half = float(norm.ppf(1 - ALPHA / 2)) * sqrt((1 + rho**2 / 2) / (n - 3))
    return {"rho": rho, "interval": [tanh(atanh(rho) + side * half) for side in (-1, 1)], "n": n}


def _largest(by_arm: pd.Series) -> int:
    return int(by_arm.index.to_numpy()[by_arm.to_numpy().argmax()])


def _within(turned: pd.Series, finished: pd.DataFrame) -> dict[str, Any] | None:
    """Return the rank correlation of what is left when each condition's mean is taken off.

    Every mean takes a degree of freedom, so it counts as one of fewer trials.
    """
    both = pd.DataFrame({"score": turned, "accuracy": finished["test_probe_top1"]})
    arms = finished["arm"]
    repeated = arms.groupby(arms).transform("size") > 1
    both, arms = both[repeated], arms[repeated]
    independent = len(both) - arms.nunique() + 1
    if independent < MIN_RANKED:
        return None
    # Ties that only the rounding of a mean would tell apart stay ties.
    left = (both - both.groupby(arms).transform("mean")).round(9)
    return spearman(left["score"].tolist(), left["accuracy"].tolist(), independent)


def _paired(by_seed: pd.DataFrame | None, best: int, picks: int) -> list[float] | None:
    if by_seed is None or best == picks:
        return None
    both = by_seed[[best, picks]].dropna(how="all")
    if both.isna().any(axis=None):
        return None  # of other seeds than the means
    interval = t_interval((both[best] - both[picks]).tolist())
    return interval and list(interval)
