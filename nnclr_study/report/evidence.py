"""Published evidence: a run's tables as CSV files, from which its page is built again.

A folder of `reports/` holds study.toml, trials.csv, epochs.csv and environment.json as
`build_report` writes them: all that a page needs, all that a study needs to go on after the
trials that ended, and nothing that is large.
"""

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from nnclr_study.errors import RunFolderError
from nnclr_study.report.load import Tables, load, tables_of
from nnclr_study.study.plan import Trial, plan_trials, suggested_trial
from nnclr_study.study.progress import each_config_once
from nnclr_study.study.rows import EpochRow, Session, Suggestion, TrialRow
from nnclr_study.study.run_folder import RunFolder, is_evidence, numbered
from nnclr_study.study.search import Value
from nnclr_study.study.spec import Study

NOT_OVER = ("running", "interrupted", "waiting")


@dataclass(frozen=True)
class _Evidence:
    """What the files say, as a run folder would."""

    study: Study
    planned: list[Trial]
    ended: dict[str, TrialRow]
    epochs: dict[str, list[EpochRow]]
    sessions: list[Session]


def load_any(path: Path) -> Tables:
    """Read a run folder, or the published evidence of one.

    Raises:
        RunFolderError: it is neither, or a row is not one of ours.
    """
    if not is_evidence(path):
        return load(RunFolder.open(path))
    read = _read(path)
    return tables_of(
        read.study, path, read.planned, read.ended, read.epochs, read.sessions, is_run=False
    )


def restore(path: Path, storage: Path) -> RunFolder:
    """Make the run folder of published evidence, `storage` / NAME, for `run` to go on with.

    It holds what ended. A trial that had only begun is there without its epochs, as its
    checkpoint is not published: it is trained from the first one.

    Raises:
        RunFolderError: it is no evidence, a row is not one of ours, there is a folder of that
            name already, or none can be written.
    """
    if not is_evidence(path):
        raise RunFolderError(
            f"{path} is no published evidence, which holds study.toml, trials.csv, epochs.csv and "
            "environment.json; give a folder that `report RUN -o` wrote, as reports/quickstart"
        )
    read = _read(path)
    place = storage / read.study.name
    if place.exists():
        raise RunFolderError(
            f"{place} is there already: `run` goes on with it; move it away, or choose another "
            "folder with --storage"
        )
    part = RunFolder.create(storage / f".{read.study.name}.part-{uuid4().hex}")
    try:
        _write(read, part.keep(read.study))
        part.path.rename(place)
    finally:
        shutil.rmtree(part.path, ignore_errors=True)
    return RunFolder.open(place)


def _write(read: _Evidence, folder: RunFolder) -> None:
    numbers = {session.number: folder.append_session(session) for session in read.sessions}
    # A grid's trials take the ids that its study gives them today.
    ids = {} if read.study.search else {_cell(t): t.id for t in plan_trials(read.study)}
    for place, trial in enumerate(read.planned):
        now = ids.get(_cell(trial), trial.id)
        if read.study.search:
            folder.append_suggestion(
                Suggestion(trial_id=now, number=place, params=trial.condition)
            )
        if trial.id in read.ended:
            row = read.ended[trial.id]
            if row.session not in numbers:
                raise RunFolderError(
                    f"trials.csv has a trial of session {row.session}, which environment.json "
                    "does not tell of; take both from the same folder"
                )
            for epoch in read.epochs.get(trial.id, []):
                folder.append_epoch(now, epoch)
            known = {"trial_id": now, "session": numbers[row.session]}
            folder.append_trial(row.model_copy(update=known))


def _read(path: Path) -> _Evidence:
    study = RunFolder.look(path).study()
    try:
        lines = _lines(path / "trials.csv")
        planned = _planned(study, lines)
        ended = {
            trial.id: _trial_row(trial, line)
            for trial, line in zip(planned, lines, strict=True)
            if line["status"] not in NOT_OVER
        }
        epochs: dict[str, list[EpochRow]] = {}
        for line in _lines(path / "epochs.csv"):
            told = {name: line[name] for name in EpochRow.model_fields if line.get(name)}
            epochs.setdefault(line["trial_id"], []).append(EpochRow(**told))
        told = json.loads((path / "environment.json").read_text(encoding="utf-8"))
        sessions = numbered(Session(**session) for session in told)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunFolderError(
            f"{path} holds trials.csv, and yet is no published evidence: {error}; it needs "
            "study.toml, trials.csv, epochs.csv and environment.json as `report` writes them"
        ) from None
    if study.search:
        planned = each_config_once(planned, ended)
    return _Evidence(study, planned, ended, epochs, sessions)


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    return [
        {name: cell.removeprefix("'") for name, cell in zip(header, line, strict=True)}
        for line in lines
    ]


def _planned(study: Study, lines: list[dict[str, str]]) -> list[Trial]:
    """Return the trials of the lines, by their knobs: ids change with the software, knobs not."""
    if study.search:
        params = [{k: _value(line[k]) for k in study.knobs if line[k]} for line in lines]
        found = [suggested_trial(study, number, each) for number, each in enumerate(params)]
    else:
        by_cell = {_cell(trial): trial for trial in plan_trials(study)}
        found = []
        for line in lines:
            cell = (*(_value(line[k]) for k in study.knobs), int(line["seed"]))
            if cell not in by_cell:
                raise ValueError(
                    f"trials.csv has {line['trial_id']}, whose condition and seed study.toml does "
                    "not name, or has them twice"
                )
            found.append(by_cell.pop(cell))
    pairs = zip(found, lines, strict=True)
    return [replace(trial, id=line["trial_id"]) for trial, line in pairs]


def _cell(trial: Trial) -> tuple[Any, ...]:
    return (*trial.condition.values(), trial.config.seed)


def _value(text: str) -> Value:
    """Return a knob's value from its cell."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def _trial_row(trial: Trial, line: dict[str, str]) -> TrialRow:
    names = [name for name in TrialRow.model_fields if name not in ("config", "epochs")]
    told: dict[str, Any] = {name: line[name] for name in names if line.get(name)}
    empty = {"val_probe_top1": None, "test_probe_top1": None, "seconds": 0.0}
    config = trial.config.model_dump()
    return TrialRow(**{**empty, **told, "config": config, "epochs": int(line["epochs_done"])})
