"""What a study has spent of its budget, counted from its rows."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from nnclr_study.study.configurations import exhausted
from nnclr_study.study.plan import Trial
from nnclr_study.study.rows import Session, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import BudgetTable, Study


@dataclass(frozen=True)
class Spent:
    """What a study has taken so far, over all calls of `run`."""

    trials: int
    """Begun."""
    hours: float
    gpu_hours: float
    errors: list[str]
    """Of every failed trial."""

    def exhausts(self, budget: BudgetTable) -> str | None:
        """Return which part of a budget is used up and the way out, or None."""
        for name in ("trials", "hours", "gpu_hours"):
            limit, used = getattr(budget, name), getattr(self, name)
            if limit is not None and used >= limit:
                shown = f"{used:,}" if name == "trials" else f"{used:.1f}"
                return (
                    f"budget reached: {shown} of {limit:,g} {name.replace('_', ' ')}; "
                    f"raise [budget] {name} in the study file to go on"
                )
        if len(self.errors) >= budget.max_failures:
            # Figures aside: memory that was short by 3 MB and by 4 is the same cause.
            kinds = [re.sub(r"\b0x[0-9a-f]+|\d+(?:[.,]\d+)*", "", error) for error in self.errors]
            kind, count = Counter(kinds).most_common(1)[0]
            if count >= budget.max_failures:
                return (
                    f"{count} trials failed with the same error, as many as [budget] "
                    f"max_failures allows: {self.errors[kinds.index(kind)]}; mend it and use "
                    "--retry-failed"
                )
        return None


def spent(
    begun: int,
    ended: Sequence[TrialRow],
    sessions: Sequence[Session],
    trained_seconds: float = 0.0,
) -> Spent:
    """Count what a study has taken; a call of `run` lasted until its last trial ended.

    In all they lasted no less than the `trained_seconds` of all epochs, as many trials at a time
    as there were at most: of a call that was killed before any trial ended nothing else tells. A
    clock that was set back does not give time back.
    """
    last: dict[int, datetime] = {}
    for row in ended:
        last[row.session] = max(row.ended_at, last.get(row.session, row.ended_at))
    lasted = (last[call.number] - call.started_at for call in sessions if call.number in last)
    at_once = max((call.max_concurrent for call in sessions), default=1)
    told = sum(max(0.0, span.total_seconds()) for span in lasted)
    return Spent(
        trials=begun,
        hours=max(told, trained_seconds / max(at_once, 1)) / 3600,
        gpu_hours=sum(row.gpu_seconds for row in ended) / 3600,
        errors=[row.error or "" for row in ended if row.status == "failed"],
    )


def spent_by(folder: RunFolder, study: Study, again: bool = False) -> Spent:
    """Count what a run folder's study has taken; `again`: but for trials that failed."""
    planned = folder.planned(study)
    rows, epochs = folder.trials(planned), folder.epoch_seconds(planned)
    return spent_of(study, planned, rows, epochs, folder.sessions(), again)


def allowed(
    folder: RunFolder, study: Study, todo: list[Trial], again: bool = False
) -> tuple[list[Trial], str | None]:
    """Return which of the trials to do may run, and if none may, why the budget is used up.

    Where no further trial may begin, those that had begun go on. A search whose space is exhausted
    has no further trial either.
    """
    if not todo:
        planned = folder.planned(study)
        if over := exhausted(study, planned, folder.trials(planned)):
            return todo, over
    found, budget = spent_by(folder, study, again), study.budget
    over = found.exhausts(budget)
    if over is not None and not found.exhausts(budget.model_copy(update={"trials": None})):
        epochs = folder.epoch_seconds(folder.planned(study))
        if begun := [trial for trial in todo if study.search or trial.id in epochs]:
            return begun, None
    return todo, over


def spent_of(
    study: Study,
    planned: Sequence[Trial],
    rows: Mapping[str, TrialRow],
    epochs: Mapping[str, Mapping[int, float]],
    sessions: Sequence[Session],
    again: bool = False,
) -> Spent:
    """Count what a study has taken whose rows have been read; `epochs`: their seconds."""
    known = [trial.id for trial in planned]
    counted = [t for t in known if t in rows and not (again and rows[t].status == "failed")]
    begun = set(counted if study.search is None else known)
    begun |= {t for t in known if t in epochs and t not in rows}
    trained = sum(sum(epochs[t].values()) for t in begun if t in epochs)
    return spent(len(begun), [rows[t] for t in counted], sessions, trained)
