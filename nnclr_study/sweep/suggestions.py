"""Which trial comes next, and when there is room for it: what Tune asks, trial after trial."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import optuna
from pydantic import ValidationError
from ray import tune
from ray.tune.search import Searcher

from nnclr_study.errors import StudyFileError
from nnclr_study.study.configurations import untrained
from nnclr_study.study.inert import training_key
from nnclr_study.study.plan import Trial, suggested_trial
from nnclr_study.study.rows import EpochRow, Suggestion
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import Study
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.recorder import Recorder
from nnclr_study.sweep.space import suggest

MISFITS = 100
"""Suggestions in a row that are no trial, after which a search gives up."""
REPEATS = 100
"""Suggestions in a row that were trained before, after which a search of an endless space ends."""
PATIENCE = 20
"""Suggestions in a row without a new trial, after which the search picks a configuration."""


def searched(
    study: Study,
    folder: RunFolder,
    mirror: Mirror,
    begun: Iterable[Trial],
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Trial]:
    """Yield the trials that a search has begun and not ended, then new ones.

    No configuration is yielded twice: a suggestion that repeats an earlier one is told the outcome
    of that. The search ends when the space is exhausted; `say` hears of any other reason.

    Raises:
        StudyFileError: hardly any values of the space fit each other.
    """
    assert study.search is not None
    yield from begun
    for point in study.points:
        mirror.study.enqueue_trial(point, skip_if_exists=True)
    number = 1 + max((row.number for row in folder.suggestions()), default=-1)
    trained = {training_key(trial.config): trial.id for trial in folder.planned(study)}
    misfits = repeats = 0
    for left in untrained(study, trained):
        if left is not None and (misfits + repeats) % PATIENCE == PATIENCE - 1:
            mirror.study.enqueue_trial(left)
        asked = mirror.study.ask()
        params = suggest(asked, study.search)
        try:
            trial = suggested_trial(study, number, params)
        except ValidationError as error:
            mirror.study.tell(asked, state=optuna.trial.TrialState.FAIL)
            frozen = mirror.study.get_trials(deepcopy=False)[asked.number]
            if asked_for := frozen.system_attrs.get("fixed_params"):
                mirror.study.enqueue_trial(asked_for)  # with other values of what it leaves open
            misfits += 1
            if misfits == MISFITS:
                rule = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                raise StudyFileError(
                    folder.study_file,
                    [f"{MISFITS} suggestions in a row are no trial, the last because {rule}"],
                ) from None
            continue
        misfits = 0
        key = training_key(trial.config)
        if key in trained:
            mirror.repeated(asked, trained[key])
            repeats += 1
            if repeats == REPEATS and left is None:
                say(
                    f"the search ends: {REPEATS} suggestions in a row had been trained before; "
                    "widen [search.space], or use another sampler, to go on"
                )
                return
            continue
        repeats = 0
        trained[key] = trial.id
        folder.append_suggestion(Suggestion(trial_id=trial.id, number=number, params=params))
        mirror.suggested(trial, asked)
        number += 1
        yield trial


class Suggestions(Searcher):  # type: ignore[misc]
    """Hands Tune a trial whenever there is room, until there are none or the budget is spent."""

    def __init__(
        self, trials: Iterator[Trial], recorder: Recorder, room: Callable[[], int]
    ) -> None:
        super().__init__()
        self._trials = trials
        self._recorder = recorder
        self._room = room
        self._running: set[str] = set()

    def __reduce__(self) -> Any:
        # Tune pickles it for a kind of restore that we do not use.
        return Searcher, ()

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Take whatever Tune says of a metric: there is none."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Return the parameters of the next trial, None for not now, or that there are none."""
        if len(self._running) >= self._room():
            return None
        if self._recorder.budget_reached():
            return Searcher.FINISHED
        trial = next(self._trials, None)
        if trial is None:
            return Searcher.FINISHED
        self._recorder.begin(trial)
        self._running.add(trial_id)
        return {"trial_id": trial.id, "config": trial.config.model_dump_json()}

    def on_trial_complete(self, trial_id: str, *_: Any, **__: Any) -> None:
        """Note that there is room again."""
        self._running.discard(trial_id)

    def save_to_dir(self, *_: Any, **__: Any) -> None:
        """Save nothing: a study is resumed from its rows."""


class EarlyStopping(tune.Stopper):  # type: ignore[misc]
    """Ends a trial where a search's pruner says so; the first to hear of an epoch."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __reduce__(self) -> Any:
        # As the recorder, whose word it passes on.
        return tune.stopper.NoopStopper, ()

    def __call__(self, _: str, result: dict[str, Any]) -> bool:
        """Return whether this epoch is to be a trial's last."""
        if "row" not in result:
            return False
        row = EpochRow.model_validate_json(result["row"])
        return self._recorder.stops(result["config"]["trial_id"], row)

    def stop_all(self) -> bool:
        """Return False: an exhausted budget lets running trials finish."""
        return False
