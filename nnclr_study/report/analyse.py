"""From the tables to one dict of numbers: what every sentence, table and caption prints.

Accuracies and differences are shares of 1. An interval is [low, high], or None where the seeds
are too few or all alike. A failed trial is counted, and is in no mean.
"""

from statistics import fmean, stdev
from typing import Any

import pandas as pd

from nnclr_study.report.intervals import ALPHA, NO_SPREAD, holm, t_interval, t_test
from nnclr_study.report.load import Tables
from nnclr_study.study.plan import condition_label

SCHEMA = 1
MIN_PAIRS = 3
"""Paired seeds below which there is an interval and no verdict."""


def analyse(tables: Tables) -> dict[str, Any]:
    """Return all numbers of a report, ready for JSON."""
    status = _status(tables.trials)
    arms = [
        {"label": condition_label(condition), "condition": condition}
        | _arm(tables.trials[tables.trials["arm"] == place])
        for place, condition in enumerate(tables.arms)
    ]
    search = tables.study.search
    compared = [] if search else _comparisons(tables.trials, len(arms), status["interim"])
    for place, arm in enumerate(arms):
        arm["vs_baseline"] = compared[place - 1] if compared and place else None
    best = _best(arms)
    return {
        "schema": SCHEMA,
        "study": {
            "name": tables.study.name,
            "question": tables.study.question,
            "datasets": tables.datasets,
            "knobs": tables.study.knobs,
            "seeds": tables.study.seeds,
            "search": search.table.model_dump() if search else None,
        },
        "status": status,
        "comparisons": len(compared),
        "arms": arms,
        "best": best,
        "spread": _spread(tables.trials, arms),
        "learning": None if best is None else _learning(tables.epochs, best["arm"]),
    }


def _status(trials: pd.DataFrame) -> dict[str, Any]:
    states = ("finished", "stopped", "failed", "running", "interrupted", "waiting")
    counts = {state: int((trials["status"] == state).sum()) for state in states}
    left = counts["running"] + counts["interrupted"] + counts["waiting"]
    hours = float(trials["seconds"].sum()) / 3600
    return {"planned": len(trials)} | counts | {"left": left, "interim": left > 0, "hours": hours}


def _arm(trials: pd.DataFrame) -> dict[str, Any]:
    finished = trials[trials["status"] == "finished"]
    return {
        "planned": len(trials),
        "finished": len(finished),
        "failed": int((trials["status"] == "failed").sum()),
        "val_probe_top1": _summary(finished["val_probe_top1"]),
        "test_probe_top1": _summary(finished["test_probe_top1"]),
        "mean_seconds": float(finished["seconds"].mean()) if len(finished) else None,
    }


def _summary(column: pd.Series) -> dict[str, Any]:
    values = column.dropna().tolist()
    return {
        "n": len(values),
        "mean": fmean(values) if values else None,
        "sd": stdev(values) if len(values) > 1 else None,
        "interval": t_interval(values),
    }


def _comparisons(trials: pd.DataFrame, arms: int, interim: bool) -> list[dict[str, Any]]:
    """Return every later arm against the first, paired over the seeds that both finished."""
    by_seed = trials.pivot(index="seed", columns="arm", values="val_probe_top1")
    differences = [(by_seed[arm] - by_seed[0]).dropna().tolist() for arm in range(1, arms)]
    tests = [None if interim or len(pairs) < MIN_PAIRS else t_test(pairs) for pairs in differences]
    return [
        _comparison(pairs, t_interval(pairs, ALPHA / (arms - 1)), p)
        for pairs, p in zip(differences, holm(tests), strict=True)
    ]


def _comparison(
    pairs: list[float], simultaneous: tuple[float, float] | None, p_holm: float | None
) -> dict[str, Any]:
    return {
        "pairs": len(pairs),
        "mean": fmean(pairs) if pairs else None,
        "interval": t_interval(pairs),
        "simultaneous": simultaneous,
        "p_holm": p_holm,
        "verdict": _verdict(simultaneous, p_holm),
    }


def _verdict(simultaneous: tuple[float, float] | None, p_holm: float | None) -> str | None:
    """Return the word for a difference: the simultaneous interval decides, Holm must agree."""
    if simultaneous is None or p_holm is None:
        return None
    low, high = simultaneous
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "depends on method" if p_holm < ALPHA else "not resolved"


def _best(arms: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the arms with the highest mean val_probe_top1, and the highest below them."""
    means = {
        i: m for i, arm in enumerate(arms) if (m := arm["val_probe_top1"]["mean"]) is not None
    }
    if not means:
        return None
    top = max(means.values())
    first, *tied = [place for place, mean in means.items() if top - mean < NO_SPREAD]
    others = {place: mean for place, mean in means.items() if place != first}
    runner_up = max(others, key=lambda place: others[place]) if others else None
    return {"arm": first, "tied": tied, "runner_up": runner_up}


def _spread(trials: pd.DataFrame, arms: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return how far the means of the arms lie apart, and the seeds within an arm."""
    means = [m for arm in arms if (m := arm["val_probe_top1"]["mean"]) is not None]
    if not means:
        return None
    finished = trials.dropna(subset="val_probe_top1").groupby("arm")["val_probe_top1"]
    seeds = (finished.max() - finished.min())[finished.count() > 1]
    return {
        "lowest": min(means),
        "highest": max(means),
        "between_seeds": float(seeds.max()) if len(seeds) else None,
    }


def _learning(epochs: pd.DataFrame, arm: int) -> dict[str, Any] | None:
    """Return by how much an arm's mean changed in the last quarter of its epochs."""
    own = epochs[(epochs["arm"] == arm) & (epochs["status"] == "finished")]
    curve = own.groupby("epoch")["val_probe_top1"].mean()
    last = len(curve) // 4
    if last == 0:
        return None
    change = float(curve.iloc[-1] - curve.iloc[-1 - last])
    return {"arm": arm, "epochs": len(curve), "last": last, "change": change}
