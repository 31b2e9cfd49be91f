"""What a study will take, from what its trials or those of another run were seen to take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, product

from pydantic import ValidationError

from nnclr_study.errors import Problem, StudyFileError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.configurations import most_trials
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.search import Axis, Value
from nnclr_study.study.spec import Study

MAX_CORNERS = 10_000
"""Of a search's space that are looked at."""
_WORKING = {"dataset", "image_size", "encoder", "width", "projection_dim", "queue_size"}
_WORKING |= {"batch_size", "labelled_batch_size"}


@dataclass(frozen=True)
class Pace:
    """How fast one trial went, or some steps of it."""

    step_seconds: float
    evaluation_seconds: float
    """An epoch's time beside its steps."""
    checkpoint_bytes: int | None = None

    def seconds(self, config: TrialConfig) -> float:
        """Return what a trial takes at this pace."""
        steps = config.steps_per_epoch * self.step_seconds
        return config.epochs * (steps + self.evaluation_seconds)


@dataclass(frozen=True)
class Forecast:
    """What a study will take; a span is from the fastest pace to the slowest. None: not known."""

    trials: int | None
    trial_hours: tuple[float, float] | None
    """Of all trials, one after another."""
    disk_bytes: tuple[int, int] | None
    """Of their checkpoints."""
    queue_bytes: int
    """Of the largest support set, in the memory of each worker."""


def forecast(study: Study, paces: Sequence[Pace] = ()) -> Forecast:
    """Return what a study will take if its trials go as fast as others did."""
    if study.search is None:
        configs = [trial.config for trial in plan_trials(study)][: study.budget.trials]
        count = len(configs)
    else:
        # Trained to the end; early stopping makes it less.
        configs = list(extremes(study))[-1:]
        count = most_trials(study) or 0
        configs *= count
    totals = [sum(map(pace.seconds, configs)) / 3600 for pace in paces]
    sizes = [pace.checkpoint_bytes for pace in paces if pace.checkpoint_bytes is not None]
    return Forecast(
        trials=count or None,
        trial_hours=(min(totals), max(totals)) if totals and count else None,
        disk_bytes=(count * min(sizes), count * max(sizes)) if sizes and count else None,
        queue_bytes=max(
            4 * config.queue_size * config.projection_dim for config in configs or extremes(study)
        ),
    )


def extremes(study: Study) -> tuple[TrialConfig, TrialConfig]:
    """Return the trials whose steps do the least and the most work.

    Raises:
        StudyFileError: a search's space has no corner that is a trial.
    """
    if study.search is None:
        configs: Iterable[TrialConfig] = (trial.config for trial in plan_trials(study))
    else:
        # What decides about work varies fastest, and comes with the first of the others that fit.
        space = sorted(study.search.space.items(), key=lambda item: item[0] in _WORKING)
        corners = product(*(_ends(axis) for _, axis in space))
        named = (dict(zip(dict(space), values, strict=True)) for values in corners)
        configs = _fitting(study, islice(named, MAX_CORNERS))
    ordered = sorted(configs, key=_work)
    return ordered[0], ordered[-1]


def _ends(axis: Axis) -> list[Value]:
    """Return the lowest and highest value of a searched knob, or all where they have no order."""
    if not axis.choices:
        return [axis.least, axis.most]
    numbers = [choice for choice in axis.choices if isinstance(choice, int | float)]
    return [min(numbers), max(numbers)] if len(numbers) == len(axis.choices) else [*axis.choices]


def _fitting(study: Study, corners: Iterable[dict[str, Value]]) -> list[TrialConfig]:
    found, misfit, rule = [], {}, ""
    for corner in corners:
        try:
            found.append(TrialConfig(**{**study.fixed, **corner}))  # type: ignore[arg-type]
        except ValidationError as error:
            misfit, rule = corner, str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    if not found:
        none = f"no lowest and highest values fit each other, as here: {rule}"
        raise StudyFileError(f"the study {study.name}", [Problem("search.space", misfit, none)])
    return found


def _work(config: TrialConfig) -> float:
    """Return how the products of a step grow: encoder, then look-up."""
    encoder = (config.width * config.image_size) ** 2
    return config.global_batch * (encoder + 2.0 * config.queue_size * config.projection_dim)
