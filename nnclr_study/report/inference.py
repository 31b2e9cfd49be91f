"""What the finished trials of a grid let one infer: the tests of `blocks`, `trend` and `factors`.

They run on complete blocks, the seeds that every compared arm has finished; an arm with too few
is left out of them, and so told. Nothing is imputed: that all trials, by least squares, say about
the same is the check beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from nnclr_study.report import blocks, factors
from nnclr_study.report.blocks import MIN_PAIRS, Array, Comparison
from nnclr_study.report.intervals import t_interval
from nnclr_study.report.trend import trend
from nnclr_study.study.search import Value

COSTLY = ("queue_size", "width")
"""Knobs of which more costs more, so that the smallest sufficient value is worth naming."""


def infer(
    trials: pd.DataFrame,
    arms: Sequence[Mapping[str, Value]],
    knobs: Sequence[str],
    margin: float,
    interim: bool,
) -> dict[str, Any]:
    """Return what may be said of the arms, arm 0 the baseline, ready for JSON.

    Args:
        trials: as in `Tables`; val_probe_top1 is missing where a trial is not finished.
        arms: the conditions.
        knobs: that vary.
        margin: the smallest difference that matters, a share of 1.
        interim: whether trials are to come: then intervals are all that is told, for a test
            at every look finds differences that are none.
    """
    by_seed = trials.pivot(index="seed", columns="arm", values="val_probe_top1")
    by_seed = by_seed.reindex(columns=range(len(arms)))
    enough = min(MIN_PAIRS, len(by_seed))
    compared = [arm for arm in range(len(arms)) if by_seed[arm].count() >= enough]
    complete = by_seed[compared].dropna()
    values = complete.to_numpy(dtype=float)
    model = blocks.fit(values)
    told = model is not None and not interim
    vs_best = _vs_best(values, compared)
    return {
        "comparisons": len(compared) - 1 if 0 in compared else 0,
        "vs_baseline": _vs_baseline(by_seed, compared, values, model, margin, interim),
        "blocks": model and _block_facts(model, complete, compared, margin),
        "vs_best": vs_best,
        "sufficient": (
            _sufficient(values, compared, arms, knobs, margin, vs_best) if told else None
        ),
        "trend": _trend(values, compared, arms, knobs) if told else None,
        "interaction": _interaction(values, compared, arms, knobs) if told else None,
    }


def _vs_baseline(
    by_seed: pd.DataFrame,
    compared: list[int],
    values: Array,
    model: blocks.Blocks | None,
    margin: float,
    interim: bool,
) -> dict[int, dict[str, Any]]:
    """Return every later arm against the first: in complete blocks, or paired where it is out."""
    in_blocks: dict[int, Comparison] = {}
    if compared[:1] == [0] and len(values) >= min(MIN_PAIRS, len(by_seed)):
        in_blocks = dict(zip(compared[1:], blocks.compare(values), strict=True))
    method = model.method if model else "dunnett"
    everything = _least_squares(by_seed)
    found = {}
    for arm in range(1, by_seed.shape[1]):
        comparison = in_blocks.get(arm) or _paired(by_seed, arm)
        word = blocks.verdict(comparison, margin, method)
        hidden = {"p_dunnett": None, "p_holm": None, "verdict": None} if interim else {}
        found[arm] = (
            asdict(comparison)
            | {"verdict": word, "least_squares": everything.get(arm)}
            | {"in_blocks": arm in in_blocks}
            | hidden
        )
    return found


def _paired(by_seed: pd.DataFrame, arm: int) -> Comparison:
    differences = (by_seed[arm] - by_seed[0]).dropna().tolist()
    mean = float(np.mean(differences)) if differences else None
    sd = float(np.std(differences, ddof=1)) if len(differences) > 1 else None
    interval = t_interval(differences)
    return Comparison(len(differences), mean, sd, None, interval, None, None, None, None)


def _least_squares(by_seed: pd.DataFrame) -> dict[int, float]:
    """Return each arm minus the first from all finished trials, by `value ~ arm + seed`.

    Only arms that share seeds with it, if through others, can be told from the seeds' own levels.
    """
    long = by_seed.stack().dropna()
    if by_seed[0].count() == 0 or len(long) == 0:
        return {}
    design = pd.get_dummies(long.index.to_frame(), columns=["seed", "arm"], dtype=float)
    solution, _, rank, _ = np.linalg.lstsq(design.to_numpy(), long.to_numpy(float), rcond=None)
    if rank < design.shape[1] - 1:
        return {}
    effects = dict(zip(design.columns, solution, strict=True))
    arms = sorted(set(long.index.get_level_values("arm")))
    return {arm: float(effects[f"arm_{arm}"] - effects["arm_0"]) for arm in arms if arm}


def _block_facts(
    model: blocks.Blocks, complete: pd.DataFrame, compared: list[int], margin: float
) -> dict[str, Any]:
    return {
        "seeds": [int(seed) for seed in complete.index],
        "arms": compared,
        "df": model.df,
        "residual_sd": model.residual_sd,
        "critical": model.critical,
        "correlation": model.correlation,
        "seed_share": model.seed_share,
        "sd_ratio": model.sd_ratio if isfinite(model.sd_ratio) else None,
        "method": model.method,
        "seeds_for_margin": blocks.seeds_for_margin(model.residual_sd, model.arms, margin),
    }


def _vs_best(values: Array, compared: list[int]) -> dict[int, dict[str, Any]]:
    found = blocks.best_set(values) if len(compared) > 1 else None
    return dict(zip(compared, map(asdict, found), strict=True)) if found else {}


def _doses(
    compared: list[int], arms: Sequence[Mapping[str, Value]], knobs: Sequence[str]
) -> list[float] | None:
    """Return the values of the one knob that varies; None where there are more, or no numbers."""
    values = [arms[arm][knobs[0]] for arm in compared] if len(knobs) == 1 else []
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return [float(v) for v in numbers] if len(numbers) == len(compared) else None


def _sufficient(
    values: Array,
    compared: list[int],
    arms: Sequence[Mapping[str, Value]],
    knobs: Sequence[str],
    margin: float,
    vs_best: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Return the smallest arm as good as the largest; None where that is ruled out as the best."""
    doses = _doses(compared, arms, knobs)
    if doses is None or knobs[0] not in COSTLY:
        return None
    order = np.argsort(doses)
    found = blocks.sufficient(values[:, order], margin)
    if found is None:
        return None
    arm, largest = (compared[order[place]] for place in (found.arm, -1))
    if not vs_best[largest]["in_set"]:
        return None
    return {"arm": arm, "largest": largest, "lower": found.lower}


