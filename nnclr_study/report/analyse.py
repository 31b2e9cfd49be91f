"""From the tables to one dict of numbers: what every sentence, table and caption prints.

Accuracies and differences are shares of 1. An interval is [low, high], or None where the seeds
are too few or all alike. A failed trial is counted, and is in no mean.
"""

from statistics import fmean
from typing import Any

import pandas as pd

from nnclr_study.report.blocks import clopper_pearson
from nnclr_study.report.inference import infer
from nnclr_study.report.intervals import NO_SPREAD, summary
from nnclr_study.report.load import Tables
from nnclr_study.report.proxies import proxies
from nnclr_study.report.search_diagnostics import diagnose
from nnclr_study.report.setup import health, setup
from nnclr_study.study.plan import condition_label

SCHEMA = 2
STATES = ("finished", "stopped", "failed", "running", "interrupted", "waiting")
CLASSES = {"digits": 10, "synthetic": 10, "stl10": 10, "cifar10": 10, "cifar100": 100}
"""Of data sets whose number of classes is known without their images."""


def analyse(tables: Tables) -> dict[str, Any]:
    """Return all numbers of a report, ready for JSON."""
    study, status = tables.study, _status(tables)
    arms = [
        {"label": condition_label(condition), "condition": condition}
        | _arm(tables.trials[tables.trials["arm"] == place], _chance(tables))
        | {"health": health(tables.epochs, place)}
        for place, condition in enumerate(tables.arms)
    ]
    inferred = _inferred(tables, arms, status["interim"])
    best = _best(arms)
    return {
        "schema": SCHEMA,
        "study": {
            "name": study.name,
            "question": study.question,
            "datasets": tables.datasets,
            "knobs": study.knobs,
            "seeds": study.seeds,
            "margin": study.margin_points / 100,
            "search": study.search.table.model_dump() if study.search else None,
            "references": [
                {"label": each.label, "top1": each.test_top1 / 100, "source": each.source}
                for each in study.references
            ],
            "confirmation": study.confirmation and study.confirmation.model_dump(),
        },
        "status": status,
        "arms": arms,
        "best": best,
        "spread": _spread(tables.trials, arms),
        "learning": None if best is None else _learning(tables.epochs, best["arm"]),
        **inferred,
        "proxies": None if status["interim"] else proxies(tables),
        "setup": setup(tables),
        "search": diagnose(tables) if study.search else None,
    }


def _status(tables: Tables) -> dict[str, Any]:
    trials = tables.trials
    counts = {state: int((trials["status"] == state).sum()) for state in STATES}
    left = counts["running"] + counts["interrupted"] + counts["waiting"]
    return (
        {"planned": len(trials)}
        | counts
        | {
            "left": left,
            "interim": left > 0,
            "hours": float(trials["seconds"].sum()) / 3600,
            "gpu_hours": float(trials["gpu_seconds"].sum()) / 3600,
            "gpu_hours_budget": tables.study.budget.gpu_hours,
            "sessions": len(tables.sessions),
        }
    )


def _arm(trials: pd.DataFrame, chance: float | None) -> dict[str, Any]:
    finished = trials[trials["status"] == "finished"]
    failed = int((trials["status"] == "failed").sum())
    counted = [*finished["val_probe_top1"], *[chance] * failed]
    return {
        "planned": len(trials),
        "finished": len(finished),
        "failed": failed,
        "stopped": int((trials["status"] == "stopped").sum()),
        "failure_rate": clopper_pearson(failed, len(trials)) if failed else None,
        "mean_with_failed_at_chance": fmean(counted) if failed and chance is not None else None,
        "val_probe_top1": summary(finished["val_probe_top1"].dropna().tolist()),
        "test_probe_top1": summary(finished["test_probe_top1"].dropna().tolist()),
        "mean_seconds": _mean(finished["seconds"]),
        "mean_gpu_seconds": _mean(finished["gpu_seconds"]),
        "peak_memory_bytes": _most(finished["peak_memory_bytes"]),
        "images_per_second": _mean(finished["images_per_second"]),
    }


def _mean(column: pd.Series) -> float | None:
    return float(column.mean()) if column.count() else None


def _most(column: pd.Series) -> float | None:
    return float(column.max()) if column.count() else None


def _chance(tables: Tables) -> float | None:
    """Return the accuracy of a guess, where all trials are of data sets with as many classes."""
    known = {CLASSES.get(name) for name in tables.datasets}
    (classes,) = known if len(known) == 1 else (None,)
    return 1 / classes if classes else None


def _inferred(tables: Tables, arms: list[dict[str, Any]], interim: bool) -> dict[str, Any]:
    """Fill in what compares an arm with others, and return what is said of them together."""
    for arm in arms:
        arm |= {"vs_baseline": None, "vs_best": None, "in_best_set": None}
    if tables.study.search or len(arms) < 2:
        nothing = ("blocks", "best_set", "sufficient", "trend", "interaction")
        return {"comparisons": 0} | dict.fromkeys(nothing)
    margin = tables.study.margin_points / 100
    found = infer(tables.trials, tables.arms, tables.study.knobs, margin, interim)
    for place, comparison in found.pop("vs_baseline").items():
        arms[place]["vs_baseline"] = comparison
    best_set = []
    for place, versus in found.pop("vs_best").items():
        arms[place]["in_best_set"] = inside = versus.pop("in_set")
        arms[place]["vs_best"] = versus
        best_set += [place] if inside else []
    return found | {"best_set": best_set or None}


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
