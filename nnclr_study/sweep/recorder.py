"""The one writer of the run folder: it hears of every epoch and every end of a trial."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from ray.tune import Callback

from nnclr_study.study.budget import Spent, spent
from nnclr_study.study.plan import Trial
from nnclr_study.study.rows import EpochRow, Session, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import Study
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.terminal import Progress
from nnclr_study.sweep.trackers import Tracker
from nnclr_study.sweep.trial import gave_up


class Recorder(Callback):  # type: ignore[misc]
    """Turns what Tune says into rows; a row that is there already is not written again.

    Args:
        study: the study.
        folder: its run folder, locked by the caller.
        again: ids of trials that have ended and are run again.
        session: this call of `run`.
        mirror: hears of everything that is recorded.
        progress: likewise.
        changed: called after a trial has ended.
        trackers: hear of what has been written.
    """

    def __init__(
        self,
        study: Study,
        folder: RunFolder,
        again: Iterable[str],
        session: Session,
        mirror: Mirror,
        progress: Progress,
        changed: Callable[[], None] = lambda: None,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self._study = study
        self._folder = folder
        folder.remember()
        self._session = session
        self._sessions = folder.sessions()
        self._mirror = mirror
        self._progress = progress
        self._changed = changed
        self._trackers = trackers
        self._trials: dict[str, Trial] = {}
        planned = folder.planned(study)
        self._epochs = {t: _unbroken(rows) for t, rows in folder.epochs(planned).items()}
        self._begun = monotonic()
        self._last: dict[str, dict[str, Any]] = {}
        self._started: dict[str, datetime] = {}
        self._stopped: set[str] = set()
        counted = {trial.id for trial in planned} - set(again)
        ended = [row for row in folder.trials(planned).values() if row.trial_id in counted]
        before = sum(row.seconds for t in counted for row in self._epochs.get(t, []))
        self._spent = spent(len(ended), ended, self._sessions[:-1], before)
        """By trials that have ended; the hours are those of earlier calls."""
        self.running: set[str] = set()
        """Ids of trials that have begun and not ended."""
        self._over: str | None = None

    def __reduce__(self) -> Any:
        # Tune pickles its callbacks for a kind of restore that we do not use.
        return Callback, ()

    def begin(self, trial: Trial) -> None:
        """Note a trial that Tune is about to start."""
        self._trials[trial.id] = trial
        self.running.add(trial.id)
        self._mirror.begin(trial)
        self._progress.planned(trial, len(self._epochs.get(trial.id, [])))

    def stops(self, trial_id: str, row: EpochRow) -> bool:
        """Return whether a search stops a trial at this epoch."""
        stop = self._mirror.epoch(trial_id, row)
        if stop:
            self._stopped.add(trial_id)
        return stop

    def spent(self) -> Spent:
        """Count what the study has taken until now, running trials included."""
        gpu_seconds = sum(self._gpu_seconds(trial_id) for trial_id in self.running)
        return Spent(
            trials=self._spent.trials + len(self.running),
            hours=self._spent.hours + (monotonic() - self._begun) / 3600,
            gpu_hours=self._spent.gpu_hours + gpu_seconds / 3600,
            errors=self._spent.errors,
        )

    def budget_reached(self) -> bool:
        """Return whether no further trial may begin, and say why the first time."""
        if self._over is None:
            self._over = self.spent().exhausts(self._study.budget)
            if self._over is not None:
                self._progress.say(self._over)
        return self._over is not None

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Note that a trial is on its way, or again after a retry."""
        self._started.setdefault(trial.config["trial_id"], self._now())
        self._progress.started(trial.config["trial_id"])

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Record an epoch, or remember why there will be no more."""
        trial_id = trial.config["trial_id"]
        if "stops" in result:
            raise result["stops"]
        self._last[trial_id] = self._last.get(trial_id, {}) | result
        if "failed" in result:
            return
        row = EpochRow.model_validate_json(result["row"])
        rows = self._epochs.setdefault(trial_id, [])
        if row.epoch == len(rows) + 1:
            self._folder.append_epoch(trial_id, row)
            rows.append(row)
            for tracker in self._trackers:
                tracker.epoch(self._trials[trial_id], row)
        self._progress.epoch_done(trial_id, len(rows))

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Record that a trial ran to its end, if it ran what it was asked to."""
        trial_id = trial.config["trial_id"]
        asked, rows = self._trials[trial_id].config, self._epochs.get(trial_id, [])
        last = self._last.get(trial_id, {})
        ran = json.loads(last.get("ran", "{}"))
        differs = {k: v for k, v in asked.model_dump(mode="json").items() if ran.get(k) != v}
        if "failed" in last:
            self._end(trial_id, last["failed"])
        elif differs:
            ran_with = {knob: ran.get(knob) for knob in differs}
            self._end(trial_id, f"asked to run {differs}, but ran {ran_with}")
        elif len(rows) != asked.epochs and trial_id not in self._stopped:
            self._end(trial_id, f"ended after epoch {len(rows)} of {asked.epochs}")
        else:
            self._end(trial_id, None)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Record that a trial failed, and why."""
        self._end(trial.config["trial_id"], gave_up(trial))

    def _end(self, trial_id: str, error: str | None) -> None:
        rows, last = self._epochs.get(trial_id, []), self._last.pop(trial_id, {})
        config = self._trials[trial_id].config
        stopped = trial_id in self._stopped
        finished = error is None and not stopped
        row = TrialRow(
            trial_id=trial_id,
            status="failed" if error is not None else "stopped" if stopped else "finished",
            seed=config.seed,
            config=config.model_dump(),
            epochs=len(rows),
            val_probe_top1=rows[-1].val_probe_top1 if finished else None,
            test_probe_top1=rows[-1].test_probe_top1 if finished else None,
            seconds=sum(row.seconds for row in rows),
            gpu_seconds=self._gpu_seconds(trial_id),
            peak_memory_bytes=last.get("peak_memory_bytes"),
            error=error,
            host=last.get("host"),
            device=last.get("device"),
            session=self._sessions[-1].number,
            started_at=self._started.get(trial_id),
            ended_at=self._now(),
        )
        self._folder.append_trial(row)
        self.running.discard(trial_id)
        self._spent = replace(
            self._spent,
            trials=self._spent.trials + 1,
            gpu_hours=self._spent.gpu_hours + row.gpu_seconds / 3600,
            errors=self._spent.errors + ([] if error is None else [error]),
        )
        self._mirror.end(row, rows[-1] if rows else None)
        for tracker in self._trackers:
            tracker.end(self._trials[trial_id], row)
        self._progress.ended(row, self.spent())
        self._changed()

    def _now(self) -> datetime:
        """Return the time by a clock that nobody sets: durations stay right."""
        return self._session.started_at + timedelta(seconds=monotonic() - self._begun)

    def _gpu_seconds(self, trial_id: str) -> float:
        seconds = sum(row.seconds for row in self._epochs.get(trial_id, []))
        return seconds * self._session.gpus_per_trial


def _unbroken(rows: list[EpochRow]) -> list[EpochRow]:
    """Return the epochs before the first that is missing: the trial will tell of it again."""
    return [row for place, row in enumerate(rows, start=1) if row.epoch == place]