def _trend(
    values: Array, compared: list[int], arms: Sequence[Mapping[str, Value]], knobs: Sequence[str]
) -> dict[str, Any] | None:
    doses = _doses(compared, arms, knobs)
    if doses is None:
        return None
    positive = [place for place, dose in enumerate(doses) if dose > 0]
    found = trend([doses[place] for place in positive], values[:, positive])
    return None if found is None else {"knob": knobs[0]} | asdict(found)


def _interaction(
    values: Array, compared: list[int], arms: Sequence[Mapping[str, Value]], knobs: Sequence[str]
) -> dict[str, Any] | None:
    """Return the interaction of two knobs whose levels were all crossed; None otherwise."""
    if len(knobs) != 2:
        return None
    levels = [_in_order([arms[arm][knob] for arm in compared]) for knob in knobs]
    places = {tuple(arms[arm][knob] for knob in knobs): at for at, arm in enumerate(compared)}
    cells = [[places.get((a, b)) for b in levels[1]] for a in levels[0]]
    if any(at is None for row in cells for at in row) or len(places) < len(compared):
        return None
    values_SAB = values[:, np.array(cells, dtype=int)]
    found = factors.interaction(values_SAB)
    ends = {knob: [tested[0], tested[-1]] for knob, tested in zip(knobs, levels, strict=True)}
    means = values_SAB.mean(axis=0).tolist()
    about = {"knobs": list(knobs), "levels": levels, "means": means, "of": ends}
    return None if found is None else about | asdict(found)


def _in_order(values: Sequence[Value]) -> Sequence[Value]:
    levels = list(dict.fromkeys(values))
    numbers = [level for level in levels if isinstance(level, int | float)]
    return sorted(numbers) if len(numbers) == len(levels) else levels
