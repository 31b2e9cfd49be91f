"""The one writer of the run folder: it hears of every epoch and every end of a trial."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ray.tune import Callback

from nnclr_study.study.plan import Trial
from nnclr_study.study.rows import EpochRow, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.sweep.terminal import Progress
from nnclr_study.sweep.trial import reason


class Recorder(Callback):  # type: ignore[misc]
    """Turns what Tune says into rows; a row that is there already is not written again."""

    def __init__(
        self, folder: RunFolder, trials: Mapping[str, Trial], session: int, progress: Progress
    ) -> None:
        self._folder = folder
        self._trials = trials
        self._session = session
        self._progress = progress
        self._epochs = {t: rows for t, rows in folder.epochs().items() if t in trials}
        self._last: dict[str, dict[str, Any]] = {}

    def __reduce__(self) -> Any:
        # Tune pickles its callbacks for a kind of restore that we do not use.
        return Callback, ()

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Note that a trial is on its way."""
        self._progress.started(trial.config["trial_id"])

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Record an epoch, or remember why there will be no more."""
        trial_id = trial.config["trial_id"]
        self._last[trial_id] = self._last.get(trial_id, {}) | result
        if "failed" in result:
            return
        row = EpochRow(**result["row"])
        rows = self._epochs.setdefault(trial_id, [])
        if row.epoch == len(rows) + 1:
            self._folder.append_epoch(trial_id, row)
            rows.append(row)
        self._progress.epoch_done(trial_id, len(rows))

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Record that a trial ran to its end, if it ran what it was asked to."""
        trial_id = trial.config["trial_id"]
        asked, rows = self._trials[trial_id].config, self._epochs.get(trial_id, [])
        last = self._last.get(trial_id, {})
        ran = last.get("ran", {})
        differs = {k: v for k, v in asked.model_dump().items() if ran.get(k) != v}
        if "failed" in last:
            self._ended(trial_id, last["failed"])
        elif differs:
            ran_with = {knob: ran.get(knob) for knob in differs}
            self._ended(trial_id, f"asked to run {differs}, but ran {ran_with}")
        elif len(rows) != asked.epochs:
            self._ended(trial_id, f"ended after epoch {len(rows)} of {asked.epochs}")
        else:
            self._ended(trial_id, None)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Record that a trial failed, and why."""
        self._ended(trial.config["trial_id"], reason(trial.get_pickled_error()))

    def _ended(self, trial_id: str, error: str | None) -> None:
        rows, last = self._epochs.get(trial_id, []), self._last.get(trial_id, {})
        config = self._trials[trial_id].config
        finished = error is None
        row = TrialRow(
            trial_id=trial_id,
            status="finished" if finished else "failed",
            seed=config.seed,
            config=config.model_dump(),
            epochs=len(rows),
            val_probe_top1=rows[-1].val_probe_top1 if finished else None,
            test_probe_top1=rows[-1].test_probe_top1 if finished else None,
            seconds=sum(row.seconds for row in rows),
            error=error,
            host=last.get("host"),
            device=last.get("device"),
            session=self._session,
            ended_at=datetime.now(UTC),
        )
        self._folder.append_trial(row)
        self._progress.ended(row)
