"""The run folder: rows appended by one writer, read by anybody.

study.toml      the study file, word for word
suggestions.jsonl  one line a trial that a search began
sessions.jsonl  one line a call of `run`
epochs.jsonl    one line an epoch of a trial
trials.jsonl    one line a trial that ended; the last line of a trial counts
evaluations.jsonl  one line a protocol of `evaluate`
checkpoints/    one file a trial: its last epoch
gallery/        two files a trial: what its queue retrieves at the end
optuna.journal  every trial as optuna-dashboard shows it
tensorboard/    every trial as TensorBoard shows it
wandb/          Weights & Biases' own files, where `run` was asked for it
ray/            Ray's own files, of use to Ray alone
report/         the page, built from the rows
lock            held while a `run` or `evaluate` is at work
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from nnclr_study.errors import RunFolderError, RunFolderWarning, StudyFileError, writing
from nnclr_study.study import lines
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.files import check_subfolder, read_bytes, write_whole
from nnclr_study.study.lock import FolderLock, owner
from nnclr_study.study.plan import Trial, named, plan_trials, suggested_trial
from nnclr_study.study.progress import each_config_once
from nnclr_study.study.rows import EpochRow, EvaluationRow, Session, Suggestion, TrialRow
from nnclr_study.study.spec import MAX_BYTES, Study, decoded, incomparable, parse_study

EXPORTED_WEIGHTS = "encoder.safetensors"
"""The file of an export that holds the encoder's weights."""


