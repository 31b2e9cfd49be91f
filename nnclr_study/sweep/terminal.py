"""What a user sees while a study runs: a line a trial that ended, and one that lives."""

from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nnclr_study.study.plan import Trial, condition_label, plan_trials
from nnclr_study.study.rows import TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import Study


class Progress:
    """Counts trials and epochs; draws its living line only on a terminal."""

    def __init__(
        self, console: Console, study: Study, todo: Mapping[str, Trial], folder: RunFolder
    ) -> None:
        self._console = console
        self._name = study.name
        self._todo = todo
        ended = folder.trials()
        kept = [ended.get(t.id) for t in plan_trials(study) if t.id not in todo]
        self._finished, self._failed = (
            sum(row is not None and row.status == status for row in kept)
            for status in ("finished", "failed")
        )
        self._planned = len(kept) + len(todo)
        self._running: set[str] = set()
        recorded = folder.epochs()
        self._epochs = {trial_id: len(recorded.get(trial_id, [])) for trial_id in todo}
        self._epochs_before = sum(self._epochs.values())
        self._epochs_planned = sum(trial.config.epochs for trial in todo.values())
        self._begun: float | None = None
        self._ends_at: float | None = None
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

    def started(self, trial_id: str) -> None:
        """Note that a trial runs."""
        self._running.add(trial_id)
        self._begun = self._begun or monotonic()

    def epoch_done(self, trial_id: str, epochs: int) -> None:
        """Note how far a trial is, and foresee the end from the pace so far."""
        self._epochs[trial_id] = epochs
        done = sum(self._epochs.values()) - self._epochs_before
        if self._begun is not None and done > 0:
            left = self._epochs_planned - self._epochs_before - done
            now = monotonic()
            self._ends_at = now + (now - self._begun) * left / done

    def ended(self, row: TrialRow) -> None:
        """Print a trial's line."""
        self._running.discard(row.trial_id)
        self._epochs[row.trial_id] = self._todo[row.trial_id].config.epochs
        label = f"{condition_label(self._todo[row.trial_id].condition)}, seed {row.seed}"
        if row.status == "finished":
            self._finished += 1
            assert row.val_probe_top1 is not None
            line = Text.assemble(
                ("finished", "green"),
                f"  {label:<34}  val {row.val_probe_top1:6.1%}"
                f"  test {row.test_probe_top1:6.1%}  {show_seconds(row.seconds)}",
            )
        else:
            self._failed += 1
            line = Text.assemble(("failed  ", "red"), f"  {label}: {row.error}")
        self._console.print(line, soft_wrap=True)

    def __rich__(self) -> Text:
        """Return the living line."""
        time_left = "starting"
        if self._ends_at is not None:
            time_left = f"{show_seconds(max(0.0, self._ends_at - monotonic()))} left"
        parts = [
            f"{self._finished} of {self._planned} trials finished",
            f"{len(self._running)} running",
            f"{self._failed} failed",
            time_left,
        ]
        return Text.assemble((f"{self._name}  ", "bold"), "  ".join(parts))


def show_seconds(seconds: float) -> str:
    """Return a duration as a reader sees it: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
