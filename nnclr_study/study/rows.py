"""The rows of a run folder: what a trial says of each epoch, and what became of it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class EpochRow(BaseModel):
    """One epoch of one trial. Accuracies are shares of 1, losses in nats, means over steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int = Field(ge=1)
    c_loss: float
    c_acc: float
    r_acc: float
    p_loss: float
    p_acc: float
    val_p_loss: float
    val_p_acc: float
    val_probe_top1: float
    test_probe_top1: float | None = None
    """Read once: in the row of the last epoch."""
    train_seconds: float
    """Of the epoch's training steps."""
    seconds: float
    """Of the whole epoch: training steps and evaluation."""


class TrialRow(BaseModel):
    """What became of one trial; a later row of the same trial replaces an earlier one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial_id: str
    status: Literal["finished", "failed"]
    seed: int
    config: dict[str, Any]
    epochs: int
    """Epochs done."""
    val_probe_top1: float | None
    test_probe_top1: float | None
    seconds: float
    """Sum over the trial's epochs."""
    error: str | None = None
    host: str | None = None
    device: str | None = None
    session: int
    """Which line of sessions.jsonl the trial ended in, from 0."""
    ended_at: datetime


class Session(BaseModel):
    """One call of `run`: the software, the machine and the command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    started_at: datetime
    command: str
    versions: dict[str, str]
    commit: str | None
    """Of the nnclr-study checkout, with '+changes' where it had uncommitted ones."""
    machine: str
    """That `run` was called on."""
    cpus: float
    gpus: float
    nodes: int
    runner: Literal["train", "in-process"]
    workers: int
    gpus_per_trial: float
    max_concurrent: int
