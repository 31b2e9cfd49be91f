"""A study's knobs as parameters of Optuna's."""

from collections.abc import Mapping
from typing import get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nnclr_study.study.config import OWN, TrialConfig
from nnclr_study.study.plan import Trial
from nnclr_study.study.search import Axis, Search, Value


def suggest(asked: optuna.Trial, search: Search) -> dict[str, Value]:
    """Fill an empty trial: a value for every searched knob that applies."""
    params: dict[str, Value] = {}
    for knob, axis in search.space.items():
        if not axis.applies(params):
            continue
        space = _distribution(axis)
        if isinstance(space, CategoricalDistribution):
            params[knob] = asked.suggest_categorical(knob, axis.choices)
        elif isinstance(space, IntDistribution):
            params[knob] = asked.suggest_int(
                knob, space.low, space.high, log=space.log, step=space.step
            )
        else:
            assert isinstance(space, FloatDistribution)
            params[knob] = asked.suggest_float(
                knob, space.low, space.high, log=space.log, step=space.step
            )
    return params


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.choices:
        return CategoricalDistribution(axis.choices)
    if axis.whole:
        return IntDistribution(
            int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1)
        )
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def params_of(
    trial: Trial, space: Mapping[str, Axis]
) -> tuple[dict[str, Value], dict[str, BaseDistribution]]:
    """Return what of a trial's condition Optuna can hold as parameters.

    A grid's distributions follow the knob's type and not its values, which may grow in number;
    what has no fixed set of values, as a data set's name, is left out.
    """
    params: dict[str, Value] = {}
    found: dict[str, BaseDistribution] = {}
    for knob, value in trial.condition.items():
        if knob not in space:
            distribution = _of_type(knob, value)
        elif _applies(space[knob], trial) and space[knob].holds(value):
            distribution = _distribution(space[knob])
        else:
            distribution = None
        if distribution is not None:
            params[knob], found[knob] = value, distribution
    return params, found


def applying(trial: Trial, search: Search) -> list[str]:
    """Return the searched knobs that a trial has a use for."""
    return [knob for knob, axis in search.space.items() if _applies(axis, trial)]


def _applies(axis: Axis, trial: Trial) -> bool:
    return all(getattr(trial.config, other) == value for other, value in axis.when.items())


def _of_type(knob: str, value: Value) -> BaseDistribution | None:
    annotation = TrialConfig.model_fields[knob].annotation
    literal = [choice for choice in get_args(annotation) if isinstance(choice, int | float | str)]
    if knob in ("encoder", "aug_recipe") and value in OWN[knob]:
        literal = list(OWN[knob])
    if annotation is bool or literal:
        return CategoricalDistribution([False, True] if annotation is bool else literal)
    if isinstance(value, str | None):
        return None
    return FloatDistribution(min(0.0, value), max(0.0, value))
