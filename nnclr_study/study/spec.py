"""The study file: TOML in, a `Study` out, or every problem of the file at once."""

import codecs
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from pathlib import Path

from pydantic import ValidationError

from nnclr_study.errors import Problem, StudyFileError
from nnclr_study.study.checks import find_problems
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plugins import GROUPS, Named, is_plugin
from nnclr_study.study.search import Search, Value, read_search
from nnclr_study.study.tables import BudgetTable as BudgetTable
from nnclr_study.study.tables import ConfirmationTable, ReferenceTable, StudyTable

MAX_BYTES = 1_000_000
"""Of a study file."""
MAX_PROBLEMS = 500
"""That are named at once."""
MAX_DOTS = 5_000
"""On one line."""


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

    @cached_property
    def knobs(self) -> list[str]:
        """The varied knobs in file order."""
        if self.search:
            return list(self.search.space)
        return list(
            dict.fromkeys([*self.grid, *(knob for point in self.points for knob in point)])
        )

    @cached_property
    def resolved_arms(self) -> list[dict[str, Value]]:
        """Its conditions as `arms` returns them, computed once: there may be 100,000."""
        found = [resolved(self, condition) for condition in conditions(self)]
        return sorted(found, key=lambda arm: not _agrees(arm, self.baseline))  # stable

    @cached_property
    def plugins(self) -> list[Named]:
        """The plug-ins that its knobs name."""
        space = self.search.space if self.search else {}
        named = [
            (knob, value) for point in [self.fixed, *self.points] for knob, value in point.items()
        ]
        named += [(knob, value) for knob, values in self.grid.items() for value in values]
        named += [(knob, value) for knob, axis in space.items() for value in axis.choices]
        return [
            (knob, str(value))
            for knob, value in dict.fromkeys(named)
            if knob in GROUPS and is_plugin(value)
        ]


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        StudyFileError: the file cannot be read, is not TOML, or breaks any rule; the
            error names every problem with its key, value, rule and way out.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise StudyFileError(path, [f"has more than {MAX_BYTES:,} bytes: no study needs them"])
    except (OSError, ValueError) as error:  # a path may hold a null byte
        reason = getattr(error, "strerror", None) or error
        raise StudyFileError(path, [f"cannot be read: {reason}"]) from None
    return parse_study(decoded(content, path), path)


def decoded(content: bytes, path: Path) -> str:
    """Return the text of a study file without the byte order mark that an editor may put there.

    Raises:
        StudyFileError: it is not UTF-8 text.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyFileError(path, [_not_text(content, error.start)]) from None


def _not_text(content: bytes, at: int) -> str:
    """Return why bytes are not the text of a study file; the one at `at` is not UTF-8."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16 text; save it as UTF-8 (in the editor's `Save as`, under encoding)"
    line = content.count(b"\n", 0, at) + 1
    return f"is not UTF-8 text (byte {at}, in line {line}); save it as UTF-8"


def parse_study(text: str, path: Path | str) -> Study:
    """Check the text of a study file; `path` is for messages only. Raises: as `load_study`."""
    if _costs_too_much(text):
        raise StudyFileError(path, ["nests its tables too deeply for a study"])
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number may be too long for Python
        raise StudyFileError(path, [f"is not valid TOML: {error}"]) from None

    problems = _first(find_problems(tables))
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
    problems = _first(_misfits(study)) or _first(
        _point_repeats(study) if study.search else _arm_problems(study)
    )
    if problems:
        raise StudyFileError(path, problems)
    return study


def _costs_too_much(text: str) -> bool:
    """Tell whether tomllib, which walks down a dotted key once a dot, would take minutes."""
    dots = [line.count(".") for line in text.splitlines()]
    return max(dots, default=0) * (sum(dots) + len(dots)) > MAX_DOTS**2


def _first(problems: Iterator[Problem]) -> list[Problem | str]:
    """Return problems, as many as anybody mends at once."""
    found: list[Problem | str] = list(islice(problems, MAX_PROBLEMS))
    if next(problems, None) is not None:
        found.append(f"and more than these {MAX_PROBLEMS}; mend them first")
    return found


def arms(study: Study) -> list[dict[str, Value]]:
    """Return every condition of a grid, with all its varied knobs: the baseline, then the others.

    They stand in file order: the full product of the grid, its last knob varying fastest, and the
    points. What a condition does not set is as in `[trial]`, or by default.
    """
    return list(study.resolved_arms)


