"""Published evidence: a run's tables as CSV files, from which its page is built again.

A folder of `reports/` holds study.toml, trials.csv, epochs.csv and environment.json as
`build_report` writes them: all that a page needs, all that a study needs to go on after the
trials that ended, and nothing that is large.
"""

import csv
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import TextIOWrapper
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from nnclr_study.errors import RunFolderError, RunFolderWarning, cut, reason, shown
from nnclr_study.report.load import Tables, load, tables_of
from nnclr_study.study.files import open_inside, parse_json, read_bytes
from nnclr_study.study.lines import LONGEST, usable
from nnclr_study.study.plan import Trial, plan_trials, suggested_trial
from nnclr_study.study.progress import each_config_once
from nnclr_study.study.rows import EpochRow, Session, Suggestion, TrialId, TrialRow
from nnclr_study.study.run_folder import RunFolder, is_evidence
from nnclr_study.study.search import Value
from nnclr_study.study.spec import Study

OUT_OF_BOUNDS = {
    *("greater_than_equal", "greater_than", "less_than_equal", "less_than", "finite_number"),
    *("int_parsing_size", "string_too_long", "too_long", "string_pattern_mismatch"),
    *("string_unicode", "timezone_aware", "value_error"),
}
"""Kinds of pydantic's errors of which a row is set aside: its values are of the right type. All
other errors say that the files are not as `report` writes them."""
_ID = TypeAdapter(TrialId)
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
            f"{path} is not published evidence: study.toml, trials.csv, epochs.csv and "
            "environment.json; give a folder that `report RUN -o` wrote, as reports/quickstart"
        )
    read = _read(path)
    place = storage / read.study.name
    if os.path.lexists(place):
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
    told = set(numbers)
    unknown = 0
    # A grid's trials take the ids that its study gives them today.
    ids = {} if read.study.search else {_cell(t): t.id for t in plan_trials(read.study)}
    for place, trial in enumerate(read.planned):
        now = ids.get(_cell(trial), trial.id)
        if read.study.search:
            folder.append_suggestion(Suggestion(trial_id=now, number=place, params=_params(trial)))
        row = read.ended.get(trial.id)
        if row is None:
            continue
        if row.session not in told:
            unknown += 1
            numbers.setdefault(row.session, 1 + max(numbers.values(), default=-1))
        for epoch in read.epochs.get(trial.id, []):
            folder.append_epoch(now, epoch)
        known = {"trial_id": now, "session": numbers[row.session]}
        folder.append_trial(row.model_copy(update=known))
    if unknown:
        warnings.warn(
            RunFolderWarning(
                f"environment.json has no usable entry for the session of {unknown:,} trial(s) of "
                "trials.csv: their results are restored, but not when their session began and "
                "with which software; take both files from the same folder to have all of it"
            ),
            stacklevel=2,
        )


def _params(trial: Trial) -> dict[str, int | float | str | bool]:
    """Return the searched knobs that apply to a trial."""
    return {knob: value for knob, value in trial.condition.items() if value is not None}


def _read(path: Path) -> _Evidence:
    study = RunFolder.look(path).study()
    try:
        planned, ended = [], {}
        for trial, row in _trials(study, path):
            planned.append(trial)
            if row is not None:
                ended[trial.id] = row
        epochs = _epochs(path, {trial.id: trial.config.epochs for trial in planned})
        sessions = _sessions(path)
    except (OSError, ValueError, KeyError, TypeError, csv.Error, _SpoiltError) as error:
        raise RunFolderError(
            f"{path} holds trials.csv but is not published evidence: {reason(error)}; it "
            "needs study.toml, trials.csv, epochs.csv and environment.json as `report` writes them"
        ) from None
    if study.search:
        planned = each_config_once(planned, ended)
    return _Evidence(study, planned, ended, epochs, sessions)


class _SpoiltError(Exception):
    """A row that `report` does not write, whatever its trial did."""


