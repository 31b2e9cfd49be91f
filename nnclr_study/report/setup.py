"""What the trials ran on and with: where it differed from trial to trial, and how fast it was."""

from typing import Any

import pandas as pd

from nnclr_study.report.load import Tables

HEALTH = ("nn_same_label", "nn_age", "queue_used", "feature_std", "rankme")
"""Of an epoch: how well the queue serves, and whether the features collapse."""


def setup(tables: Tables) -> dict[str, Any]:
    """Return what differed among the trials that ended, and the pace of every host."""
    ended = tables.trials.dropna(subset="session")
    known = {session.number: session for session in tables.sessions}
    used = [known[n] for n in sorted(set(ended["session"])) if n in known]
    told: dict[str, list[Any]] = {
        "commit": [session.commit for session in used],
        "machine": [session.machine for session in used],
        "device": ended["device"].tolist(),
    }
    told |= {
        name: [session.ran_with.get(name) for session in used]
        for name in sorted({name for session in used for name in session.ran_with})
    }
    values = {what: list(dict.fromkeys(v for v in each if v)) for what, each in told.items()}
    return {
        "mixed": {what: each for what, each in values.items() if len(each) > 1},
        "sessions": len(used),
        "hosts": _hosts(tables.trials),
    }


def _hosts(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Return each host's trials, and their median pace."""
    finished = trials[trials["status"] == "finished"].dropna(subset=["host", "images_per_second"])
    return [
        {
            "host": host,
            "trials": len(own),
            "images_per_second": float(own["images_per_second"].median()),
        }
        for host, own in finished.groupby("host", sort=True)
    ]


def health(epochs: pd.DataFrame, arm: int) -> dict[str, float | None]:
    """Return the means of an arm's finished trials in their last epoch."""
    own = epochs[(epochs["arm"] == arm) & (epochs["status"] == "finished")]
    last = own[own["epoch"] == own["epoch"].max()]
    return {name: float(last[name].mean()) if last[name].count() else None for name in HEALTH}
