"""From a run folder to tidy tables: one row a planned trial, one row an epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import Trial
from nnclr_study.study.progress import TrialProgress, progress, warn_of_missing_epochs
from nnclr_study.study.rows import EpochRow, Session, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.search import Value
from nnclr_study.study.spec import Study, arms

_WHO = ["trial_id", "status", "seed", "arm"]
_FLOATS = [
    *("val_probe_top1", "test_probe_top1", "seconds", "gpu_seconds"),
    *("peak_memory_bytes", "images_per_second"),
]
_FACTS = ["epochs_done", "error", "host", "device", "session", "started_at", "ended_at"]


@dataclass(frozen=True)
class Tables:
    """All that a report knows of a run.

    `trials` has a row a planned trial in plan order: trial_id, status, seed, a column a varied
    knob, val_probe_top1, test_probe_top1, seconds, gpu_seconds, peak_memory_bytes,
    images_per_second (of the training steps), epochs_done, error, host, device, session,
    started_at, ended_at, and `arm`, the trial's place in `arms`. `epochs` has a row an epoch of
    those trials: trial_id, arm, seed, status, and the fields of `EpochRow`. Accuracies are shares
    of 1 and missing for a trial that is not finished.
    """

    study: Study
    path: Path
    """Of the run folder, or of published evidence."""
    is_run: bool
    arms: list[dict[str, Value]]
    """The conditions, the baseline first."""
    configs: list[TrialConfig]
    """Of every planned trial, in plan order."""
    trials: pd.DataFrame
    epochs: pd.DataFrame
    sessions: list[Session]

    @property
    def datasets(self) -> list[str]:
        """The data sets of its trials."""
        return sorted({config.dataset for config in self.configs})


def load(folder: RunFolder) -> Tables:
    """Read a run folder; rows of trials that are no longer in its plan are left out."""
    study = folder.study()
    planned = folder.planned(study)
    return tables_of(
        study,
        folder.path,
        planned,
        folder.trials(planned),
        folder.epochs(planned),
        folder.sessions(),
        locked=folder.is_running(),
    )


def tables_of(
    study: Study,
    path: Path,
    planned: Sequence[Trial],
    ended: Mapping[str, TrialRow],
    epochs: Mapping[str, list[EpochRow]],
    sessions: list[Session],
    locked: bool = False,
    is_run: bool = True,
) -> Tables:
    """Bring rows into tables; `locked` tells whether a `run` is at work."""
    if study.search is None:
        conditions = arms(study)
        found = {tuple(arm.values()): place for place, arm in enumerate(conditions)}
        places = [found[tuple(trial.condition.values())] for trial in planned]
    else:  # each suggestion is a condition of its own
        conditions = [trial.condition for trial in planned]
        places = list(range(len(planned)))

    cells = progress(planned, ended, epochs, locked)
    warn_of_missing_epochs(path, cells, ended, is_run)
    trial_rows, epoch_rows = [], []
    for each, place in zip(cells, places, strict=True):
        trial, rows = each.trial, epochs.get(each.trial.id, [])
        who = [trial.id, each.status, trial.config.seed, place]
        known = dict(zip(_WHO, who, strict=True))
        trial_rows.append(known | trial.condition | _facts(each, ended.get(trial.id), rows))
        epoch_rows += [known | epoch.model_dump() for epoch in rows]

    columns = [*_WHO, *study.knobs, *_FLOATS, *_FACTS]
    trials = pd.DataFrame(trial_rows, columns=columns, dtype=object)  # a whole knob stays whole
    for column in _FLOATS:
        trials[column] = trials[column].astype(float)
    for column in ("seed", "arm", "epochs_done"):
        trials[column] = trials[column].astype(int)
    return Tables(
        study=study,
        path=path,
        is_run=is_run,
        arms=conditions,
        configs=[trial.config for trial in planned],
        trials=trials,
        epochs=pd.DataFrame(epoch_rows, columns=[*_WHO, *EpochRow.model_fields]),
        sessions=sessions,
    )


def _facts(each: TrialProgress, row: TrialRow | None, rows: list[EpochRow]) -> dict[str, Any]:
    told = row.model_dump() if row else {}
    finished = row is not None and row.status == "finished"
    top1s = ("val_probe_top1", "test_probe_top1")
    return (
        {name: told.get(name) for name in (*_FLOATS, *_FACTS) if name not in top1s}
        | {name: told[name] if finished else None for name in top1s}
        | {
            "seconds": row.seconds if row else sum(epoch.seconds for epoch in rows) or None,
            "epochs_done": each.epochs_done,
            "images_per_second": _images_per_second(each.trial, rows),
        }
    )


def _images_per_second(trial: Trial, rows: list[EpochRow]) -> float | None:
    seconds = sum(row.train_seconds for row in rows)
    steps = len(rows) * trial.config.steps_per_epoch
    return steps * trial.config.global_batch / seconds if seconds else None