@contextmanager
def _bounds() -> Iterator[None]:
    """Let pass what is raised for values out of bounds, whose row alone is set aside."""
    try:
        yield
    except ValidationError as error:
        if all(problem["type"] in OUT_OF_BOUNDS for problem in error.errors()):
            raise
        raise _SpoiltError(reason(error)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise _SpoiltError(reason(error)) from None


def _lines(path: Path, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row of a CSV file by its columns, with the number of its last line."""
    with open_inside(path, name) as file, TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(iter(partial(text.readline, LONGEST), ""))
        header = _cells(reader) or []
        if "trial_id" not in header:
            raise ValueError(f"{name} has no column trial_id in its first line")
        while (cells := _cells(reader)) is not None:
            if not cells:
                continue  # an empty line
            if len(cells) != len(header):
                raise ValueError(
                    f"{name}, line {reader.line_num:,}, has {len(cells):,} cells, and its first "
                    f"line has {len(header):,}"
                )
            told = zip(header, cells, strict=True)
            yield reader.line_num, {column: cell.removeprefix("'") for column, cell in told}


def _cells(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next row of a CSV file, of cells as long as a line may be; None: it has ended."""
    usual = csv.field_size_limit(LONGEST)  # of the whole process
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(usual)


def _trials(study: Study, path: Path) -> Iterator[tuple[Trial, TrialRow | None]]:
    """Yield the trials of the rows, by their knobs: ids change with the software, knobs not."""
    by_cell = {} if study.search else {_cell(trial): trial for trial in plan_trials(study)}
    numbers = count()

    def parse(line: dict[str, str]) -> tuple[Trial, TrialRow | None]:
        with _bounds():
            if study.search:
                params = {k: _value(line[k]) for k in study.knobs if line[k]}
                trial = suggested_trial(study, next(numbers), params)
            else:
                cell = (*(_value(line[k]) for k in study.knobs), int(line["seed"]))
                if cell not in by_cell:
                    raise ValueError(
                        f"trials.csv has {cut(line['trial_id'], 60)}, whose condition and seed "
                        "study.toml does not name, or has them twice"
                    )
                trial = by_cell.pop(cell)
            trial = replace(trial, id=_ID.validate_python(line["trial_id"]))
            return trial, None if line["status"] in NOT_OVER else _trial_row(trial, line)

    return usable(path / "trials.csv", _lines(path, "trials.csv"), parse)


def _epochs(path: Path, lengths: dict[str, int]) -> dict[str, list[EpochRow]]:
    """Return the epochs of every trial in order; `lengths` are how many it is to have."""
    trials: dict[str, dict[int, EpochRow]] = {}

    def parse(line: dict[str, str]) -> tuple[str, EpochRow]:
        with _bounds():
            told: dict[str, Any] = {k: line[k] for k in EpochRow.model_fields if line.get(k)}
            trial_id, row = line["trial_id"], EpochRow(**told)
        if row.epoch > lengths.get(trial_id, 0):
            raise ValueError(f"epoch {row.epoch} of {shown(trial_id)}, which has fewer, or none")
        return trial_id, row

    for trial_id, row in usable(path / "epochs.csv", _lines(path, "epochs.csv"), parse):
        trials.setdefault(trial_id, {})[row.epoch] = row
    return {trial_id: [rows[e] for e in sorted(rows)] for trial_id, rows in trials.items()}


def _sessions(path: Path) -> list[Session]:
    """Return the calls of `run`."""
    told = parse_json(read_bytes(path, "environment.json"))
    if not isinstance(told, list):
        raise ValueError("environment.json is not a list")

    def parse(numbered: tuple[int, Any]) -> Session:
        with _bounds():
            place, session = numbered
            return Session(**{"number": place, **session})

    entries = enumerate(enumerate(told), start=1)
    return list(usable(path / "environment.json", entries, parse, "entry"))


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
    return TrialRow(**{**empty, **told, "config": config, "epochs": line["epochs_done"]})
