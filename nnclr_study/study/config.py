"""Every knob of one trial: default, bounds, unit and reason."""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrialConfig(BaseModel):
    """One trial, complete and resolved; the defaults are the Keras example's.

    Raises:
        pydantic.ValidationError: an unknown key, a value out of bounds, or values that
            do not fit each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    dataset: Literal["digits", "stl10"] = Field(
        "stl10", description="images: 'digits' (embedded, 32 px) or 'stl10' (96 px)"
    )
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of the labelled training images held out as val"
    )
    epochs: int = Field(25, ge=1, le=100_000, description="epochs of pretraining")
    steps_per_epoch: int = Field(200, ge=1, le=1_000_000, description="steps in an epoch")
    batch_size: int = Field(500, ge=1, le=1_000_000, description="unlabelled images in a step")
    labelled_batch_size: int = Field(
        25, ge=1, le=1_000_000, description="labelled images in a step; the online probe's batch"
    )
    width: int = Field(128, ge=1, le=65_536, description="channels and features of the encoder")
    projection_dim: int = Field(
        ge=1, le=65_536, description="dimension of projections and queue; default: as width"
    )
    queue_size: int = Field(
        10_000, ge=0, le=100_000_000, description="rows of the support set; 0: none (SimCLR)"
    )
    temperature: float = Field(0.1, gt=0, le=100, description="divides the similarities")
    aug_strength: float = Field(
        1.0, ge=0, le=1.2, description="0 keeps only the flip; 1 is the Keras example's"
    )
    learning_rate: float = Field(1e-3, gt=0, le=100, description="Adam, encoder and head")
    probe_learning_rate: float = Field(1e-3, gt=0, le=100, description="Adam, online probe")
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="of weights, data order, augmentation and queue"
    )

    @model_validator(mode="before")
    @classmethod
    def _projection_follows_width(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {"projection_dim": values.get("width", cls.model_fields["width"].default)} | values

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> Self:
        if 0 < self.queue_size < self.global_batch:
            raise ValueError(
                f"queue_size={self.queue_size} cannot hold one global batch of "
                f"{self.global_batch} (batch_size + labelled_batch_size); use queue_size >= "
                f"{self.global_batch}, 0 for none, or a smaller batch_size"
            )
        return self

    @property
    def global_batch(self) -> int:
        """Images in one contrastive step, over all workers."""
        return self.batch_size + self.labelled_batch_size

    @property
    def digest(self) -> str:
        """Six hex digits that follow every knob of the config."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:6]
