"""The rows of a run folder: what a trial says of each epoch, and what became of it.

Rows may come from somebody else. The types here bound every number and every text, so that what
is computed from rows that pass stays finite: nothing after this module checks again.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from nnclr_study.errors import cut
from nnclr_study.study.plan import LONGEST_ID

LARGEST = 3.5e38
"""Absolute value of a number: what float32, in which trials compute, can hold. Sums of squares
of such numbers are finite in double precision."""
TINIEST = 1e-30
"""Absolute value below which a number is taken as 0: divisions by it would overflow."""
SHORTEST_SECONDS = 1e-9
LONGEST_SECONDS = 1e11
"""About 3,000 years, for sums over trials."""
MOST = 10**9
"""Value of a count: epochs, sessions, nodes, images."""
MOST_BYTES = 10**15
"""Bytes of memory; a table writes larger numbers as 1e+16, which is not a whole number."""
LONGEST_TEXT = 10_000
"""Characters of a text; longer ones are cut."""
LONGEST_KEY = 200
"""Characters of a key of a mapping, such as the name of a knob or a package."""
MOST_KEYS = 1_000
"""Keys of a mapping."""
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

TrialId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]*$", max_length=LONGEST_ID)]
"""Names files, so that it can lead to no other folder."""


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is {value}, not a number")
    return value


def _rounded(value: float) -> float:
    return value if abs(value) >= TINIEST else 0.0


def _writable(text: str) -> str:
    """Return text that any file takes: control characters and half pairs are named."""
    return cut(_CONTROL.sub(lambda found: ascii(found[0])[1:-1], text), LONGEST_TEXT)


def _measured(seconds: float) -> float:
    return seconds if seconds >= SHORTEST_SECONDS else 0.0


Number = Annotated[
    float, Field(ge=-LARGEST, le=LARGEST), AfterValidator(_rounded), BeforeValidator(_not_bool)
]
Share = Annotated[float, Field(ge=0, le=1), AfterValidator(_rounded), BeforeValidator(_not_bool)]
Seconds = Annotated[
    float,
    Field(ge=0, le=LONGEST_SECONDS),
    AfterValidator(_measured),
    BeforeValidator(_not_bool),
]
Amount = Annotated[
    float, Field(ge=0, le=MOST), AfterValidator(_measured), BeforeValidator(_not_bool)
]
Count = Annotated[int, Field(ge=0, le=MOST), BeforeValidator(_not_bool)]
Epoch = Annotated[int, Field(ge=1, le=100_000), BeforeValidator(_not_bool)]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Text = Annotated[str, AfterValidator(_writable)]
Key = Annotated[str, Field(max_length=LONGEST_KEY), AfterValidator(_writable)]
Texts = Annotated[dict[Key, Text], Field(max_length=MOST_KEYS)]
KnobValue = bool | Integer | Annotated[float, Field(ge=-LARGEST, le=LARGEST)] | Text
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC)),
]
"""A time with its zone; the bounds leave room to compute with it."""


class EpochRow(BaseModel):
    """One epoch of one trial. Accuracies are shares of 1, losses in nats, means over steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epoch: Epoch
    c_loss: Number
    c_acc: Number
    r_acc: Number
    p_loss: Number
    p_acc: Number
    val_p_loss: Number
    val_p_acc: Number
    val_probe_top1: Share
    """Of the fresh linear probe, whose regularisation is chosen on val as well."""
    test_probe_top1: Share | None = None
    """Of the same probe. Read once: in the row of the last epoch."""
    probe_C: Number | None = None
    """The chosen inverse strength of the probe's L2 regularisation, as scikit-learn has it."""
    val_knn_top1: Number | None = None
    """Of the weighted nearest neighbours among the labelled train features."""
    rankme: Number | None = None
    """Effective rank of the val features, in dimensions."""
    alpha_req: Number | None = None
    """Exponent at which their covariance spectrum decays; None on collapse."""
    alignment: Number | None = None
    """Mean squared distance of two normalised views of a val image, 0 to 4."""
    uniformity: Number | None = None
    """Log mean Gaussian potential of the normalised val features; 0 on collapse."""
    feature_std: Number | None = None
    """Mean standard deviation of a dimension of the normalised val features."""
    nn_same_label: Number | None = None
    """Share of neighbours with the label of the image that found them, where both are known.

    None without a queue, or where none was known.
    """
    nn_age: Number | None = None
    """Mean age of a neighbour, in steps since it was pushed; None without a queue."""
    queue_used: Number | None = None
    """Share of all rows in the queue during the epoch that were anyone's neighbour in it.

    None without a queue.
    """
    train_seconds: Seconds
    """Of the epoch's training steps."""
    seconds: Seconds
    """Of the whole epoch: training steps and evaluation."""


