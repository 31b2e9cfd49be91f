"""What a user sees while a study runs: a line a trial that ended, and one that lives."""

from collections import Counter
from statistics import fmean
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nnclr_study.printable import one_line
from nnclr_study.study.budget import Spent
from nnclr_study.study.configurations import most_trials
from nnclr_study.study.plan import Trial, condition_label
from nnclr_study.study.rows import TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import Study

COLOURS = {"finished": "green", "stopped": "yellow", "failed": "red"}


class Progress:
    """Counts trials and epochs; draws its living line only on a terminal.

    Args:
        console: where to.
        study: the study.
        folder: its run folder.
        todo: trials known to come; None: as many as a search's budget and its space allow.
    """

    def __init__(
        self, console: Console, study: Study, folder: RunFolder, todo: list[Trial] | None
    ) -> None:
        self._console = console
        self._study = study
        planned = folder.planned(study)
        known = {trial.id: trial for trial in planned}
        coming = {trial.id for trial in todo or []}
        ended = [row for t, row in folder.trials(planned).items() if t not in coming]
        self._counts = Counter(row.status for row in ended)
        self._planned = most_trials(study) if todo is None else len(ended) + len(todo)
        self._trials: dict[str, Trial] = {trial.id: trial for trial in todo or []}
        self._running: set[str] = set()
        recorded = folder.epoch_seconds(planned)
        self._epochs = {trial_id: len(recorded.get(trial_id, [])) for trial_id in self._trials}
        self._done = 0
        """Epochs, since this call of `run` began."""
        self._left = sum(t.config.epochs - self._epochs[t.id] for t in self._trials.values())
        self._before = len(ended)
        self._values: dict[str, list[float]] = {}
        self._gpu_hours = sum(row.gpu_seconds for row in ended) / 3600
        for row in ended:
            self._compare(row, known[row.trial_id])
        self._begun: float | None = None
        self._ends_at: float | None = None
        self._waits = False
        self._live = Live(self, console=console, auto_refresh=True, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line among those of the trials."""
        self._console.print(text, soft_wrap=True)

    def waits(self, waits: bool) -> None:
        """Show in the living line that trials wait for what others hold, or no longer."""
        self._waits = waits

    def planned(self, trial: Trial, epochs: int) -> None:
        """Note a trial that is about to begin, with the epochs it has done."""
        if trial.id not in self._trials:
            self._trials[trial.id] = trial
            self._epochs[trial.id] = epochs
            self._left += trial.config.epochs - epochs

    def started(self, trial_id: str) -> None:
        """Note that a trial runs."""
        self._running.add(trial_id)
        self._begun = self._begun or monotonic()

    def epoch_done(self, trial_id: str, epochs: int) -> None:
        """Note how far a trial is, and foresee the end from the pace so far."""
        self._reach(trial_id, epochs)
        if self._begun is not None and self._done > 0:
            now = monotonic()
            self._ends_at = now + (now - self._begun) * self._epochs_left() / self._done

    def ended(self, row: TrialRow, spent: Spent) -> None:
        """Print a trial's line."""
        trial = self._trials[row.trial_id]
        self._running.discard(row.trial_id)
        self._reach(row.trial_id, trial.config.epochs)
        self._counts[row.status] += 1
        self._gpu_hours = spent.gpu_hours
        self._compare(row, trial)
        label = f"{condition_label(trial.condition)}, seed {row.seed}"
        if row.status == "finished":
            assert row.val_probe_top1 is not None
            said = (
                f"{label:<34}  val {row.val_probe_top1:6.1%}"
                f"  test {row.test_probe_top1:6.1%}  {show_seconds(row.seconds)}"
            )
        elif row.status == "stopped":
            said = f"{label:<34}  after epoch {row.epochs} of {trial.config.epochs}"
        else:
            said = f"{label}: {one_line(row.error or '')}"
        line = Text.assemble((f"{row.status:<8}", COLOURS[row.status]), f"  {said}")
        self._console.print(line, soft_wrap=True)

    def __rich__(self) -> Text:
        """Return what lives below: how far the study is and, once a trial has finished, the best.

        Two lines, as a terminal of 80 columns has no room for both in one.
        """
        time_left = "waiting" if self._waits else "starting"
        if self._ends_at is not None and not self._waits:
            time_left = f"{show_seconds(max(0.0, self._ends_at - monotonic()))} left"
        of = f" of {self._planned}" if self._planned else ""
        counts = self._counts
        parts = [f"{counts['finished']}{of} trials finished", f"{len(self._running)} running"]
        if counts["stopped"]:
            parts.append(f"{counts['stopped']} stopped")
        parts += [f"{counts['failed']} failed", time_left]
        below = [self._best()] if self._values else []
        if self._gpu_hours or self._study.budget.gpu_hours:
            limit = self._study.budget.gpu_hours
            below.append(f"{self._gpu_hours:.1f}{f' of {limit:g}' if limit else ''} GPU-hours")
        text = Text.assemble((f"{self._study.name}  ", "bold"), "  ".join(parts))
        if below:
            text.append("\n" + "  ".join(below))
        text.no_wrap = True
        return text

    def _reach(self, trial_id: str, epochs: int) -> None:
        more = epochs - self._epochs[trial_id]
        self._epochs[trial_id] = epochs
        self._done += more
        self._left -= more

    def _compare(self, row: TrialRow, trial: Trial) -> None:
        if row.val_probe_top1 is not None:
            self._values.setdefault(condition_label(trial.condition), []).append(
                row.val_probe_top1
            )

    def _best(self) -> str:
        label, values = max(self._values.items(), key=lambda item: fmean(item[1]))
        return f"best so far (interim) {label}: {fmean(values):.1%}, n = {len(values)}"

    def _epochs_left(self) -> int:
        """Return the epochs to come; trials of a search that are not known yet are as the last."""
        unknown = (self._planned or 0) - self._before - len(self._trials)
        return self._left + max(0, unknown) * next(reversed(self._trials.values())).config.epochs


def show_seconds(seconds: float) -> str:
    """Return a duration as a reader sees it: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
