"""The numbers behind a search's figures: exploratory, since every trial is a single seed.

Accuracies are shares of 1, and a trial's number is its place among those begun, from 0, as in
its id. A stopped trial has no final accuracy: the history shows how far it came, and it is in
nothing else. There is no path of ablations from the baseline to the best: it needs trials that
differ in one knob alone, which a search does not train, and a model's guesses are no trials.
"""

import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from math import ceil, log10
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from nnclr_study.report.blocks import largest_of
from nnclr_study.report.load import Tables
from nnclr_study.study.search import Axis, Value

if TYPE_CHECKING:  # loaded for a search's importances alone: a grid's report does without
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

MIN_FINISHED = 20
"""Trials below which there are neither importances nor contours."""
GOOD = 1 / 3
"""Share of the finished trials that count as the best ones.

PED-ANOVA's usual tenth is too few: with one strong knob of five and 40 trials it told that knob
from chance in 1 of 40 simulated searches, and the best third in 39.
"""
SHUFFLES = 100
CHANCE = 0.95
"""Of the shuffles, whose most important knob stays below the line of chance."""
GRID = 25
"""Points of a contour along each knob."""
NEAR = 0.12
"""Standard deviation of a contour's kernel, as a share of a knob's range."""


def diagnose(tables: Tables) -> dict[str, Any]:
    """Return the numbers of every search figure, ready for JSON.

    Raises:
        ValueError: the study is a grid.
    """
    search = tables.study.search
    if search is None:
        raise ValueError("a grid has no search to diagnose")
    finished = tables.trials.dropna(subset="val_probe_top1")
    ranked = finished.sort_values("val_probe_top1", ascending=False, kind="stable")
    good = ranked.head(ceil(GOOD * len(ranked)))
    scales = {
        knob: scale_of(axis, finished[knob].dropna().tolist())
        for knob, axis in search.space.items()
    }
    alike = _alike(finished, scales)
    importance = _importance(finished, {k: scales[k] for k in scales if k not in alike})
    knobs = [*importance["shares"], *alike] if importance else list(scales)
    return {
        "objectives": search.table.objectives,
        "begun": len(tables.trials),
        "finished": len(finished),
        "good": good["arm"].tolist(),
        "good_values": {
            knob: _extent(scale, good[knob].dropna().tolist()) for knob, scale in scales.items()
        },
        "history": _history(tables),
        "luck": largest_of(len(finished)) if len(finished) else None,
        "scales": scales,
        "alike": alike,
        "importance": importance,
        "contour": _contour(finished, scales, knobs[:2]) if len(knobs) > 1 else None,
        "edf": _distributed(finished["val_probe_top1"]),
        "pareto": _pareto(finished),
    }


def scale_of(axis: Axis, tried: Sequence[Value]) -> dict[str, Any]:
    """Return a knob's choices or range, wide enough for what was tried before it was narrowed."""
    if axis.choices:
        return {"choices": axis.choices}
    ends: list[Any] = [axis.least, axis.most, *tried]
    return {"low": min(ends), "high": max(ends), "log": axis.log, "whole": axis.whole}


def place_on(scale: dict[str, Any], value: Value) -> float:
    """Return where a value stands on its knob's scale, from 0 to 1."""
    if "choices" in scale:
        return float((scale["choices"].index(value) + 0.5) / len(scale["choices"]))
    low, high, at = (float(number or 0) for number in (scale["low"], scale["high"], value))
    if scale["log"]:
        low, high, at = log10(low), log10(high), log10(at)
    return (at - low) / (high - low)


def _history(tables: Tables) -> list[dict[str, Any]]:
    """Return every trial that ended: its accuracy, and the best that had finished until it."""
    rows: list[dict[str, Any]] = []
    best: float | None = None
    ended = tables.trials[tables.trials["status"].isin(["finished", "stopped", "failed"])]
    for trial in ended.to_dict("records"):
        top1 = trial["val_probe_top1"] if trial["status"] == "finished" else None
        if top1 is not None:
            best = top1 if best is None else max(best, top1)
        kept = {key: trial[key] for key in ("trial_id", "status", "epochs_done")}
        rows.append({"trial": trial["arm"]} | kept | {"val_probe_top1": top1, "best": best})
    return rows


def _alike(finished: pd.DataFrame, knobs: Iterable[str]) -> dict[str, Value]:
    """Return the knobs, with their values, that all finished trials have alike.

    Nothing can be known of them: it may be that those with other values were stopped early.
    """
    same = [knob for knob in knobs if finished[knob].nunique(dropna=False) == 1]
    values = {knob: finished[knob].tolist()[0] for knob in same}
    return {knob: None if pd.isna(value) else value for knob, value in values.items()}


