"""The `[search]` table: what a search may try, how it chooses, and what it aims at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import log
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from nnclr_study.errors import Problem
from nnclr_study.study.augmentation import OFF
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.rules import broken_rule, did_you_mean, repeats, table_problems
from nnclr_study.study.when import when_problems

Value = int | float | str | bool | None
"""Of a knob; None stands for one that is left out, as `predictor_width`."""
Scalar = int | float | str | bool

OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "val_probe_top1": "maximize",
    "val_knn_top1": "maximize",
    "gpu_seconds": "minimize",
    "c_acc": "maximize",
    "r_acc": "maximize",
    "c_loss": "minimize",
}
"""What a search can aim at: fields of a trial's last epoch, and its seconds times its GPUs."""

MAX_STEPS = 10**9
"""Of a range: more of them are practically continuous, and may overflow."""
CONTRASTIVE = {"c_acc", "r_acc", "c_loss"}
CHANGES_THE_TASK = {
    *OFF,
    *("aug_recipe", "aug_strength", "flip_prob", "solarise_prob", "solarise_threshold"),
    *("jitter_prob", "blur_min_sigma", "blur_max_sigma"),
    *("view2_blur_prob", "view2_solarise_prob"),
    *("temperature", "batch_size", "labelled_batch_size"),
    *("queue_size", "neighbours", "pushed_views", "loss_blocks"),
}
"""Knobs that make the contrastive task itself easier or harder."""


