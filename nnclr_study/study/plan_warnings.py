"""What `plan` and `run` warn of: knobs without effect, and trials that a search cannot find."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.configurations import LIMIT, Params, combinations, config_of, size
from nnclr_study.study.inert import inert_knobs, training_key
from nnclr_study.study.plan import condition_label, show_value
from nnclr_study.study.search import Axis, Search, Value
from nnclr_study.study.spec import Study, conditions
from nnclr_study.study.when import RARE

SHOWN = 3
"""Conditions that a warning names."""
_TRAINED_ONCE = (
    "a search trains configurations that differ in nothing else once; a `when` would have it "
    "searched only where it has an effect"
)


@dataclass
class _Affected:
    """Conditions in which some knobs have no effect, for one reason."""

    knobs: dict[str, None] = field(default_factory=dict)
    conditions: list[Params] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def add(self, knobs: Iterable[str], condition: Params, key: str) -> None:
        """Note a further condition, with the key of what it trains."""
        self.knobs |= dict.fromkeys(knobs)
        self.conditions.append(condition)
        self.keys.append(key)

    def is_worth_a_warning(self) -> bool:
        """Tell whether conditions train the same, or set such a knob to what it is not anyway."""
        return len(set(self.keys)) < len(self.keys) or not all(
            _is_default(knob, condition[knob])
            for condition in self.conditions
            for knob in self.knobs
            if knob in condition
        )


class _Known(NamedTuple):
    """A condition whose values fit each other, and what follows from it."""

    condition: Params
    inert: dict[str, str]
    """Knobs without effect, each with the reason."""
    key: str
    """The `training_key`."""


def plan_warnings(study: Study) -> list[str]:
    """Return what a user probably did not mean, a sentence each.

    All conditions of a grid are examined; of a search at most `LIMIT` combinations, and where it
    has more, nothing is claimed that has to hold for all of them.
    """
    if study.search is None:
        every, most = conditions(study), None
    else:
        every, most = combinations(study.search.space, _typical(study.search)), LIMIT
    known = [
        _Known(condition, inert_knobs(config), training_key(config))
        for condition in islice(every, most)
        if (config := config_of(study, condition)) is not None
    ]
    is_whole = next(every, None) is None
    fixed = _fixed(study, known) if is_whole else ()
    return [*fixed, *_varied(study, known), *_too_many_trials(study)]


def _fixed(study: Study, known: list[_Known]) -> Iterator[str]:
    """Yield the knobs of `[trial]` that are set and have no effect in any condition."""
    for knob, value in study.fixed.items():
        if known and all(knob in each.inert for each in known) and not _is_default(knob, value):
            why = " or ".join(dict.fromkeys(each.inert[knob] for each in known))
            yield f"{knob} = {show_value(value)} in [trial] has no effect with {why}"


def _varied(study: Study, known: list[_Known]) -> Iterator[str]:
    """Yield the varied knobs that have no effect in some of their conditions."""
    affected: dict[tuple[str, ...], _Affected] = {}
    alike: dict[str, list[Params]] = {}
    for condition, inert, key in known:
        reasons = {inert[knob] for knob in condition if knob in inert}
        for reason in reasons:
            knobs = [knob for knob in condition if inert.get(knob) == reason]
            affected.setdefault((f"with {reason}",), _Affected()).add(knobs, condition, key)
        if not reasons:
            alike.setdefault(key, []).append(condition)
    for key, same in alike.items():  # as aug_strength, where every part that follows it is set
        knobs = [knob for knob in study.knobs if len({each.get(knob) for each in same}) > 1]
        for condition in same if knobs else []:
            place = ("beside what else is set", *knobs)
            affected.setdefault(place, _Affected()).add(knobs, condition, key)
    for (where, *_), found in affected.items():
        have = "has" if len(found.knobs) == 1 else "have"
        said = f"{' and '.join(found.knobs)} {have} no effect {where}: "
        if study.search:
            yield said + _TRAINED_ONCE
        elif found.is_worth_a_warning():
            yield said + _wasted(study, found, len(known))


def _is_default(knob: str, value: Value) -> bool:
    default = TrialConfig.model_fields[knob]
    return default.default_factory is None and value == default.default


def _wasted(study: Study, found: _Affected, total: int) -> str:
    seeds, count = len(study.seeds), len(found.conditions)
    different = len(set(found.keys))
    said = f"it is set in {count} of {total} conditions"
    if different < count:
        said = (
            f"{count} of {total} conditions, {count * seeds} trials, train only "
            f"{different * seeds} different trial{'s' if different * seeds > 1 else ''}"
        )
    return f"{said} ({_labels(found.conditions)})"


def _labels(found: list[Params]) -> str:
    labels = [condition_label(condition) for condition in found[:SHOWN]]
    more = [f"and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
    return "; ".join([*labels, *more])


def _too_many_trials(study: Study) -> Iterator[str]:
    asked = study.budget.trials
    if study.search and asked and (there := size(study, min(asked, LIMIT))) and there < asked:
        yield (
            f"[budget] trials = {asked:,}, but the search space holds {there:,} "
            f"configuration{'s' if there > 1 else ''} to train: the search ends after "
            f"{'these' if there > 1 else 'this one'}"
        )


def _typical(search: Search) -> Callable[[str, Axis], list[Value]]:
    """Return what gives likely values of a searched knob: all choices, and some of a range.

    Those that a `when` asks for are among them.
    """
    asked: dict[str, list[Value]] = {}
    for axis in search.space.values():
        for knob, value in axis.when.items():
            asked.setdefault(knob, []).append(value)

    def values(knob: str, axis: Axis) -> list[Value]:
        if axis.choices:
            return list(axis.choices)
        return list(dict.fromkeys([*_of_range(axis), *asked.get(knob, [])]))

    return values


def _of_range(axis: Axis) -> list[Value]:
    """Return two values of a range: its ends, or inner ones where an end is hardly ever drawn."""
    if axis.count is None:
        return [axis.low + (axis.high - axis.low) * part for part in (0.3, 0.7)]
    last = axis.count - 1
    rare = axis.share(axis.least) < RARE
    places = (last // 3, 2 * last // 3) if rare else (0, last)
    found = [axis.low + place * (axis.step or 1) for place in places]
    return [int(value) if axis.whole else value for value in found]
