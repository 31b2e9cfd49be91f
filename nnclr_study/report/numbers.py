"""The numbers of a figure as a table, accuracies as shares of 1."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from nnclr_study.report.figures.learning import thinned
from nnclr_study.report.intervals import t_interval
from nnclr_study.report.load import Tables
from nnclr_study.report.setup import HEALTH
from nnclr_study.study.plan import condition_label


def compared(arms: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return every later arm against the first: what the forest draws."""
    rows = []
    for arm in arms:
        if versus := arm["vs_baseline"]:
            spans = {
                f"{name}_{end}": versus[kind] and versus[kind][place]
                for name, kind in (
                    ("ci95", "interval"),
                    ("simultaneous", "simultaneous"),
                    ("ci90", "equivalence"),
                )
                for place, end in enumerate(("low", "high"))
            }
            plain = ("pairs", "mean", "least_squares", "sd", "dz")
            told = {"condition": arm["label"]} | {name: versus[name] for name in plain} | spans
            rows.append(told | {n: versus[n] for n in ("p_dunnett", "p_holm", "verdict")})
    return pd.DataFrame(rows)


def curves(tables: Tables) -> pd.DataFrame:
    """Return the mean curve of every condition, over its finished seeds, as it is drawn."""
    finished = tables.epochs[tables.epochs["status"] == "finished"]
    rows = []
    for arm, own in finished.groupby("arm"):
        by_epoch = own.groupby("epoch")["val_probe_top1"].agg(list)
        for epoch, values in thinned(list(by_epoch.items())):
            low, high = t_interval(values) or (None, None)
            rows.append((arm, epoch, len(values), sum(values) / len(values), low, high))
    columns = ["condition", "epoch", "n", "mean", "ci95_low", "ci95_high"]
    table = pd.DataFrame(rows, columns=columns)
    labels = [condition_label(arm) for arm in tables.arms]
    return table.assign(condition=table["condition"].map(lambda arm: labels[arm]))


def ranked(found: dict[str, Any], arms: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return how each score ranks conditions and trials, and what it picks."""
    rows = []
    for score in found["scores"]:
        row = {"score": score["score"]}
        for kind in ("across", "within"):
            told = score[kind] or {"rho": None, "interval": None, "n": None}
            low, high = told["interval"] or (None, None)
            row |= {f"{kind}_rho": told["rho"], f"{kind}_ci95_low": low}
            row |= {f"{kind}_ci95_high": high, f"{kind}_n": told["n"]}
        low, high = score["cost_interval"] or (None, None)
        picks = {"picks": arms[score["picks"]]["label"], "cost": score["cost"]}
        rows.append(row | picks | {"cost_ci95_low": low, "cost_ci95_high": high})
    return pd.DataFrame(rows)


def health(arms: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return how the queue and the features of every arm fare."""
    rows = [{"condition": arm["label"]} | arm["health"] for arm in arms]
    return pd.DataFrame(rows, columns=["condition", *HEALTH])
