"""How far each planned trial is: what `status` prints and the report counts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import Trial
from nnclr_study.study.rows import TrialRow

Status = Literal["finished", "stopped", "failed", "running", "interrupted", "waiting"]


@dataclass(frozen=True)
class TrialProgress:
    """One planned trial and how far it is."""

    trial: Trial
    status: Status
    epochs_done: int


def progress(
    planned: Sequence[Trial],
    ended: Mapping[str, TrialRow],
    epochs: Mapping[str, Collection[object]],
    locked: bool,
) -> list[TrialProgress]:
    """Return how far every planned trial is; rows of other trials do not count.

    `locked` tells whether a `run` holds the folder: a trial that has begun and not ended is
    "running" then, and "interrupted" otherwise.
    """
    begun: Status = "running" if locked else "interrupted"
    found = []
    for trial in planned:
        done = len(epochs.get(trial.id, []))
        row = ended.get(trial.id)
        status: Status = row.status if row else begun if done else "waiting"
        found.append(TrialProgress(trial, status, done))
    return found


def each_config_once(trials: Sequence[Trial], ended: Mapping[str, TrialRow]) -> list[Trial]:
    """Return one trial of each config: earlier versions trained a search's config more than once.

    Of several it is the first that finished, or else was stopped, has not ended, or failed.
    """
    states = ["finished", "stopped", None, "failed"]
    first: dict[TrialConfig, Trial] = {}
    for trial in sorted(
        trials,
        key=lambda trial: states.index(ended[trial.id].status if trial.id in ended else None),
    ):
        first.setdefault(trial.config, trial)
    kept = {trial.id for trial in first.values()}
    return [trial for trial in trials if trial.id in kept]
