"""From a study to its trials, each with an id that depends on nothing but its config."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import ref

from nnclr_study.errors import UsageError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.search import Value
from nnclr_study.study.spec import Study, arms

LONGEST_ID = 200
"""Characters of a trial's id, which names files: their names may have 255."""
_planned: dict[int, tuple[ref[Study], list["Trial"]]] = {}
"""The trials of the study that was planned last: there may be 100,000, and commands ask often."""
LONGEST_READABLE = 150
"""Characters of its condition; of a longer one a digest tells the rest."""


@dataclass(frozen=True)
class Trial:
    """One cell of a study: a condition (the varied knobs) and a seed, resolved."""

    id: str
    condition: dict[str, Value]
    config: TrialConfig


def plan_trials(study: Study) -> list[Trial]:
    """Return every trial of a grid, seed by seed.

    A seed's conditions stand together, so that an interrupted study holds complete blocks
    of paired trials rather than complete arms.
    """
    kept = _planned.get(id(study))
    if kept is None or kept[0]() is not study:
        conditions = arms(study)
        trials = [_trial(study, each, seed) for seed in study.seeds for each in conditions]
        _planned.clear()
        _planned[id(study)] = kept = (ref(study), trials)
    return list(kept[1])


def suggested_trial(study: Study, number: int, params: Mapping[str, Value]) -> Trial:
    """Return the trial of a search's suggestion, whose number is its place from 0.

    Raises:
        pydantic.ValidationError: the values do not fit each other.
    """
    config = suggested_config(study, params)
    return Trial(f"{number:04d}_{config.digest}", dict(params), config)


def suggested_config(study: Study, params: Mapping[str, Value]) -> TrialConfig:
    """Return the config of a suggestion. Raises: as `suggested_trial`."""
    return TrialConfig(**{**study.fixed, **params, "seed": study.seeds[0]})  # type: ignore[arg-type]


def named(trials: Iterable[Trial], begins: str, printed_by: str) -> Trial:
    """Return the one of a study's trials whose id begins so; `printed_by` is said to print them.

    Raises:
        UsageError: none does, or several.
    """
    found = [trial for trial in trials if trial.id.startswith(begins)]
    if len(found) != 1:
        wrong = "is the beginning of several" if found else "is no trial of this study"
        raise UsageError(f"{begins!r} {wrong}; `nnclr-study {printed_by}` prints their ids")
    return found[0]


def condition_label(condition: dict[str, Value]) -> str:
    """Return a condition as a reader sees it: `queue_size 2,500, temperature 0.1`."""
    return (
        ", ".join(f"{knob} {show_value(value)}" for knob, value in condition.items()) or "as set"
    )


def show_value(value: Value) -> str:
    """Return a knob's value as a reader sees it: `2,500`, `0.1`, `digits`."""
    if value is None:
        return "none"
    if isinstance(value, float) and len(repr(value)) > 8:
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _trial(study: Study, condition: dict[str, Value], seed: int) -> Trial:
    config = TrialConfig(**study.fixed | condition | {"seed": seed})  # type: ignore[arg-type]
    readable = "_".join(f"{knob}-{value}" for knob, value in condition.items())
    if len(readable) > LONGEST_READABLE:
        digest = hashlib.sha256(readable.encode()).hexdigest()[:16]
        readable = f"{readable[:LONGEST_READABLE]}_{digest}"
    words = [readable] if readable else []
    return Trial("_".join([*words, f"s{seed}", config.digest]), condition, config)
