"""What a table of a study file breaks of its model's rules, and how a user mends it."""

from collections.abc import Hashable, Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from nnclr_study.errors import Problem

_IN_TOML = {
    "a valid integer": "a whole number",
    "a valid list": "a list",
    "a valid string": "text",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid dictionary": "a table",
    " after validation": "",
}
"""What pydantic says, as who writes a study file would."""
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def table_problems(name: str, table: dict[str, Any], model: type[BaseModel]) -> Iterator[Problem]:
    """Yield what is wrong with each key of a table, and the keys that it must have and has not."""
    for key, value in table.items():
        if key not in model.model_fields:
            hint = did_you_mean(key, list(model.model_fields))
            yield Problem(f"{name}.{key}", value, f"unknown key; {hint}")
        elif rule := broken_rule(model, key, value):
            yield Problem(f"{name}.{key}", value, rule)
    for key, field in model.model_fields.items():
        if field.is_required() and key not in table:
            yield Problem(f"{name}.{key}", None, f"missing; {describe(model, key)}")


@cache
def _adapter(model: type[BaseModel], key: str) -> TypeAdapter[Any]:
    field = model.model_fields[key]
    kind: Any = field.annotation
    return TypeAdapter(Annotated[kind, None, *field.metadata], config=_STRICT)


def valid(model: type[BaseModel], key: str, value: Any) -> bool:
    """Tell whether a value keeps its key's rule."""
    return broken_rule(model, key, value) is None


def broken_rule(model: type[BaseModel], key: str, value: Any) -> str | None:
    """Return what is wrong with a value and the way out, or None."""
    try:
        _adapter(model, key).validate_python(value)
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Value error, ")
        rule = rule.replace("Input should be", "must be")
        for said, meant in _IN_TOML.items():
            rule = rule.replace(said, meant)
        return f"{rule[0].lower()}{rule[1:]}; {describe(model, key)}"
    return None


def describe(model: type[BaseModel], key: str) -> str:
    """Return what a key is for, its bounds and its default."""
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


def did_you_mean(key: str, known: list[str]) -> str:
    """Return the known key that a user may have meant, or all of them."""
    close = get_close_matches(key, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(known)}"


def repeats(values: Iterable[Any]) -> list[Any]:
    """Return the values that were there before; lists and tables are no values."""
    seen: set[Any] = set()
    found = []
    for value in values:
        if isinstance(value, Hashable):
            if value in seen:
                found.append(value)
            seen.add(value)
    return found
