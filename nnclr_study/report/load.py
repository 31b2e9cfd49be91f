"""From a run folder to tidy tables: one row a planned trial, one row an epoch."""

from dataclasses import dataclass

import pandas as pd

from nnclr_study.study.progress import progress
from nnclr_study.study.rows import EpochRow, Session
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.search import Value
from nnclr_study.study.spec import Study, arms

_COLUMNS = [
    *("trial_id", "status", "seed", "arm"),
    *("val_probe_top1", "test_probe_top1", "seconds", "epochs_done", "error", "host", "device"),
]


@dataclass(frozen=True)
class Tables:
    """All that a report knows of a run.

    `trials` has a row a planned trial in plan order: trial_id, status, seed, a column a varied
    knob, val_probe_top1, test_probe_top1, seconds, epochs_done, error, host, device, and `arm`,
    the trial's place in `arms`. `epochs` has a row an epoch of those trials: trial_id, arm,
    seed, status, and the fields of `EpochRow`. Accuracies are shares of 1 and missing for a
    trial that is not finished.
    """

    study: Study
    arms: list[dict[str, Value]]
    """The conditions, the baseline first."""
    datasets: list[str]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    sessions: list[Session]


def load(folder: RunFolder) -> Tables:
    """Read a run folder; rows of trials that are no longer in its plan are left out."""
    study = folder.study()
    planned = folder.planned(study)
    if study.search is None:
        conditions = arms(study)
        found = {tuple(arm.values()): place for place, arm in enumerate(conditions)}
        places = [found[tuple(trial.condition.values())] for trial in planned]
    else:  # each suggestion stands for itself, even one that came twice
        conditions = [trial.condition for trial in planned]
        places = list(range(len(planned)))
    locked, ended, epochs = folder.is_locked(), folder.trials(), folder.epochs()

    trial_rows, epoch_rows = [], []
    for each, place in zip(progress(planned, ended, epochs, locked), places, strict=True):
        trial, row = each.trial, ended.get(each.trial.id)
        rows = epochs.get(trial.id, [])
        who = {
            "trial_id": trial.id,
            "status": each.status,
            "seed": trial.config.seed,
            "arm": place,
        }
        finished = row is not None and row.status == "finished"
        trial_rows.append(
            who
            | trial.condition
            | {
                "val_probe_top1": row.val_probe_top1 if row and finished else None,
                "test_probe_top1": row.test_probe_top1 if row and finished else None,
                "seconds": row.seconds if row else sum(r.seconds for r in rows) or None,
                "epochs_done": each.epochs_done,
                "error": row.error if row else None,
                "host": row.host if row else None,
                "device": row.device if row else None,
            }
        )
        epoch_rows += [who | epoch.model_dump() for epoch in rows]

    columns = [*_COLUMNS[:4], *study.knobs, *_COLUMNS[4:]]
    trials = pd.DataFrame(trial_rows, columns=columns, dtype=object)  # a whole knob stays whole
    for column in ("val_probe_top1", "test_probe_top1", "seconds"):
        trials[column] = trials[column].astype(float)
    for column in ("seed", "arm", "epochs_done"):
        trials[column] = trials[column].astype(int)
    columns = ["trial_id", "status", "seed", "arm", *EpochRow.model_fields]
    return Tables(
        study=study,
        arms=conditions,
        datasets=sorted({trial.config.dataset for trial in planned}),
        trials=trials,
        epochs=pd.DataFrame(epoch_rows, columns=columns),
        sessions=folder.sessions(),
    )
