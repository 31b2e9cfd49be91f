"""The study file: TOML in, a `Study` out, or every problem of the file at once."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from nnclr_study.errors import Problem, StudyFileError
from nnclr_study.study.config import TrialConfig

MAX_TRIALS = 100_000
_TABLES = ["study", "trial", "grid", "points"]
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)

Value = int | float | str | bool | None
"""Of a knob; None stands for one that is left out, as `predictor_width`."""


class StudyTable(BaseModel):
    """The `[study]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        description="the run folder's name: letters, digits, '_' and '-', at most 64",
    )
    question: str = Field(
        "", max_length=500, description="what the study asks, for the page's head"
    )
    seeds: list[Annotated[int, Field(ge=0, le=2**32 - 1)]] = Field(
        min_length=1, max_length=1_000, description="one trial a seed in every condition"
    )
    baseline: dict[str, int | float | str | bool] = Field(
        {},
        description="the condition that the others are compared with, as { queue_size = 0 }; "
        "default: the first one",
    )
    margin_points: float = Field(
        0.5,
        gt=0,
        le=100,
        description="the smallest difference of accuracy that matters, in percentage points",
    )


@dataclass(frozen=True)
class Study:
    """A declared study: every condition of `grid` and `points` times every seed."""

    name: str
    question: str
    seeds: list[int]
    fixed: dict[str, Value]
    """The `[trial]` table: the knobs of every trial, unless its condition sets them."""
    grid: dict[str, list[Value]]
    """The `[grid]` table: varied knobs in file order, each with its values."""
    points: list[dict[str, Value]]
    """The `[[points]]` tables: hand-picked conditions beside those of the grid."""
    baseline: dict[str, Value]
    """Knobs of the declared baseline; empty: the first condition."""
    margin_points: float
    """The smallest difference of accuracy that matters, in percentage points."""
    text: str
    """The file, word for word."""

    @property
    def knobs(self) -> list[str]:
        """The varied knobs in file order."""
        return list(
            dict.fromkeys([*self.grid, *(knob for point in self.points for knob in point)])
        )


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        StudyFileError: the file cannot be read, is not TOML, or breaks any rule; the
            error names every problem with its key, value, rule and way out.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyFileError(path, [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise StudyFileError(path, [f"is not UTF-8 text (byte {error.start})"]) from None
    return parse_study(text, path)


def parse_study(text: str, path: Path | str) -> Study:
    """Check the text of a study file; `path` is for messages only. Raises: as `load_study`."""
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise StudyFileError(path, [f"is not valid TOML: {error}"]) from None

    problems = list(_find_problems(tables))
    if problems:
        raise StudyFileError(path, problems)
    header = StudyTable(**tables["study"])
    study = Study(
        name=header.name,
        question=header.question,
        seeds=header.seeds,
        fixed=tables.get("trial", {}),
        grid=tables.get("grid", {}),
        points=tables.get("points", []),
        baseline=dict(header.baseline),
        margin_points=header.margin_points,
        text=text,
    )
    problems = list(_misfits(study)) or list(_arm_problems(study))
    if problems:
        raise StudyFileError(path, problems)
    return study


def arms(study: Study) -> list[dict[str, Value]]:
    """Return every condition, each with all the varied knobs: the baseline, then in file order.

    In file order come the full product of the grid, its last knob varying fastest, and the
    points. What a condition does not set is as in `[trial]`, or by default.
    """
    found = [_resolved(study, condition) for condition in _conditions(study)]
    found.sort(key=lambda arm: not _agrees(arm, study.baseline))  # stable
    return found


def incomparable(old: Study, new: Study) -> list[str]:
    """Return why trials of two study files cannot stand in one table; none: they can.

    They may differ in seeds, in conditions, and in all that is said about them.
    """
    if set(old.knobs) != set(new.knobs):
        return [f"it varied {_listed(old.knobs)}, and now {_listed(new.knobs)}"]
    before, after = old.fixed, new.fixed
    knobs = (knob for knob in TrialConfig.model_fields if knob not in new.knobs)
    return [
        f"{knob} was {_shown(knob, before)}, and is now {_shown(knob, after)}"
        for knob in knobs
        if _set_to(knob, before) != _set_to(knob, after)
    ]


def _listed(knobs: list[str]) -> str:
    return ", ".join(knobs) or "nothing"


def _set_to(knob: str, fixed: Mapping[str, Value]) -> Value:
    """Return a knob's value; one that follows other knobs, and is not set, has none."""
    field = TrialConfig.model_fields[knob]
    value: Value = fixed.get(knob, None if field.default_factory else field.default)
    return value


def _shown(knob: str, fixed: Mapping[str, Value]) -> str:
    value = _set_to(knob, fixed)
    return repr(value) if value is not None else "left out"


def _conditions(study: Study) -> Iterator[dict[str, Value]]:
    if study.grid or not study.points:
        for values in product(*study.grid.values()):
            yield dict(zip(study.grid, values, strict=True))
    yield from study.points


def _resolved(study: Study, condition: dict[str, Value]) -> dict[str, Value]:
    config = TrialConfig(**study.fixed | condition)  # type: ignore[arg-type]
    return {knob: getattr(config, knob) for knob in study.knobs}


def _agrees(arm: Mapping[str, Value], baseline: Mapping[str, Value]) -> bool:
    return bool(baseline) and all(arm.get(knob) == value for knob, value in baseline.items())


def _find_problems(tables: dict[str, Any]) -> Iterator[Problem]:
    for key in tables:
        if key not in _TABLES:
            yield Problem(key, tables[key], f"unknown table; {_did_you_mean(key, _TABLES)}")
    for name in ("study", "trial", "grid"):
        if not isinstance(tables.get(name, {}), dict):
            yield Problem(name, tables[name], f"must be a table: write [{name}] on its own line")
            tables = tables | {name: {}}
    points = tables.get("points", [])
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        yield Problem("points", points, "must be tables: write [[points]] before each of them")
        points = []

    header, fixed, grid = (tables.get(name, {}) for name in ("study", "trial", "grid"))
    yield from _table_problems("study", header, StudyTable)
    for key, field in StudyTable.model_fields.items():
        if field.is_required() and key not in header:
            yield Problem(f"study.{key}", None, f"missing; {_describe(StudyTable, key)}")
    if _valid(StudyTable, "seeds", header.get("seeds")) and _repeats(header["seeds"]):
        yield Problem("study.seeds", header["seeds"], "has a seed twice; name each seed once")

    yield from _table_problems("trial", fixed, TrialConfig)
    for key, values in grid.items():
        yield from _axis_problems(key, values)
        if key in fixed:
            yield Problem(
                f"trial.{key}", fixed[key], f"also varied in [grid]; keep {key} in one of the two"
            )
    for index, point in enumerate(points):
        yield from _table_problems(f"points[{index}]", point, TrialConfig)
    named = ((f"points[{index}]", point) for index, point in enumerate(points))
    for name, table in (("trial", fixed), ("grid", grid), *named):
        if "seed" in table:
            yield Problem(f"{name}.seed", table["seed"], "seeds belong in [study]: seeds = [..]")
    axes = [values for values in grid.values() if isinstance(values, list)]
    seeds = header.get("seeds")
    count = (prod(map(len, axes)) + len(points)) * (len(seeds) if isinstance(seeds, list) else 1)
    if count > MAX_TRIALS:
        yield Problem("grid", f"{count} trials", f"is more than {MAX_TRIALS}; vary fewer values")


def _table_problems(name: str, table: dict[str, Any], model: type[BaseModel]) -> Iterator[Problem]:
    for key, value in table.items():
        if key not in model.model_fields:
            hint = _did_you_mean(key, list(model.model_fields))
            yield Problem(f"{name}.{key}", value, f"unknown key; {hint}")
        elif rule := _broken_rule(model, key, value):
            yield Problem(f"{name}.{key}", value, rule)


def _axis_problems(key: str, values: Any) -> Iterator[Problem]:
    if key not in TrialConfig.model_fields:
        hint = _did_you_mean(key, list(TrialConfig.model_fields))
        yield Problem(f"grid.{key}", values, f"unknown key; {hint}")
    elif not isinstance(values, list) or not values:
        yield Problem(f"grid.{key}", values, f"must be a list of values: {key} = [..]")
    else:
        for index, value in enumerate(values):
            if rule := _broken_rule(TrialConfig, key, value):
                yield Problem(f"grid.{key}[{index}]", value, rule)
        if _repeats(values):
            yield Problem(f"grid.{key}", values, "has a value twice; name each value once")


def _misfits(study: Study) -> Iterator[Problem]:
    """Yield why knobs do not fit each other, each reason with its first condition."""
    seen = set()
    for condition in _conditions(study):
        try:
            TrialConfig(**study.fixed | condition)  # type: ignore[arg-type]
        except ValidationError as error:
            for detail in error.errors():
                rule = str(detail["msg"]).removeprefix("Value error, ")
                if rule not in seen:
                    yield Problem("grid" if condition else "trial", condition or study.fixed, rule)
                seen.add(rule)


def _arm_problems(study: Study) -> Iterator[Problem]:
    """Yield conditions that are there twice, and a baseline that is not one of them."""
    found = arms(study)
    if _repeats(found):
        twice = next(arm for index, arm in enumerate(found) if arm in found[:index])
        yield Problem("points", twice, "is there twice; name each condition once")
    if study.baseline:
        meant = sum(_agrees(arm, study.baseline) for arm in found)
        if meant != 1:
            how_many = "no condition" if meant == 0 else f"{meant} conditions"
            way_out = f"name one value each of {', '.join(study.knobs)}"
            yield Problem("study.baseline", study.baseline, f"fits {how_many}; {way_out}")


@cache
def _adapter(model: type[BaseModel], key: str) -> TypeAdapter[Any]:
    field = model.model_fields[key]
    kind: Any = field.annotation
    return TypeAdapter(Annotated[kind, None, *field.metadata], config=_STRICT)


def _valid(model: type[BaseModel], key: str, value: Any) -> bool:
    return _broken_rule(model, key, value) is None


def _broken_rule(model: type[BaseModel], key: str, value: Any) -> str | None:
    """Return what is wrong with a value and the way out, or None."""
    try:
        _adapter(model, key).validate_python(value)
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Value error, ")
        rule = rule.replace("Input should be", "must be")
        rule = rule.replace("a valid integer", "a whole number").replace("valid", "")
        return f"{rule[0].lower()}{rule[1:]}; {_describe(model, key)}"
    return None


def _describe(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    # A default that follows other knobs is told in the description.
    plain = not field.is_required() and field.default_factory is None
    default = repr(field.default) if plain and field.default not in (None, "") else ""
    said = [f"{key}: {field.description}", _bounds(field), default and f"default {default}"]
    return "; ".join(part for part in said if part)


def _bounds(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(repr, get_args(field.annotation)))
    limits = []
    for symbol, name in ((">", "gt"), (">=", "ge"), ("<", "lt"), ("<=", "le")):
        limits += [f"{symbol} {getattr(m, name)}" for m in field.metadata if hasattr(m, name)]
    return " and ".join(limits)


def _did_you_mean(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(known)}"


def _repeats(values: list[Any]) -> bool:
    return any(value in values[:index] for index, value in enumerate(values))
