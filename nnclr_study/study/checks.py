"""What is wrong with the tables of a study file, before they are a study."""

from collections.abc import Iterator
from math import prod
from typing import Any

from nnclr_study.errors import Problem
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.rules import broken_rule, did_you_mean, repeats, table_problems, valid
from nnclr_study.study.search import search_problems
from nnclr_study.study.tables import (
    MAX_TRIALS,
    BudgetTable,
    ConfirmationTable,
    ReferenceTable,
    StudyTable,
)

_TABLES = ["study", "budget", "trial", "grid", "search", "confirmation"]
_LISTS = ["points", "references"]


def find_problems(tables: dict[str, Any]) -> Iterator[Problem]:
    """Yield all of it, key by key."""
    known = [*_TABLES, *_LISTS]
    for key in tables:
        if key not in known:
            yield Problem(key, tables[key], f"unknown table; {did_you_mean(key, known)}")
    shapeless = [name for name in _TABLES if not isinstance(tables.get(name, {}), dict)]
    for name in shapeless:
        yield Problem(name, tables[name], f"must be a table: write [{name}] on its own line")
    listed = {name: tables.get(name, []) for name in _LISTS}
    for name, found in listed.items():
        if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
            shapeless.append(name)
            yield Problem(name, found, f"must be tables: write [[{name}]] before each of them")
    tables = {name: table for name, table in tables.items() if name not in shapeless}

    header, fixed, grid = (tables.get(name, {}) for name in ("study", "trial", "grid"))
    points = tables.get("points", [])
    yield from table_problems("study", header, StudyTable)
    yield from table_problems("budget", tables.get("budget", {}), BudgetTable)
    if valid(StudyTable, "seeds", header.get("seeds")) and repeats(header["seeds"]):
        yield Problem("study.seeds", header["seeds"], "has a seed twice; name each seed once")

    yield from table_problems("trial", fixed, TrialConfig)
    for key, values in grid.items():
        yield from _axis_problems(key, values)
        if key in fixed:
            yield Problem(
                f"trial.{key}", fixed[key], f"also varied in [grid]; keep {key} in one of the two"
            )
    for index, point in enumerate(points):
        yield from table_problems(f"points[{index}]", point, TrialConfig)
    if "search" in tables:
        if "grid" in tables:
            yield Problem("grid", list(grid), "does not go with [search]: write two studies")
        search, budget = tables["search"], tables.get("budget", {})
        yield from search_problems(search, fixed, points, header, budget)
    yield from _reference_problems(tables.get("references", []))
    if "confirmation" in tables:
        yield from _confirmation_problems(tables)
    named = ((f"points[{index}]", point) for index, point in enumerate(points))
    for name, table in (("trial", fixed), ("grid", grid), *named):
        if "seed" in table:
            yield Problem(f"{name}.seed", table["seed"], "seeds belong in [study]: seeds = [..]")
    axes = [values for values in grid.values() if isinstance(values, list)]
    seeds = header.get("seeds")
    count = (prod(map(len, axes)) + len(points)) * (len(seeds) if isinstance(seeds, list) else 1)
    if count > MAX_TRIALS:
        yield Problem("grid", f"{count} trials", f"is more than {MAX_TRIALS}; vary fewer values")


def _reference_problems(references: list[dict[str, Any]]) -> Iterator[Problem]:
    labels = []
    for index, table in enumerate(references):
        yield from table_problems(f"references[{index}]", table, ReferenceTable)
        if valid(ReferenceTable, "label", label := table.get("label")):
            labels.append((label, index))
    first = dict(reversed(labels))
    for label, index in labels:
        if first[label] != index:
            yield Problem(f"references[{index}].label", label, "is there twice; tell them apart")


def _confirmation_problems(tables: dict[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with `[confirmation]`, whose scores are those of the points."""
    table, others = tables["confirmation"], len(tables.get("points", [])[1:])
    yield from table_problems("confirmation", table, ConfirmationTable)
    for name in ("grid", "search"):
        if name in tables:
            yield Problem("confirmation", table, f"confirms [[points]]; take [{name}] out")
    scores = table.get("val_probe_top1")
    if (
        scores is not None
        and valid(ConfirmationTable, "val_probe_top1", scores)
        and len(scores) != others
    ):
        rule = f"must be one score for each of the [[points]] after the first: {others}"
        yield Problem("confirmation.val_probe_top1", scores, rule)


def _axis_problems(key: str, values: Any) -> Iterator[Problem]:
    if key not in TrialConfig.model_fields:
        hint = did_you_mean(key, list(TrialConfig.model_fields))
        yield Problem(f"grid.{key}", values, f"unknown key; {hint}")
    elif not isinstance(values, list) or not values:
        yield Problem(f"grid.{key}", values, f"must be a list of values: {key} = [..]")
    else:
        for index, value in enumerate(values):
            if rule := broken_rule(TrialConfig, key, value):
                yield Problem(f"grid.{key}[{index}]", value, rule)
        if repeats(values):
            yield Problem(f"grid.{key}", values, "has a value twice; name each value once")