def conditions(study: Study) -> Iterator[dict[str, Value]]:
    """Yield the conditions of a grid as its file sets them: its product, and then its points."""
    yield from _product(study)
    yield from study.points


def incomparable(old: Study, new: Study) -> list[str]:
    """Return why trials of two study files cannot stand in one table; none: they can.

    They may differ in seeds, in conditions, and in all that is said about them.
    """
    if set(old.knobs) != set(new.knobs):
        return [f"it varied {_listed(old.knobs)}, and now {_listed(new.knobs)}"]
    if (old.search is None) != (new.search is None):
        return [f"it was a {'grid' if old.search is None else 'search'}, and no longer is"]
    if old.search and old.seeds != new.seeds:
        return [f"its seed was {old.seeds[0]}, and is now {new.seeds[0]}"]
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
    if old.table.max_memory_gb != new.table.max_memory_gb:
        limits = (str(each.table.max_memory_gb or "left out") for each in (old, new))
        found.append("max_memory_gb was {}, and is now {}".format(*limits))
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


def _product(study: Study) -> Iterator[dict[str, Value]]:
    if study.search is None and (study.grid or not study.points):
        for values in product(*study.grid.values()):
            yield dict(zip(study.grid, values, strict=True))


def resolved(study: Study, condition: Mapping[str, Value]) -> dict[str, Value]:
    """Return all the varied knobs of a condition: what it leaves open is as in every trial."""
    config = TrialConfig(**{**study.fixed, **condition})  # type: ignore[arg-type]
    return {knob: getattr(config, knob) for knob in study.knobs}


def _agrees(arm: Mapping[str, Value], baseline: Mapping[str, Value]) -> bool:
    return bool(baseline) and all(arm.get(knob) == value for knob, value in baseline.items())


def _misfits(study: Study) -> Iterator[Problem]:
    """Yield why knobs do not fit each other, each reason with its first condition."""
    seen = set()
    points = [(f"points[{index}]", point) for index, point in enumerate(study.points)]
    found = [("grid" if condition else "trial", condition) for condition in _product(study)]
    found += points
    if study.search and study.baseline:  # of a grid it is one of them
        found.append(("study.baseline", study.baseline))
    for place, condition in found:
        try:
            TrialConfig(**{**study.fixed, **condition})  # type: ignore[arg-type]
        except ValidationError as error:
            for detail in error.errors():
                rule = str(detail["msg"]).removeprefix("Value error, ")
                if rule not in seen:
                    yield Problem(place, condition or study.fixed, rule)
                seen.add(rule)


def _point_repeats(study: Study) -> Iterator[Problem]:
    """Yield points of a search that are there twice, whatever order their knobs stand in."""
    assert study.search is not None
    places = []
    for index, point in enumerate(study.points):
        searched: dict[str, Value] = {}
        for knob, axis in study.search.space.items():
            # What a point leaves open is drawn: it may yet be what a `when` asks for.
            others = {
                k: searched.get(k) if k in point else value for k, value in axis.when.items()
            }
            if knob in point and axis.applies(others):
                searched[knob] = point[knob]
        places.append((f"points[{index}]", searched))
    yield from _repeats(places)


def _repeats(places: Iterable[tuple[str, Mapping[str, Value]]]) -> Iterator[Problem]:
    """Yield conditions that stand in two places."""
    first: dict[tuple[tuple[str, Value], ...], str] = {}
    for place, condition in places:
        before = first.setdefault(tuple(condition.items()), place)
        if before != place:
            rule = f"is there twice, as {before} and as {place}; name each condition once"
            yield Problem("points", dict(condition), rule)


def _arm_problems(study: Study) -> Iterator[Problem]:
    """Yield conditions that are there twice, and a baseline that is not one of them."""
    yield from _repeats(
        [("[grid]", resolved(study, condition)) for condition in _product(study)]
        + [(f"points[{i}]", resolved(study, point)) for i, point in enumerate(study.points)]
    )
    found = arms(study)
    if study.baseline:
        meant = sum(_agrees(arm, study.baseline) for arm in found)
        if meant != 1:
            how_many = "no condition" if meant == 0 else f"{meant} conditions"
            way_out = f"name one value each of {', '.join(study.knobs)}"
            yield Problem("study.baseline", study.baseline, f"fits {how_many}; {way_out}")
        elif study.confirmation and found[0] != resolved(study, study.points[0]):
            rule = "must be the first of the [[points]]: [confirmation] scores the others"
            yield Problem("study.baseline", study.baseline, rule)
