"""The configurations of a search space: how many there are, and which are still to be trained."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.inert import training_key
from nnclr_study.study.plan import Trial, suggested_config
from nnclr_study.study.rows import TrialRow
from nnclr_study.study.search import Axis, Value
from nnclr_study.study.spec import Study

LIMIT = 10_000
"""Most combinations of values that are enumerated; a larger space is treated as endless."""

Params = dict[str, Value]


def combinations(
    space: Mapping[str, Axis], values: Callable[[str, Axis], Iterable[Value]]
) -> Iterator[Params]:
    """Yield every combination of the values of searched knobs; the last knob varies fastest.

    A knob is left out where its `when` does not hold.
    """
    axes = list(space.items())

    def further(place: int, params: Params) -> Iterator[Params]:
        if place == len(axes):
            yield params
            return
        knob, axis = axes[place]
        if not axis.applies(params):
            yield from further(place + 1, params)
            return
        for value in values(knob, axis):
            yield from further(place + 1, params | {knob: value})

    return further(0, {})


def config_of(study: Study, params: Params) -> TrialConfig | None:
    """Return the config of a suggestion, or None if its values do not fit each other."""
    try:
        return suggested_config(study, params)
    except ValidationError:
        return None


def _all_values(_: str, axis: Axis) -> Iterator[Value]:
    return axis.values()


def untrained(study: Study, trained: Container[str]) -> Iterator[Params | None]:
    """Yield one configuration of the space that has not been trained, until there are none left.

    The caller adds to `trained` while it iterates. None is yielded, without end, if the space
    cannot be enumerated or holds no valid configuration at all.

    Args:
        study: a search.
        trained: the `training_key` of every trial that has begun.
    """
    assert study.search is not None
    space, valid = study.search.space, False
    if all(axis.count is not None for axis in space.values()):
        for looked_at, params in enumerate(combinations(space, _all_values)):
            if looked_at == LIMIT:
                break
            config = config_of(study, params)
            if config is not None:
                valid, key = True, training_key(config)
                while key not in trained:
                    yield params
        else:
            if valid:
                return
    while True:
        yield None


def size(study: Study, at_most: int = LIMIT) -> int | None:
    """Return how many configurations a search space holds that train different trials.

    None: more than `at_most`, too many to enumerate, or none that is valid.
    """
    assert study.search is not None
    found: set[str] = set()
    for params in untrained(study, found):
        config = None if params is None else config_of(study, params)
        if config is None or len(found) == at_most:
            return None
        found.add(training_key(config))
    return len(found)


def most_trials(study: Study) -> int | None:
    """Return how many trials a search has at most; None where its budget does not limit them."""
    limit = study.budget.trials
    return limit and (size(study, min(limit, LIMIT)) or limit)


def exhausted(study: Study, known: Sequence[Trial], ended: Mapping[str, TrialRow]) -> str | None:
    """Return a line that says that nothing of a search space is left to be trained.

    It is None if the space holds something new, or if one of the known trials has not ended.
    """
    if study.search is None or not all(trial.id in ended for trial in known):
        return None
    for _ in untrained(study, {training_key(trial.config) for trial in known}):
        return None
    count = size(study)
    every = f"all {count:,} configurations have" if count != 1 else "its one configuration has"
    failed = any(ended[trial.id].status == "failed" for trial in known)
    return f"the search space is exhausted: {every} been {'tried' if failed else 'trained'}"
