"""How far each planned trial is: what `status` prints and the report counts."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnclr_study.errors import RunFolderWarning
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


def warn_of_missing_epochs(
    path: Path,
    cells: Iterable[TrialProgress],
    ended: Mapping[str, TrialRow],
    is_run: bool = True,
) -> None:
    """Warn where trials ended after more epochs than have rows, as in a half-copied folder.

    `is_run` tells whether it is a run folder, whose rows `run` can restore, and not evidence.
    """
    found = [
        (cell, ended[cell.trial.id].epochs)
        for cell in cells
        if cell.trial.id in ended and cell.epochs_done < ended[cell.trial.id].epochs
    ]
    if not found:
        return
    missing = sum(epochs - cell.epochs_done for cell, epochs in found)
    cell, epochs = found[0]
    way_out = "; `nnclr-study run` restores rows that checkpoints hold" if is_run else ""
    warnings.warn(
        RunFolderWarning(
            f"{path} lacks {missing:,} epoch row(s) of {len(found):,} trial(s) that ended, as "
            f"{cell.trial.id} ({cell.epochs_done} of {epochs} are there): results are whole, and "
            f"curves are not{way_out}"
        ),
        stacklevel=2,
    )


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