class SearchTable(BaseModel):
    """The `[search]` table without its space."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sampler: Literal["tpe", "random", "qmc", "gp", "cmaes", "nsga2"] = Field(
        "tpe", description="Optuna's sampler"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of the sampler")
    objectives: list[str] = Field(
        ["val_probe_top1"], min_length=1, description=f"any of {', '.join(OBJECTIVES)}"
    )
    early_stopping: Literal["asha", "median", "none"] = Field(
        "asha", description="of trials that fall behind: successive halving, or Optuna's median"
    )
    min_epochs: int | None = Field(
        None, ge=1, description="before a trial may be stopped; default: a ninth of its epochs"
    )
    max_memory_gb: float | None = Field(
        None, gt=0, description="constraint: the most memory that a trial of use may take, in GB"
    )
    warm_start: list[str] = Field(
        [], description='run folders to learn from, as ["runs/queue_size"]'
    )


@dataclass(frozen=True)
class Axis:
    """What one knob may be: one of `choices`, or from `low` to `high`, both included."""

    choices: list[Scalar] = field(default_factory=list)
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False
    """Whole numbers only, as the knob asks."""
    when: dict[str, Scalar] = field(default_factory=dict)
    """Searched only where other knobs have these values."""

    @property
    def least(self) -> int | float:
        """The lowest value of a range."""
        return int(self.low) if self.whole else self.low

    @property
    def most(self) -> int | float:
        """The highest value of a range."""
        return int(self.high) if self.whole else self.high

    @property
    def count(self) -> int | None:
        """The number of values, or None for a continuous range."""
        if self.choices:
            return len(self.choices)
        step = self.step or (1 if self.whole else None)
        return None if step is None else int((self.high - self.low) / step + 1e-8) + 1

    def values(self) -> Iterator[Scalar]:
        """Yield every value of choices, whole numbers or steps, the lowest first."""
        if self.choices:
            yield from self.choices
        elif self.count is not None:
            low, step = Decimal(str(self.low)), Decimal(str(self.step or 1))
            for place in range(self.count):
                value = low + place * step  # 0.3 and not 0.30000000000000004
                yield int(value) if self.whole else float(value)

    def applies(self, params: Mapping[str, Value]) -> bool:
        """Tell whether the knob is searched beside the values of the knobs before it."""
        return all(params.get(other) == value for other, value in self.when.items())

    def share(self, value: Scalar) -> float:
        """Return in which share of its draws a random search gets a value; 1 for any choice."""
        if self.choices or isinstance(value, str):
            return 1.0
        if self.count is None:
            return 0.0
        if self.log:
            return log((value + 0.5) / (value - 0.5)) / log((self.high + 0.5) / (self.low - 0.5))
        return 1 / self.count

    def holds(self, value: Value) -> bool:
        """Tell whether the search could suggest a value."""
        if self.choices:
            return value in self.choices
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-8


@dataclass(frozen=True)
class Search:
    """A declared search."""

    table: SearchTable
    space: dict[str, Axis]
    """In file order."""

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """`maximize` or `minimize`, for each objective."""
        return [OBJECTIVES[name] for name in self.table.objectives]

    def min_epochs(self, epochs: int) -> int:
        """Return after how many of a trial's epochs it may be stopped."""
        return self.table.min_epochs or max(1, epochs // 9)


class _Range(BaseModel):
    low: float = Field(description="the lowest value")
    high: float = Field(description="the highest value")
    log: bool = Field(False, description="even in the logarithm")
    step: float | None = Field(None, gt=0, description="between values, from low on")
    when: dict[str, Scalar] = Field({}, description="searched only where other knobs are so")


class _Choices(BaseModel):
    choices: list[Scalar] = Field(min_length=1, description="the values")
    when: dict[str, Scalar] = Field({}, description="searched only where other knobs are so")


def read_search(table: Mapping[str, Any]) -> Search:
    """Return a table without problems as a search."""
    plain = {key: value for key, value in table.items() if key != "space"}
    return Search(
        SearchTable(**plain),
        {knob: _axis(knob, axis) for knob, axis in table["space"].items()},
    )


def _axis(knob: str, axis: dict[str, Any]) -> Axis:
    if "choices" in axis:
        return Axis(choices=axis["choices"], when=axis.get("when", {}))
    return Axis(
        low=axis["low"],
        high=axis["high"],
        log=axis.get("log", False),
        step=axis.get("step"),
        whole=_kind(knob) is int,
        when=axis.get("when", {}),
    )


def search_problems(
    table: dict[str, Any],
    fixed: dict[str, Any],
    points: list[dict[str, Any]],
    header: dict[str, Any],
    budget: dict[str, Any],
) -> Iterator[Problem]:
    """Yield what is wrong with a `[search]` table, and with what must stand beside it."""
    space = table.get("space")
    plain = {key: value for key, value in table.items() if key != "space"}
    yield from table_problems("search", plain, SearchTable)
    if not isinstance(space, dict) or not space:
        yield Problem(
            "search.space",
            space,
            "must be a table of knobs: [search.space] and then "
            "temperature = { low = 0.05, high = 0.5, log = true }",
        )
        space = {}
    earlier: dict[str, Any] = {}
    for knob, axis in space.items():
        found = list(_axis_problems(knob, axis, earlier, fixed))
        yield from found
        if not found:
            earlier[knob] = axis
    places = {f"points[{index}]": point for index, point in enumerate(points)}
    for place, point in places.items():
        yield from _point_problems(place, point, earlier)
    if isinstance(baseline := header.get("baseline", {}), dict):
        places["study.baseline"] = baseline
    for place, point in places.items():
        for knob in point.keys() - space.keys() if space else ():
            rule = "is not searched; put it in [search.space], or in [trial] for all trials"
            yield Problem(f"{place}.{knob}", point[knob], rule)
    seeds = header.get("seeds")
    if isinstance(seeds, list) and len(seeds) != 1:
        yield Problem(
            "study.seeds",
            seeds,
            "must be one seed: a search trains a suggestion once, and "
            "`confirm` trains the best with fresh seeds",
        )
    if not {"trials", "hours", "gpu_hours"} & set(budget):
        yield Problem(
            "budget",
            budget or None,
            "a search ends with its budget: write [budget] and then "
            "trials = 50, hours = 8.0 or gpu_hours = 24.0",
        )
    if isinstance(objectives := table.get("objectives", []), list):
        yield from _objective_problems(objectives, table, set(space))


def _axis_problems(
    knob: str, axis: Any, earlier: Mapping[str, Any], fixed: Mapping[str, Any]
) -> Iterator[Problem]:
    at = f"search.space.{knob}"
    if knob == "seed":
        yield Problem(at, axis, "seeds belong in [study]: seeds = [1]")
        return
    if knob not in TrialConfig.model_fields:
        hint = did_you_mean(knob, list(TrialConfig.model_fields))
        yield Problem(at, axis, f"unknown key; {hint}")
        return
    if knob in fixed:
        yield Problem(
            f"trial.{knob}", fixed[knob], f"also searched; keep {knob} in one of the two"
        )
    if not isinstance(axis, dict) or ("choices" in axis) == ("low" in axis or "high" in axis):
        yield Problem(at, axis, "must be { low = .., high = .. } or { choices = [..] }")
        return
    model = _Choices if "choices" in axis else _Range
    wrong = list(table_problems(at, axis, model))
    yield from wrong
    if wrong:
        return
    if model is _Choices:
        for index, value in enumerate(axis["choices"]):
            if rule := broken_rule(TrialConfig, knob, value):
                yield Problem(f"{at}.choices[{index}]", value, rule)
        if repeats(axis["choices"]):
            yield Problem(f"{at}.choices", axis["choices"], "has a value twice; name each once")
    else:
        yield from _range_problems(at, knob, axis)
    axes = {other: _axis(other, found) for other, found in earlier.items()}
    yield from when_problems(f"{at}.when", knob, axis.get("when", {}), axes)


def _range_problems(at: str, knob: str, axis: Mapping[str, Any]) -> Iterator[Problem]:
    kind, low, high = _kind(knob), axis["low"], axis["high"]
    if kind is None:
        yield Problem(at, axis, f"{knob} is not a number; use {{ choices = [..] }}")
        return
    for key in ("low", "high", "step"):
        value = axis.get(key)
        if kind is int and isinstance(value, float):
            yield Problem(f"{at}.{key}", value, f"must be a whole number, as {knob} is")
        elif key != "step" and (rule := broken_rule(TrialConfig, knob, value)):
            yield Problem(f"{at}.{key}", value, rule)
    if low >= high:
        yield Problem(f"{at}.high", high, f"must be more than low = {low}")
    if axis.get("log") and low <= 0:
        yield Problem(f"{at}.low", low, "must be more than 0 where log = true")
    if axis.get("log") and axis.get("step") is not None:
        yield Problem(f"{at}.step", axis["step"], "does not go with log = true; leave one out")
    step = axis.get("step")
    if step is not None and high - low > step * MAX_STEPS:
        rule = f"is too small for this range; it makes more than {MAX_STEPS:,} values: "
        yield Problem(f"{at}.step", step, f"{rule}make it larger, or leave it out")


def _point_problems(
    place: str, point: Mapping[str, Any], axes: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield which values of a point the search could not suggest."""
    for knob, value in point.items():
        if knob in axes and not (axis := _axis(knob, axes[knob])).holds(value):
            among = f"choices = {axis.choices}" if axis.choices else f"{axis.least} to {axis.most}"
            among += f" by {axis.step:g}" if axis.step else ""
            rule = f"is outside of what [search.space] has for {knob}: {among}; widen that"
            yield Problem(f"{place}.{knob}", value, rule)


def _objective_problems(
    objectives: list[Any], table: Mapping[str, Any], searched: set[str]
) -> Iterator[Problem]:
    for name in objectives:
        if name not in OBJECTIVES:
            hint = did_you_mean(str(name), list(OBJECTIVES))
            yield Problem("search.objectives", name, f"unknown objective; {hint}")
    if repeats(objectives):
        yield Problem("search.objectives", objectives, "has one twice; name each once")
    if len(objectives) > 1 and table.get("sampler") == "cmaes":
        yield Problem(
            "search.sampler",
            "cmaes",
            'aims at one objective; with several, write sampler = "tpe", "nsga2" or "gp"',
        )
    if len(objectives) > 1 and table.get("early_stopping", "asha") != "none":
        yield Problem(
            "search.early_stopping",
            table.get("early_stopping"),
            'judges by one objective; with several, write early_stopping = "none"',
        )
    elif "gpu_seconds" in objectives and table.get("early_stopping", "asha") != "none":
        yield Problem(
            "search.early_stopping",
            table.get("early_stopping"),
            'gpu_seconds are known at a trial\'s end alone; write early_stopping = "none"',
        )
    if (bad := CONTRASTIVE & set(map(str, objectives))) and (knobs := CHANGES_THE_TASK & searched):
        yield Problem(
            "search.objectives",
            objectives,
            f"{', '.join(sorted(bad))} cannot judge {', '.join(sorted(knobs))}: they make the "
            "contrastive task itself easier or harder, so that an easy task scores high with "
            'features of no use; write objectives = ["val_probe_top1"]',
        )


def _kind(knob: str) -> type | None:
    """Return int or float, as a knob is counted or measured, or None."""
    annotation = TrialConfig.model_fields[knob].annotation
    kinds = {annotation, *get_args(annotation)}
    return next((kind for kind in (int, float) if kind in kinds), None)
