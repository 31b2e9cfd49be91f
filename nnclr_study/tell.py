"""What `plan` prints of a study and of what it will take."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Protocol

from rich.table import Table

from nnclr_study.aligned import aligned
from nnclr_study.report.blocks import MIN_PAIRS
from nnclr_study.report.noise import Resolution
from nnclr_study.report.wording import points
from nnclr_study.study.configurations import LIMIT, size
from nnclr_study.study.forecast import Forecast
from nnclr_study.study.plan import Trial, condition_label, plan_trials, show_value
from nnclr_study.study.spec import Study

MOST_LINES = 1_000
"""Trials that `plan` prints."""
LAST_LINES = 10
"""Of these, how many are the study's last ones where it has more."""


class Packed(Protocol):
    """How trials lie on a cluster, as `sweep.resources.Placement`, which knows Ray."""

    @property
    def runner(self) -> str: ...  # noqa: D102
    @property
    def workers(self) -> int: ...  # noqa: D102
    @property
    def gpus_per_worker(self) -> float: ...  # noqa: D102
    @property
    def max_concurrent(self) -> int: ...  # noqa: D102


def trials_table(trials: Sequence[Trial]) -> str:
    """Return one line per trial; of more than `MOST_LINES`, the first and the last ones."""
    left_out = max(0, len(trials) - MOST_LINES)
    shown = [*trials[: MOST_LINES - LAST_LINES], *trials[-LAST_LINES:]] if left_out else trials
    lines = [("seed", "epochs", "steps", "trial", "condition")]
    for trial in shown:
        config = trial.config
        steps = f"{config.epochs * config.steps_per_epoch:,}"
        label = condition_label(trial.condition)
        lines.append((str(config.seed), str(config.epochs), steps, trial.id, label))
    table = aligned(lines, right=("epochs", "steps"))
    if not left_out:
        return table
    printed = table.splitlines(keepends=True)
    printed.insert(-LAST_LINES, f"... {left_out:,} more trials; --json prints them all\n")
    return "".join(printed)


def space_table(study: Study) -> Table:
    """Return a line a searched knob."""
    assert study.search is not None
    table = Table(box=None, pad_edge=False)
    for name in ("searched", "values", "where"):
        table.add_column(name)
    for knob, axis in study.search.space.items():
        if axis.choices:
            values = ", ".join(map(show_value, axis.choices))
        else:
            spaced = " (log)" if axis.log else f" by {axis.step:g}" if axis.step else ""
            values = f"{show_value(axis.least)} to {show_value(axis.most)}{spaced}"
        where = ", ".join(f"{other} = {show_value(value)}" for other, value in axis.when.items())
        table.add_row(knob, values, where)
    return table


def headline(study: Study) -> str:
    """Return a study's size in a line."""
    if study.search is None:
        count, seeds = len(plan_trials(study)), len(study.seeds)
        return f"{count} trials: {count // seeds} conditions x {seeds} seeds"
    table, limits = study.search.table, study.budget.model_dump(exclude={"max_failures"})
    ends = " or ".join(f"{n:,g} {name.replace('_', '-')}" for name, n in limits.items() if n)
    there = size(study, min(study.budget.trials or LIMIT, LIMIT))
    held = f" or when all {there:,} configurations of its space have been trained" if there else ""
    return (
        f"a search for {' and '.join(table.objectives)}: sampler {table.sampler}, early stopping "
        f"{table.early_stopping}, ends after {ends}{held}"
    )


def forecast_lines(
    study: Study, coming: Forecast, placement: Packed | None, other: Sequence[str]
) -> Iterator[str]:
    """Yield a forecast line by line; `other`: in what the pace is that of other trials."""
    gpus = placement.gpus_per_worker * placement.workers if placement else 0
    at_once = placement.max_concurrent if placement else 1
    if placement is not None:
        times = ceil(coming.trials / at_once) if coming.trials else 0
        rounds = f", {times} {'round' if times == 1 else 'rounds'}" if times else ""
        yield (
            f"packing: {at_once} at a time{rounds}; a trial has {placement.workers} worker(s) "
            f"and {gpus:g} GPU(s), runner {placement.runner}"
        )
    if coming.trial_hours is None:
        way_out = "measure some steps with --measure, or give an earlier run with --like"
        yield f"time and disk: not known; {way_out}"
    else:
        low, high = coming.trial_hours
        whole = study.search and study.search.table.early_stopping != "none"
        yield f"time: {_time(low, high)} of trials{', were none stopped early' * bool(whole)}"
        if other:
            yield f"    at the pace of other trials: here {'; '.join(other)}"
        if placement is not None and coming.trials:
            lanes = min(at_once, coming.trials)
            yield f"    = {_time(low / lanes, high / lanes)} with {lanes} at a time"
            if gpus:
                yield f"    = {_span(low * gpus, high * gpus)} GPU-hours"
        if coming.disk_bytes is None:
            yield "disk: not known; no checkpoint is there to be measured"
    if coming.disk_bytes is not None:
        low, high = coming.disk_bytes
        yield f"disk: {_span(low / 1e9, high / 1e9)} GB of checkpoints"
    yield f"queue: at most {coming.queue_bytes / 1e6:,.1f} MB of each worker's memory"


def resolution_line(resolved: Resolution | None) -> str:
    """Return which differences a grid's seeds resolve."""
    if resolved is None:
        return f"resolves: nothing; verdicts need {MIN_PAIRS} seeds of two conditions or more"
    noise = resolved.noise
    return (
        f"resolves: differences to the baseline from {points(resolved.difference)} on (80 % "
        f"power, 5 %, Dunnett), if trials scatter as in {noise.source}: seed SD "
        f"{points(noise.seed_sd, 2)}, r = {noise.correlation:.2f} between conditions"
    )


def _time(low: float, high: float) -> str:
    return f"{_span(low, high)} hours" if high >= 1 else f"{_span(60 * low, 60 * high)} minutes"


def _span(low: float, high: float) -> str:
    shown = [f"{value:.2g}" if value < 10 else f"{value:,.0f}" for value in (low, high)]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)
