"""The rows of a run folder: what a trial says of each epoch, and what became of it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from nnclr_study.study.plan import LONGEST_ID

TrialId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]*$", max_length=LONGEST_ID)]
"""Names files, so that it can lead to no other folder."""

Share = Annotated[float, Field(ge=0, le=1)]


def _writable(text: str) -> str:
    """Return text that any file takes: bytes that were no UTF-8 are named."""
    return text.encode(errors="backslashreplace").decode()


Text = Annotated[str, AfterValidator(_writable)]


class EpochRow(BaseModel):
    """One epoch of one trial. Accuracies are shares of 1, losses in nats, means over steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epoch: int = Field(ge=1, le=100_000)
    c_loss: float
    c_acc: float
    r_acc: float
    p_loss: float
    p_acc: float
    val_p_loss: float
    val_p_acc: float
    val_probe_top1: Share
    """Of the fresh linear probe, whose regularisation is chosen on val as well."""
    test_probe_top1: Share | None = None
    """Of the same probe. Read once: in the row of the last epoch."""
    probe_C: float | None = None
    """The chosen inverse strength of the probe's L2 regularisation, as scikit-learn has it."""
    val_knn_top1: float | None = None
    """Of the weighted nearest neighbours among the labelled train features."""
    rankme: float | None = None
    """Effective rank of the val features, in dimensions."""
    alpha_req: float | None = None
    """Exponent at which their covariance spectrum decays; None on collapse."""
    alignment: float | None = None
    """Mean squared distance of two normalised views of a val image, 0 to 4."""
    uniformity: float | None = None
    """Log mean Gaussian potential of the normalised val features; 0 on collapse."""
    feature_std: float | None = None
    """Mean standard deviation of a dimension of the normalised val features."""
    nn_same_label: float | None = None
    """Share of neighbours with the label of the image that found them, where both are known.

    None without a queue, or where none was known.
    """
    nn_age: float | None = None
    """Mean age of a neighbour, in steps since it was pushed; None without a queue."""
    queue_used: float | None = None
    """Share of all rows in the queue during the epoch that were anyone's neighbour in it.

    None without a queue.
    """
    train_seconds: float
    """Of the epoch's training steps."""
    seconds: float
    """Of the whole epoch: training steps and evaluation."""


class TrialRow(BaseModel):
    """What became of one trial; a later row of the same trial replaces an earlier one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trial_id: TrialId
    status: Literal["finished", "failed", "stopped"]
    """Stopped: by a search's early stopping, before its last epoch."""
    seed: int
    config: dict[str, Any]
    epochs: int
    """Epochs done."""
    val_probe_top1: Share | None
    test_probe_top1: Share | None
    seconds: float
    """Sum over the trial's epochs."""
    gpu_seconds: float = 0.0
    """Those seconds times the GPUs that it held."""
    peak_memory_bytes: int | None = Field(None, ge=0, lt=2**63)
    """The most that the first worker took: of its GPU's memory, or on a CPU its whole process."""
    error: Text | None = None
    host: Text | None = None
    device: Text | None = None
    session: int = Field(ge=0)
    """The number of the session in which the trial ended."""
    started_at: AwareDatetime | None = None
    """In that session; a resumed trial began in an earlier one."""
    ended_at: AwareDatetime


class Suggestion(BaseModel):
    """A trial that a search began: what its sampler chose."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trial_id: TrialId
    number: int = Field(ge=0)
    """Its place in the search, from 0."""
    params: dict[str, int | float | str | bool]
    """The searched knobs that apply; the others are as in `[trial]`, or by default."""


class EvaluationRow(BaseModel):
    """What a protocol of `evaluate` said of a trial. Accuracies are shares of 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trial_id: TrialId
    protocol: str
    epoch: int
    """Of the checkpoint."""
    labels: int
    """Labelled train images that were used."""
    val_top1: float
    test_top1: float
    chosen: dict[str, float]
    """What val chose, by name."""
    seconds: float
    device: str
    ended_at: AwareDatetime


class Session(BaseModel):
    """One call of `run`: the software, the machine and the command."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: int = Field(0, ge=0)
    """Its line in sessions.jsonl, from 0: rows name it so."""
    started_at: AwareDatetime
    command: Text
    versions: dict[str, str]
    commit: str | None
    """Of the nnclr-study checkout, with '+changes' where it had uncommitted ones."""
    machine: str
    """That `run` was called on."""
    images: dict[str, str] = {}
    """What its trials saw: each data set's content, as a hash of pixels and labels."""
    cpus: float
    gpus: float
    nodes: int
    runner: Literal["train", "in-process"]
    workers: int
    gpus_per_trial: float
    max_concurrent: int

    @property
    def ran_with(self) -> dict[str, str]:
        """Versions and images, each by the name that a report gives it."""
        return self.versions | {f"images of {name}": seen for name, seen in self.images.items()}