def _importance(
    finished: pd.DataFrame, scales: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Return how much each knob decides whether a trial is among the best third (PED-ANOVA).

    As shares of all knobs' importance, most important first, and in multiples of chance: of
    what the most important knob stays below in 95 of 100 shuffles of the accuracies.
    """
    values = finished["val_probe_top1"].to_numpy()
    if len(values) < MIN_FINISHED or values.min() == values.max() or not scales:
        return None
    conditions = [
        {knob: row[knob] for knob in scales if not pd.isna(row[knob])}
        for row in finished.to_dict("records")
    ]
    space = {knob: _distribution(scale) for knob, scale in scales.items()}
    generator = np.random.default_rng(0)
    orders = [values, *(generator.permutation(values) for _ in range(SHUFFLES))]
    found, *others = _ped_anova(conditions, space, orders)
    total = sum(found.values())
    shuffled = [max(other.values()) for other in others]
    chance = float(np.quantile(shuffled, CHANCE))
    return {
        "n": len(values),
        "shares": {knob: value / total for knob, value in found.items()},
        "times_chance": {knob: value / chance for knob, value in found.items()},
    }


def _ped_anova(
    conditions: Sequence[dict[str, Value]],
    space: dict[str, "BaseDistribution"],
    orders: Sequence[NDArray[np.float64]],
) -> list[dict[str, float]]:
    """Return the importances by each order of the accuracies, most important first.

    Optuna is told of finished trials alone, since PED-ANOVA looks at no others; a knob that did
    not apply is no param of a trial. It is told once: it copies what it is told, and that takes
    ten times as long as the importances do.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(
            params=condition,
            distributions={knob: space[knob] for knob in condition},
            value=0.0,
        )
        for condition in conditions
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=GOOD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it minimises: hence the sign
        return [evaluator.evaluate(study, target=partial(_loss, order)) for order in orders]


def _loss(order: NDArray[np.float64], trial: "FrozenTrial") -> float:
    return -float(order[trial.number])


def _distribution(scale: dict[str, Any]) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if "choices" in scale:
        return CategoricalDistribution(scale["choices"])
    kind = IntDistribution if scale["whole"] else FloatDistribution
    return kind(scale["low"], scale["high"], log=scale["log"])


def _contour(
    finished: pd.DataFrame, scales: dict[str, dict[str, Any]], knobs: list[str]
) -> dict[str, Any]:
    """Return two knobs and the mean accuracy over a grid of both, a row a value of the second.

    The grid's means weigh the finished trials by their distance (a normal kernel); None where
    the weights come to less than one trial. There is no grid for choices, or for few trials.
    """
    tried = finished.dropna(subset=knobs)
    found: dict[str, Any] = {"knobs": knobs, "n": len(tried), "means": None}
    if len(tried) < MIN_FINISHED or any("choices" in scales[knob] for knob in knobs):
        return found
    at_G = np.linspace(0, 1, GRID)
    across_GN, up_GN = (
        norm.pdf((at_G[:, None] - [place_on(scales[knob], value) for value in tried[knob]]) / NEAR)
        / norm.pdf(0)
        for knob in knobs
    )
    weight_GG = up_GN @ across_GN.T
    sum_GG = (up_GN * tried["val_probe_top1"].to_numpy()) @ across_GN.T
    found["means"] = [
        [float(s / w) if w >= 1 else None for s, w in zip(*rows, strict=True)]
        for rows in zip(sum_GG, weight_GG, strict=True)
    ]
    return found


def _extent(scale: dict[str, Any], values: list[Any]) -> list[Value]:
    """Return lowest and highest of a range, or those of the choices that occur."""
    if "choices" in scale:
        return [choice for choice in scale["choices"] if choice in values]
    return [min(values), max(values)] if values else []


def _distributed(top1: "pd.Series[float]") -> dict[str, Any]:
    return {
        "values": sorted(top1.tolist()),
        "median": float(top1.median()) if len(top1) else None,
        "best_tenth": float(top1.quantile(0.9)) if len(top1) >= MIN_FINISHED else None,
    }


def _pareto(finished: pd.DataFrame) -> dict[str, Any]:
    """Return every finished trial's hours, and which none beats in both hours and accuracy.

    GPU-hours where every trial held a GPU: beside one that held none they would not compare.
    """
    on_gpu = bool(len(finished)) and bool((finished["gpu_seconds"] > 0).all())
    hours = finished["gpu_seconds" if on_gpu else "seconds"].astype(float) / 3600
    points = [
        {"trial": int(arm), "hours": float(spent), "val_probe_top1": float(top1)}
        for arm, spent, top1 in zip(
            finished["arm"], hours, finished["val_probe_top1"], strict=True
        )
    ]
    front: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["hours"], -p["val_probe_top1"])):
        if not front or point["val_probe_top1"] > front[-1]["val_probe_top1"]:
            front.append(point)
    return {
        "cost": "GPU-hours" if on_gpu else "hours",
        "points": points,
        "front": [point["trial"] for point in front],
    }
