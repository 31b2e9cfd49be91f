"""The study file: TOML in, a `Study` out, or every problem of the file at once."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from nnclr_study.errors import Problem, StudyFileError
from nnclr_study.study.config import TrialConfig

MAX_TRIALS = 100_000
_TABLES = ["study", "trial", "grid"]
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)

Value = int | float | str | bool


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


@dataclass(frozen=True)
class Study:
    """A declared study: every condition of `grid` times every seed."""

    name: str
    question: str
    seeds: list[int]
    fixed: dict[str, Value]
    """The `[trial]` table: knobs that no condition varies."""
    grid: dict[str, list[Value]]
    """The `[grid]` table: varied knobs in file order, each with its values."""
    text: str
    """The file, word for word."""


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
        text=text,
    )
    problems = list(_misfits(study))
    if problems:
        raise StudyFileError(path, problems)
    return study


def conditions(grid: Mapping[str, list[Value]]) -> Iterator[dict[str, Value]]:
    """Yield the full product of a grid in file order, the last knob varying fastest."""
    if not grid:
        yield {}
        return
    (knob, values), *rest = grid.items()
    for value in values:
        for others in conditions(dict(rest)):
            yield {knob: value} | others


def _find_problems(tables: dict[str, Any]) -> Iterator[Problem]:
    for key in tables:
        if key not in _TABLES:
            yield Problem(key, tables[key], f"unknown table; {_did_you_mean(key, _TABLES)}")
    for name in _TABLES:
        if not isinstance(tables.get(name, {}), dict):
            yield Problem(name, tables[name], f"must be a table: write [{name}] on its own line")
            tables = tables | {name: {}}

    header, fixed, grid = (tables.get(name, {}) for name in _TABLES)
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
    for name, table in (("trial", fixed), ("grid", grid)):
        if "seed" in table:
            yield Problem(f"{name}.seed", table["seed"], "seeds belong in [study]: seeds = [..]")
    axes = [values for values in grid.values() if isinstance(values, list)]
    seeds = header.get("seeds")
    count = prod(map(len, axes)) * (len(seeds) if isinstance(seeds, list) else 1)
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
    for condition in conditions(study.grid):
        try:
            TrialConfig(**study.fixed, **condition)  # type: ignore[arg-type]
        except ValidationError as error:
            for detail in error.errors():
                rule = str(detail["msg"]).removeprefix("Value error, ")
                if rule not in seen:
                    yield Problem("grid" if condition else "trial", condition or study.fixed, rule)
                seen.add(rule)


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
