"""Epoch rows that a run folder lacks, restored from checkpoints: those hold all of a trial."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from nnclr_study.errors import RunFolderError, RunFolderWarning
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.files import checked, parse_json, subfolder
from nnclr_study.study.plan import Trial
from nnclr_study.study.rows import EpochRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import Study

if TYPE_CHECKING:
    from nnclr_study.sweep.store import Store

NAMED = 3
"""Trials that are named one by one."""


def restore_rows(folder: RunFolder, study: Study, store: "Store | None" = None) -> str | None:
    """Add the epoch rows that a run folder lacks and its checkpoints hold.

    Rows that no checkpoint holds are reported with a RunFolderWarning. A trial that has not ended
    may lack one row, of the epoch in which its `run` was killed; it is added when the trial goes
    on.

    Args:
        folder: the run folder, locked by the caller.
        study: its study.
        store: where checkpoints of ended trials are looked for as well.

    Returns:
        What was restored, in one line, or None.
    """
    planned = folder.planned(study)
    ended, epochs = folder.trials(planned), folder.epoch_seconds(planned)
    restored: dict[str, int] = {}
    lost: dict[str, int] = {}
    saved = {path.stem for path in folder.checkpoints.glob("*.safetensors")}
    for trial in planned:
        there, end = epochs.get(trial.id, {}), ended.get(trial.id)
        if len(there) >= (end.epochs if end else trial.config.epochs):
            continue
        if end is None and trial.id not in saved:
            continue
        rows = [row for row in _saved(folder, trial, store) if row.epoch not in there]
        if end is not None:
            rows = [row for row in rows if row.epoch <= end.epochs]
            if missing := end.epochs - len(there) - len(rows):
                lost[trial.id] = missing
        elif len(rows) < 2:
            continue
        for row in rows:
            folder.append_epoch(trial.id, row)
        if rows:
            restored[trial.id] = len(rows)
    path = folder.path / "epochs.jsonl"
    if lost:
        said = f"{path} lacks {sum(lost.values()):,} epoch row(s) of trials that ended, and no "
        said += f"checkpoint holds them: {_named(lost)}; their results are whole, their curves not"
        warnings.warn(RunFolderWarning(said), stacklevel=2)
    if not restored:
        return None
    return (
        f"{path} lacked {sum(restored.values()):,} epoch row(s), which are restored from "
        f"checkpoints: {_named(restored)}"
    )


def _saved(folder: RunFolder, trial: Trial, store: "Store | None") -> list[EpochRow]:
    """Return the rows in a trial's checkpoint; none where it has no usable one."""
    path = folder.checkpoint(trial.id)
    name = f"{path.parent.name}/{path.name}"
    try:
        if store and not path.exists():
            subfolder(folder.path, path.parent.name)
            store.get(name, path)
        config, rows = _contents(checked(folder.path, name))
    except (OSError, RunFolderError, SafetensorError, ValueError, KeyError, TypeError):
        return []
    epochs = [row.epoch for row in rows]
    known = config == trial.config and epochs == list(range(1, len(epochs) + 1))
    return rows if known else []


def _contents(path: Path) -> tuple[TrialConfig, list[EpochRow]]:
    with safe_open(path, framework="np") as file:
        about = file.metadata()
    rows = [EpochRow.model_validate(row) for row in parse_json(about["rows"])]
    return TrialConfig.model_validate_json(about["config"]), rows


def _named(counts: dict[str, int]) -> str:
    shown = ", ".join(
        f"{count:,} of {trial_id}" for trial_id, count in list(counts.items())[:NAMED]
    )
    more = len(counts) - NAMED
    return shown + (f" and of {more:,} more" if more > 0 else "")