class TrialRow(BaseModel):
    """What became of one trial; a later row of the same trial replaces an earlier one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trial_id: TrialId
    status: Literal["finished", "failed", "stopped"]
    """Stopped: by a search's early stopping, before its last epoch."""
    seed: Annotated[Integer, BeforeValidator(_not_bool)]
    config: Annotated[dict[Key, KnobValue | None], Field(max_length=MOST_KEYS)]
    epochs: Count
    """Epochs done."""
    val_probe_top1: Share | None
    test_probe_top1: Share | None
    seconds: Seconds
    """Sum over the trial's epochs."""
    gpu_seconds: Seconds = 0.0
    """Those seconds times the GPUs that it held."""
    peak_memory_bytes: int | None = Field(None, ge=0, lt=MOST_BYTES)
    """The most that the first worker took: of its GPU's memory, or on a CPU its whole process."""
    error: Text | None = None
    host: Text | None = None
    device: Text | None = None
    session: Count
    """The number of the session in which the trial ended."""
    started_at: Moment | None = None
    """In that session; a resumed trial began in an earlier one."""
    ended_at: Moment

    @model_validator(mode="after")
    def _finished_with_scores(self) -> Self:
        if self.status == "finished" and None in (self.val_probe_top1, self.test_probe_top1):
            raise ValueError("a finished trial has val_probe_top1 and test_probe_top1")
        return self


class Suggestion(BaseModel):
    """A trial that a search began: what its sampler chose."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trial_id: TrialId
    number: Count
    """Its place in the search, from 0."""
    params: Annotated[dict[Key, KnobValue], Field(max_length=MOST_KEYS)]
    """The searched knobs that apply; the others are as in `[trial]`, or by default."""


class EvaluationRow(BaseModel):
    """What a protocol of `evaluate` said of a trial. Accuracies are shares of 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trial_id: TrialId
    protocol: Text
    epoch: Epoch
    """Of the checkpoint."""
    labels: Count
    """Labelled train images that were used."""
    val_top1: Share
    test_top1: Share
    chosen: Annotated[dict[Key, Number], Field(max_length=MOST_KEYS)]
    """What val chose, by name."""
    seconds: Seconds
    device: Text
    ended_at: Moment


class Session(BaseModel):
    """One call of `run`: the software, the machine and the command."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: Count = 0
    """Its line in sessions.jsonl, from 0: rows name it so."""
    started_at: Moment
    command: Text
    versions: Texts
    commit: Text | None
    """Of the nnclr-study checkout, with '+changes' where it had uncommitted ones."""
    machine: Text
    """That `run` was called on."""
    images: Texts = {}
    """What its trials saw: each data set's content, as a hash of pixels and labels."""
    cpus: Amount
    gpus: Amount
    nodes: Count
    runner: Literal["train", "in-process"]
    workers: Count
    gpus_per_trial: Amount
    max_concurrent: Count

    @property
    def ran_with(self) -> dict[str, str]:
        """Versions and images, each by the name that a report gives it."""
        return self.versions | {f"images of {name}": seen for name, seen in self.images.items()}
