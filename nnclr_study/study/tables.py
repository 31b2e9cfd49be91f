"""The tables of a study file that are no knobs: each a model with its rules, read strictly."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nnclr_study.study.search import Scalar

MAX_TRIALS = 100_000

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_Share = Annotated[float, Field(ge=0, le=1)]


class StudyTable(BaseModel):
    """The `[study]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(
        pattern=_NAME,
        description="the run folder's name: letters, digits, '_' and '-', at most 64",
    )
    question: str = Field(
        "", max_length=500, description="what the study asks, for the page's head"
    )
    seeds: list[Annotated[int, Field(ge=0, le=2**32 - 1)]] = Field(
        min_length=1, max_length=1_000, description="one trial a seed in every condition"
    )
    baseline: dict[str, Scalar] = Field(
        {},
        description="the condition that the others are compared with, as { queue_size = 0 }; "
        "default: the first one; a search never stops it early",
    )
    margin_points: float = Field(
        0.5,
        gt=0,
        le=100,
        description="the smallest difference of accuracy that matters, in percentage points",
    )


class BudgetTable(BaseModel):
    """The `[budget]` table: what ends a study before its last trial. Running trials finish."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    trials: int | None = Field(None, ge=1, le=MAX_TRIALS, description="begun, over all calls")
    hours: float | None = Field(None, gt=0, description="of `run`, over all calls")
    gpu_hours: float | None = Field(None, gt=0, description="of all GPUs together")
    max_failures: int = Field(
        10, ge=1, description="trials that fail with the same error and end the study"
    )


class ReferenceTable(BaseModel):
    """A `[[references]]` table: an accuracy that others published, of another setup."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    label: str = Field(
        min_length=1, max_length=80, description="as the page names it, in at most 80 characters"
    )
    test_top1: float = Field(ge=0, le=100, description="accuracy on the test split, in per cent")
    source: str = Field(
        min_length=1,
        max_length=300,
        description="a citation or an address, in at most 300 characters",
    )


class ConfirmationTable(BaseModel):
    """The `[confirmation]` table, which `confirm` writes: how the points came to be chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    run: str = Field(pattern=_NAME, description="name of the study whose best are confirmed")
    val_probe_top1: list[_Share] | None = Field(
        None,
        min_length=1,
        description="means there, as shares of 1, by which the [[points]] after the first were "
        "chosen; one for each, in their order; left out where trials there had other epochs",
    )