class RunFolder:
    """The record of one study.

    Raises:
        RunFolderError: from `open` where there is no run folder, from `create`, `lock` and
            `keep` where it cannot be written, from `lock` where another `run` holds it, from
            the readers where a file cannot be read. A line that is not one of ours is set aside
            with a `RunFolderWarning`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study_file = path / "study.toml"
        self.report = path / "report"
        self.ray = path / "ray"
        self.checkpoints = path / "checkpoints"
        self.gallery = path / "gallery"
        self.optuna = path / "optuna.journal"
        self.tensorboard = path / "tensorboard"
        self.guards: list[Callable[[], None]] = []
        """Called before a row is added; each raises where this process may no longer write."""
        self._kept: dict[str, lines.Kept] = {}
        self._text: str | None = None

    @classmethod
    def look(cls, path: Path) -> Self:
        """Open a run folder, or published evidence, of which the study alone can be read here."""
        folder = cls(path)
        if not folder.study_file.is_file():
            raise RunFolderError(
                f"{path} is no run folder: it holds no study.toml; "
                "give the folder that `run` named, such as runs/quickstart"
            )
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing run folder for reading."""
        folder = cls.look(path)
        if is_evidence(path):
            raise RunFolderError(
                f"{path} is published evidence and no run folder; `nnclr-study restore {path}` "
                "makes one of it"
            )
        return folder

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open a run folder for writing, made where missing."""
        with writing(path, "--storage"):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def keep(self, study: Study) -> Self:
        """Make this the record of a study file; its writer's alone, like all that writes.

        Seeds and conditions may change from call to call, not what all trials share.

        Raises:
            RunFolderError: trials that finished could not stand beside the new ones.
        """
        if self.study_file.is_file():
            old = self.study()
            finished = [row for row in self.trials().values() if row.status != "failed"]
            # A search goes on with what it began, whatever became of it.
            held = len(self.suggestions() if old.search else finished)
            # The record itself may have been edited: what its trials were is then in their rows.
            edited = old.text == study.text
            differences = _trained_otherwise(finished, study) if edited else []
            differences = differences or incomparable(old, study)
            if held and differences:
                way_out = "" if edited else f" ({self.study_file} is the old file)"
                raise RunFolderError(
                    f"{self.path} holds {held} {'begun' if old.search else 'finished'} trial(s) "
                    "that the study file's new ones could not be compared with: "
                    f"{'; '.join(differences)}; give the study another name, or take the change "
                    f"back{way_out}"
                )
        with writing(self.path, "--storage"):
            write_whole(self.path, self.study_file.name, study.text)
        self._text = study.text
        return self

    def study(self) -> Study:
        """Return the study that this folder records."""
        try:
            content = read_bytes(self.path, self.study_file.name, MAX_BYTES)
        except OSError as error:
            raise StudyFileError(self.study_file, [f"cannot be read: {error.strerror}"]) from None
        return parse_study(decoded(content, self.study_file), self.study_file)

    def planned(self, study: Study | None = None) -> list[Trial]:
        """Return every trial known of: all of a grid's, and those that a search has begun.

        A config that a search of an earlier version trained more than once is there once.
        `study` stands for the recorded one where that has been read already.
        """
        study = study or self.study()
        if study.search is None:
            return plan_trials(study)
        trials, foreign = {}, []
        for row in self.suggestions():
            try:
                trial = suggested_trial(study, row.number, row.params)
            except ValidationError:
                foreign.append(row.trial_id)
            else:
                trials[row.trial_id] = replace(trial, id=row.trial_id)
        if foreign:
            said = f"{self.path / 'suggestions.jsonl'} has {len(foreign)} that are no trials of "
            said += f"{self.study_file}, as {foreign[0]}: set aside; the rest is used"
            warnings.warn(RunFolderWarning(said), stacklevel=2)
        found = list(trials.values())
        if len({trial.config for trial in found}) < len(found):
            suggested, found = len(found), each_config_once(found, self.trials(found))
            said = f"{self.path / 'suggestions.jsonl'} has {suggested - len(found)} that repeat "
            said += "the configuration of another trial, by an earlier version: each counts once"
            warnings.warn(RunFolderWarning(said), stacklevel=2)
        return found

    def trial(self, begins: str) -> Trial:
        """Return the one known trial whose id begins so.

        Raises:
            UsageError: none does, or several.
        """
        return named(self.planned(), begins, f"status {self.path} --json")

    def todo(self, study: Study, retry_failed: bool = False) -> list[Trial]:
        """Return the known trials that have not ended, and on request those that failed."""
        planned = self.planned(study)
        ended = self.trials(planned)
        kept = {"finished", "stopped"} if retry_failed else {"finished", "stopped", "failed"}
        return [
            trial
            for trial in planned
            if trial.id not in ended or ended[trial.id].status not in kept
        ]

    def check_subfolders(self) -> None:
        """Refuse a run folder of which a part that is written to lies elsewhere.

        Raises:
            RunFolderError: a subfolder is a symbolic link or a file.
        """
        for name in ("checkpoints", "gallery", "ray", "report", "tensorboard", "wandb"):
            check_subfolder(self.path, name)

    def checkpoint(self, trial_id: str) -> Path:
        """Return the file that holds a trial's last epoch."""
        return checkpoint_file(self.checkpoints, trial_id)

    @contextmanager
    def lock(self, command: str = "run") -> Iterator[None]:
        """Hold the folder as its one writer; a lock left by a dead process does not count.

        Rows that somebody deletes meanwhile are written again.
        """
        with FolderLock(self.path, command) as held:
            self.guards = [held.check]
            self.remember()
            try:
                yield
            except Exception:
                held.check()  # a folder that is gone is reported as that, whatever came of it
                raise
            finally:
                self.guards = []
                with suppress(RunFolderError):
                    held.check()
                    self.mend()
                self._kept = {}

    def is_running(self) -> bool:
        """Tell whether a `run` is at work on the folder, and not an `evaluate`."""
        by = owner(self.path)
        return by is not None and not by.startswith("`evaluate`")

    def remember(self) -> None:
        """Keep the rows in memory from now on, so that `mend` can write them again."""
        for kind in ("suggestions", "sessions", "epochs", "trials", "evaluations"):
            name = f"{kind}.jsonl"
            self._kept.setdefault(name, lines.Kept(self.path / name))

    def mend(self) -> None:
        """Write rows and the study file again that were deleted since `remember` was called."""
        for kept in self._kept.values():
            kept.mend()
        if self._kept and self._text is not None and not self.study_file.exists():
            with writing(self.path):
                write_whole(self.path, self.study_file.name, self._text)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        for guard in self.guards:
            guard()
        if name in self._kept:
            self._kept[name].append(row)
        else:
            lines.append(self.path / name, row)

    def append_session(self, session: Session) -> int:
        """Record a call of `run`; return its number, from 0."""
        number = lines.count(self.path / "sessions.jsonl")
        # Where that file was deleted, rows of trials still name earlier calls.
        for row in lines.read(self.path / "trials.jsonl", TrialRow):
            number = max(number, row.session + 1)
        self._append("sessions.jsonl", session.model_dump(mode="json") | {"number": number})
        return number

    def append_suggestion(self, row: Suggestion) -> None:
        """Record a trial of a search before it begins."""
        self._append("suggestions.jsonl", row.model_dump())

    def suggestions(self) -> list[Suggestion]:
        """Return every trial that a search began, the first one first."""
        return list(lines.read(self.path / "suggestions.jsonl", Suggestion))

    def append_epoch(self, trial_id: str, row: EpochRow) -> None:
        """Record one epoch of a trial."""
        self._append("epochs.jsonl", {"trial_id": trial_id} | row.model_dump())

    def append_trial(self, row: TrialRow) -> None:
        """Record what became of a trial."""
        self._append("trials.jsonl", row.model_dump(mode="json"))

    def append_evaluation(self, row: EvaluationRow) -> None:
        """Record what a protocol said of a trial."""
        self._append("evaluations.jsonl", row.model_dump(mode="json"))

    def evaluations(self) -> dict[tuple[str, str, int], EvaluationRow]:
        """Return the last row of every trial id, protocol and epoch."""
        rows = lines.read(self.path / "evaluations.jsonl", EvaluationRow)
        return {(row.trial_id, row.protocol, row.epoch): row for row in rows}

    def sessions(self) -> list[Session]:
        """Return every call of `run`, the first one first."""
        return numbered(lines.read(self.path / "sessions.jsonl", Session))

    def epochs(self, planned: Iterable[Trial] | None = None) -> dict[str, list[EpochRow]]:
        """Return the epochs of every trial, or of the planned ones, in order."""
        trials: dict[str, dict[int, EpochRow]] = {}
        for trial_id, row in self._epochs(planned):
            trials.setdefault(trial_id, {})[row.epoch] = row
        return {trial_id: [rows[e] for e in sorted(rows)] for trial_id, rows in trials.items()}

    def epoch_seconds(self, planned: Iterable[Trial] | None = None) -> dict[str, dict[int, float]]:
        """Return how long every recorded epoch of every trial, or of the planned ones, took."""
        trials: dict[str, dict[int, float]] = {}
        for trial_id, row in self._epochs(planned):
            trials.setdefault(trial_id, {})[row.epoch] = row.seconds
        return trials

    def _epochs(self, planned: Iterable[Trial] | None) -> Iterator[tuple[str, EpochRow]]:
        lengths = None if planned is None else {t.id: t.config.epochs for t in planned}

        def parse(line: dict[str, Any]) -> tuple[str, EpochRow]:
            trial_id, row = str(line["trial_id"]), lines.known(EpochRow, line)
            if lengths and row.epoch > lengths.get(trial_id, row.epoch):
                raise ValueError(f"epoch: {row.epoch} of a trial of {lengths[trial_id]} epochs")
            return trial_id, row

        fields = {"trial_id", *EpochRow.model_fields}
        return lines.parsed(self.path / "epochs.jsonl", parse, fields, lengths)

    def trials(self, planned: Iterable[Trial] | None = None) -> dict[str, TrialRow]:
        """Return the last row of every trial, or of every planned one, that ended."""
        lengths = None if planned is None else {t.id: t.config.epochs for t in planned}

        def parse(line: dict[str, Any]) -> TrialRow:
            row = lines.known(TrialRow, line)
            if lengths and row.epochs > lengths.get(row.trial_id, row.epochs):
                raise ValueError(
                    f"epochs: {row.epochs} of a trial of {lengths[row.trial_id]} epochs"
                )
            return row

        rows = lines.parsed(self.path / "trials.jsonl", parse, TrialRow.model_fields, lengths)
        return {row.trial_id: row for row in rows}


