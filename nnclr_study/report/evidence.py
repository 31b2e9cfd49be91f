"""Published evidence: a run's tables as CSV files, from which its page is built again.

A folder of `reports/` holds study.toml, trials.csv, epochs.csv and environment.json as
`build_report` writes them: all that a page needs, and nothing that is large.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnclr_study.errors import RunFolderError
from nnclr_study.report.load import Tables, load, tables_of
from nnclr_study.study.plan import Trial, plan_trials, suggested_trial
from nnclr_study.study.rows import EpochRow, Session, TrialRow
from nnclr_study.study.run_folder import RunFolder, numbered
from nnclr_study.study.search import Value
from nnclr_study.study.spec import Study, load_study

NOT_OVER = ("running", "interrupted", "waiting")


def load_any(path: Path) -> Tables:
    """Read a run folder, or the published evidence of one.

    Raises:
        RunFolderError: it is neither, or a row is not one of ours.
    """
    folder = RunFolder.open(path)
    # A page that was built into its own run folder makes no evidence of it.
    if (path / "sessions.jsonl").is_file() or not (path / "trials.csv").is_file():
        return load(folder)
    study = load_study(folder.study_file)
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
    return tables_of(study, path, planned, ended, epochs, sessions, is_run=False)


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
        by_cell = {
            _cell(trial.condition, trial.config.seed): trial for trial in plan_trials(study)
        }
        found = [
            by_cell.pop(_cell({k: _value(line[k]) for k in study.knobs}, int(line["seed"])))
            for line in lines
        ]
    pairs = zip(found, lines, strict=True)
    return [replace(trial, id=line["trial_id"]) for trial, line in pairs]


def _cell(condition: Mapping[str, Value], seed: int) -> tuple[Any, ...]:
    return (*condition.values(), seed)


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
