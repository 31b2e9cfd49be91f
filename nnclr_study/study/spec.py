"""The study file: TOML in, a `Study` out, or every problem of the file at once."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nnclr_study.errors import Problem, StudyFileError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.rules import broken_rule, did_you_mean, repeats, table_problems, valid
from nnclr_study.study.search import Search, Value, read_search, search_problems
from nnclr_study.study.tables import MAX_TRIALS, ConfirmationTable, ReferenceTable, StudyTable
from nnclr_study.study.tables import BudgetTable as BudgetTable

_TABLES = ["study", "budget", "trial", "grid", "search", "confirmation"]
_LISTS = ["points", "references"]


@dataclass(frozen=True)
class Study:
    """A declared study: every condition of `grid` and `points` times every seed, or a search."""

    name: str
    question: str
    seeds: list[int]
    fixed: dict[str, Value]
    """The `[trial]` table: the knobs of every trial, unless its condition sets them."""
    grid: dict[str, list[Value]]
    """The `[grid]` table: varied knobs in file order, each with its values."""
    points: list[dict[str, Value]]
    """The `[[points]]` tables: conditions beside a grid's, or those that a search tries first."""
    baseline: dict[str, Value]
    """Knobs of the declared baseline; empty: the first condition."""
    margin_points: float
    """The smallest difference of accuracy that matters, in percentage points."""
    budget: BudgetTable
    search: Search | None
    """None: a grid, whose trials are all known in advance."""
    references: list[ReferenceTable]
    """Accuracies that others published, to be shown beside the study's."""
    confirmation: ConfirmationTable | None
    """Of a study that `confirm` wrote: the run that chose its points, and by which scores."""
    text: str
    """The file, word for word."""

    @property
    def knobs(self) -> list[str]:
        """The varied knobs in file order."""
        if self.search:
            return list(self.search.space)
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
        budget=BudgetTable(**tables.get("budget", {})),
        search=read_search(tables["search"]) if "search" in tables else None,
        references=[ReferenceTable(**table) for table in tables.get("references", [])],
        confirmation=(
            ConfirmationTable(**tables["confirmation"]) if "confirmation" in tables else None
        ),
        text=text,
    )
    problems = list(_misfits(study)) or ([] if study.search else list(_arm_problems(study)))
    if problems:
        raise StudyFileError(path, problems)
    return study


def arms(study: Study) -> list[dict[str, Value]]:
    """Return every condition of a grid, with all its varied knobs: the baseline, then the others.

    They stand in file order: the full product of the grid, its last knob varying fastest, and the
    points. What a condition does not set is as in `[trial]`, or by default.
    """
    found = [resolved(study, condition) for condition in _conditions(study)]
    found.sort(key=lambda arm: not _agrees(arm, study.baseline))  # stable
    return found


def incomparable(old: Study, new: Study) -> list[str]:
    """Return why trials of two study files cannot stand in one table; none: they can.

    They may differ in seeds, in conditions, and in all that is said about them.
    """
    if set(old.knobs) != set(new.knobs):
        return [f"it varied {_listed(old.knobs)}, and now {_listed(new.knobs)}"]
    if (old.search is None) != (new.search is None):
        return [f"it was a {'grid' if old.search is None else 'search'}, and no longer is"]
    before, after = old.fixed, new.fixed
    knobs = (knob for knob in TrialConfig.model_fields if knob not in new.knobs)
    differences = _search_differences(old.search, new.search) if old.search and new.search else []
    return differences + [
        f"{knob} was {_shown(knob, before)}, and is now {_shown(knob, after)}"
        for knob in knobs
        if _set_to(knob, before) != _set_to(knob, after)
    ]


def _search_differences(old: Search, new: Search) -> list[str]:
    """Return what Optuna could not take into one table; a range may change, choices may not."""
    found = []
    if old.table.objectives != new.table.objectives:
        now = ", ".join(new.table.objectives)
        found.append(f"the objective was {', '.join(old.table.objectives)}, and is now {now}")
    for knob, axis in new.space.items():
        was = old.space[knob]
        if (was.choices, was.log) != (axis.choices, axis.log):
            found.append(f"{knob} was searched in other choices, or on another scale")
    return found


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
    if study.search is None and (study.grid or not study.points):
        for values in product(*study.grid.values()):
            yield dict(zip(study.grid, values, strict=True))
    yield from study.points


def resolved(study: Study, condition: Mapping[str, Value]) -> dict[str, Value]:
    """Return all the varied knobs of a condition: what it leaves open is as in every trial."""
    config = TrialConfig(**{**study.fixed, **condition})  # type: ignore[arg-type]
    return {knob: getattr(config, knob) for knob in study.knobs}


def _agrees(arm: Mapping[str, Value], baseline: Mapping[str, Value]) -> bool:
    return bool(baseline) and all(arm.get(knob) == value for knob, value in baseline.items())


def _find_problems(tables: dict[str, Any]) -> Iterator[Problem]:
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
        yield from search_problems(search, fixed, header.get("seeds"), budget)
        space = search.get("space", {})
        for knob, value in header.get("baseline", {}).items():
            if isinstance(space, dict) and knob not in space:
                yield Problem(f"study.baseline.{knob}", value, "is not searched")
        for index, point in enumerate(points):
            for knob in point:
                if isinstance(space, dict) and knob not in space:
                    yield Problem(f"points[{index}].{knob}", point[knob], "is not searched")
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
    for index, table in enumerate(references):
        yield from table_problems(f"references[{index}]", table, ReferenceTable)
        label = table.get("label")
        if label in [other.get("label") for other in references[:index]] and label is not None:
            yield Problem(f"references[{index}].label", label, "is there twice; tell them apart")


def _confirmation_problems(tables: dict[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with `[confirmation]`, whose scores are those of the points."""
    table, others = tables["confirmation"], len(tables.get("points", [])[1:])
    yield from table_problems("confirmation", table, ConfirmationTable)
    for name in ("grid", "search"):
        if name in tables:
            yield Problem("confirmation", table, f"confirms [[points]]; take [{name}] out")
    scores = table.get("val_probe_top1")
    if valid(ConfirmationTable, "val_probe_top1", scores) and len(scores) != others:
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


def _misfits(study: Study) -> Iterator[Problem]:
    """Yield why knobs do not fit each other, each reason with its first condition."""
    seen = set()
    for condition in _conditions(study):
        try:
            TrialConfig(**{**study.fixed, **condition})  # type: ignore[arg-type]
        except ValidationError as error:
            for detail in error.errors():
                rule = str(detail["msg"]).removeprefix("Value error, ")
                if rule not in seen:
                    yield Problem("grid" if condition else "trial", condition or study.fixed, rule)
                seen.add(rule)


def _arm_problems(study: Study) -> Iterator[Problem]:
    """Yield conditions that are there twice, and a baseline that is not one of them."""
    found = arms(study)
    if repeats(found):
        twice = next(arm for index, arm in enumerate(found) if arm in found[:index])
        yield Problem("points", twice, "is there twice; name each condition once")
    if study.baseline:
        meant = sum(_agrees(arm, study.baseline) for arm in found)
        if meant != 1:
            how_many = "no condition" if meant == 0 else f"{meant} conditions"
            way_out = f"name one value each of {', '.join(study.knobs)}"
            yield Problem("study.baseline", study.baseline, f"fits {how_many}; {way_out}")
        elif study.confirmation and found[0] != resolved(study, study.points[0]):
            rule = "must be the first of the [[points]]: [confirmation] scores the others"
            yield Problem("study.baseline", study.baseline, rule)
