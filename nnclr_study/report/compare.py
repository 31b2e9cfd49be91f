"""From the tables of several runs to one dict of where they differ, condition by condition.

Conditions are the same where their whole configs are, but for the seed, and are then paired over
the seeds that finished in both runs. Every later run stands against the first.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nnclr_study.report.blocks import MIN_PAIRS
from nnclr_study.report.intervals import ALPHA, summary, t_interval
from nnclr_study.report.load import Tables
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import condition_label

SCHEMA = 1


def compare(runs: list[Tables]) -> dict[str, Any]:
    """Return every later run against the first, ready for JSON.

    Accuracies and differences are shares of 1, and a difference is the later run minus the
    first. Simultaneous intervals are Bonferroni's, over all conditions of all pairs of runs.
    """
    studies = [_study(tables, place, runs) for place, tables in enumerate(runs)]
    results = [_results(tables) for tables in runs]
    family = sum(len(results[0].keys() & later.keys()) for later in results[1:])
    pairs = []
    for place, later in enumerate(results[1:], start=1):
        knobs = [*dict.fromkeys([*runs[0].study.knobs, *runs[place].study.knobs])]
        interim = studies[0]["interim"] or studies[place]["interim"]
        pairs.append(
            {"first": 0, "second": place, "interim": interim}
            | _pair(results[0], later, knobs, ALPHA / max(family, 1), interim)
        )
    names = list(dict.fromkeys(name for study in studies for name in study["ran_with"]))
    seen = {name: [study["ran_with"].get(name, []) for study in studies] for name in names}
    return {
        "schema": SCHEMA,
        "studies": studies,
        "differing": [name for name in names if any(v != seen[name][0] for v in seen[name])],
        "comparisons": family,
        "pairs": pairs,
    }


def _study(tables: Tables, place: int, runs: list[Tables]) -> dict[str, Any]:
    """Return what a study is and what it ran with: each value that its sessions had."""
    study, status, sessions = tables.study, tables.trials["status"], tables.sessions
    twice = sum(other.study.name == study.name for other in runs) > 1
    finished = tables.trials[status == "finished"]
    names = list(dict.fromkeys(name for session in sessions for name in session.ran_with))
    ran_with = {
        "commit": [session.commit or "not from a checkout" for session in sessions],
        **{name: [s.ran_with[name] for s in sessions if name in s.ran_with] for name in names},
        "machine": [session.machine for session in sessions],
        "hardware": [
            f"{s.nodes} {'node' if s.nodes == 1 else 'nodes'}, {s.cpus:g} CPUs, {s.gpus:g} GPUs"
            for s in sessions
        ],
        "workers a trial": [f"{s.workers}" for s in sessions],
        "device": finished["device"].dropna().tolist(),
    }
    return {
        "label": f"{study.name} ({place + 1})" if twice else study.name,
        "name": study.name,
        "question": study.question,
        "datasets": tables.datasets,
        "seeds": study.seeds,
        "conditions": len(tables.arms),
        "planned": len(status),
        "finished": len(finished),
        "interim": bool(status.isin(["running", "interrupted", "waiting"]).any()),
        "ran_with": {name: sorted(set(values)) for name, values in ran_with.items()},
    }


@dataclass(frozen=True)
class _Result:
    """What two trials must share to be the same to the bit."""

    val_probe_top1: float
    c_loss: float | None
    """Of the last epoch: unlike an accuracy, it is hardly ever the same by chance."""


_Results = dict[TrialConfig, dict[int, _Result]]
"""The finished trials of each condition by seed; a condition is its config with the seed 0."""


def _results(tables: Tables) -> _Results:
    """Return a run's results; of a trial that a search suggested twice, the first."""
    fixed, losses = tables.study.fixed, tables.epochs.groupby("trial_id")["c_loss"].last()
    configs = [
        TrialConfig(**{**fixed, **condition, "seed": 0})  # type: ignore[arg-type]
        for condition in tables.arms
    ]
    results: _Results = {config: {} for config in configs}
    finished = tables.trials[tables.trials["status"] == "finished"]
    columns = [finished[name] for name in ("trial_id", "arm", "seed", "val_probe_top1")]
    for trial_id, arm, seed, top1 in zip(*columns, strict=True):
        results[configs[arm]].setdefault(seed, _Result(top1, losses.get(trial_id)))
    return results


def _pair(
    first: _Results, second: _Results, knobs: list[str], alpha: float, interim: bool
) -> dict[str, Any]:
    """Return the conditions that two runs share, and those that one of them has alone."""

    def named(config: TrialConfig) -> dict[str, Any]:
        return {knob: getattr(config, knob) for knob in knobs}

    matched = [config for config in first if config in second]
    differences = [_difference(first[c], second[c], alpha, interim) for c in matched]
    alone = [(first, second), (second, first)]
    return {
        "knobs": knobs,
        "arms": [
            {
                "label": condition_label(named(config)),
                "condition": named(config),
                "first": summary(_top1s(first[config])),
                "second": summary(_top1s(second[config])),
                "difference": difference,
            }
            for config, difference in zip(matched, differences, strict=True)
        ],
        "unmatched": [[condition_label(named(c)) for c in a if c not in b] for a, b in alone],
        "otherwise_set": _otherwise_set(list(first), list(second)),
        "trials": sum(difference["pairs"] for difference in differences),
        "same": sum(difference["same"] for difference in differences),
    }


def _top1s(results: dict[int, _Result]) -> list[float]:
    return [result.val_probe_top1 for result in results.values()]


def _difference(
    first: dict[int, _Result], second: dict[int, _Result], alpha: float, interim: bool
) -> dict[str, Any]:
    """Return second minus first over the seeds that finished in both."""
    seeds = [seed for seed in first if seed in second]
    values = [second[seed].val_probe_top1 - first[seed].val_probe_top1 for seed in seeds]
    simultaneous = t_interval(values, alpha)
    decided = simultaneous is not None and len(values) >= MIN_PAIRS and not interim
    return {
        "pairs": len(values),
        "same": sum(first[seed] == second[seed] for seed in seeds),
        "mean": fmean(values) if values else None,
        "interval": t_interval(values),
        "simultaneous": simultaneous,
        "verdict": _verdict(*simultaneous) if simultaneous and decided else None,
    }


def _verdict(low: float, high: float) -> str:
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "not resolved"


def _otherwise_set(first: list[TrialConfig], second: list[TrialConfig]) -> dict[str, Any]:
    """Return the knobs that each run keeps at one value, and not at the same: both values."""
    found = {}
    for knob in TrialConfig.model_fields:
        one, two = ({getattr(config, knob) for config in run} for run in (first, second))
        if len(one) == len(two) == 1 and one != two:
            found[knob] = [*one, *two]
    return found