def checkpoint_file(checkpoints: Path, trial_id: str) -> Path:
    """Return the file of a folder of checkpoints that holds a trial's last epoch."""
    return checkpoints / f"{trial_id}.safetensors"


def is_export(path: Path) -> bool:
    """Tell whether a folder is one that `export` began to fill; it may be only half of one."""
    return (path / EXPORTED_WEIGHTS).is_file()


def is_evidence(path: Path) -> bool:
    """Tell whether a folder holds what `report` writes of a run, and no run."""
    # A page that was built into its own run folder makes no evidence of it.
    return (path / "trials.csv").is_file() and not (path / "sessions.jsonl").is_file()


def _trained_otherwise(rows: Iterable[TrialRow], study: Study) -> list[str]:
    """Return how rows' trials differ from a study's in what all of these share."""
    for row in rows:
        shared = {k: v for k, v in row.config.items() if k not in {*study.knobs, "seed"}}
        varied = {knob: row.config.get(knob) for knob in study.knobs}
        try:
            now = TrialConfig(**study.fixed | varied)  # type: ignore[arg-type]
        except ValidationError:
            continue  # a condition that the study no longer has
        found = [
            f"{knob} was {was!r}, and is now {getattr(now, knob)!r}"
            for knob, was in shared.items()
            if was != getattr(now, knob, was)
        ]
        if found:
            return found
    return []


def numbered(sessions: Iterable[Session]) -> list[Session]:
    """Return sessions each with a number; those of older versions are counted."""
    return [
        one if "number" in one.model_fields_set else one.model_copy(update={"number": place})
        for place, one in enumerate(sessions)
    ]
