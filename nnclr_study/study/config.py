"""Every knob of one trial: default, bounds, unit and reason."""

import hashlib
import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from nnclr_study.errors import UsageError
from nnclr_study.study.augmentation import RECIPES, following
from nnclr_study.study.plugins import NAME, PREFIX, installed, is_plugin

FEATURES_PER_WIDTH = {"conv4": 1, "resnet18": 8, "resnet50": 32}
IMAGE_SIZES = {"digits": 32, "synthetic": 32, "stl10": 96, "cifar10": 32, "cifar100": 32}
"""The side of each named data set's own images, in pixels; an image folder's have none."""
FOLDER_IMAGE_SIZE = 224
OWN = {
    "dataset": tuple(IMAGE_SIZES),
    "encoder": tuple(FEATURES_PER_WIDTH),
    "aug_recipe": tuple(RECIPES),
}
"""What each knob that may name a plug-in has beside them."""


def _known(knob: str, name: str) -> str:
    folder = knob == "dataset"
    if name in OWN[knob] or is_plugin(name) or (folder and re.fullmatch(f"folder:{NAME}", name)):
        return name
    names = {own: own for own in OWN[knob]}
    names |= {plugin.entry.name: plugin.value for plugin in installed(knob)}
    close = get_close_matches(name.removeprefix(PREFIX), names, n=1)
    hint = f'did you mean "{names[close[0]]}"? ' if close else ""
    folders = "folder:NAME for the image folder NAME, " if folder else ""
    raise ValueError(
        f"{hint}use one of {', '.join(OWN[knob])}, {folders}or plugin:NAME for what an installed "
        "package brings (letters, digits, '.', '_' and '-', at most 100)"
    )


class TrialConfig(BaseModel):
    """One trial, complete and resolved; the defaults are the Keras example's.

    Raises:
        pydantic.ValidationError: an unknown key, a value out of bounds, or values that
            do not fit each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    dataset: Annotated[str, AfterValidator(partial(_known, "dataset"))] = Field(
        "stl10", description="images: a data set by its name, folder:NAME or plugin:NAME"
    )
    image_size: int = Field(
        default_factory=lambda known: IMAGE_SIZES.get(known["dataset"], FOLDER_IMAGE_SIZE),
        ge=31,
        le=1_024,
        description="side of the images in pixels; default: the data set's own, or 224",
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
    encoder: Annotated[str, AfterValidator(partial(_known, "encoder"))] = Field(
        "conv4", description="'conv4' is the Keras example's; ResNets as torchvision has them"
    )
    width: int = Field(
        default_factory=lambda known: 64 if known["encoder"].startswith("resnet") else 128,
        ge=1,
        le=65_536,
        description="channels of conv4, or of a ResNet's first stage, or a plug-in's features; "
        "default: 128, a ResNet's 64",
    )
    projector_depth: int = Field(2, ge=1, le=10, description="linear layers of the projector")
    projector_width: int = Field(
        default_factory=lambda known: known["width"] * FEATURES_PER_WIDTH.get(known["encoder"], 1),
        ge=1,
        le=1_000_000,
        description="of the projector's hidden layers; default: as many as features",
    )
    projection_dim: int = Field(
        default_factory=lambda known: known["width"],
        ge=1,
        le=65_536,
        description="dimension of projections and queue; default: as width",
    )
    predictor_width: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="hidden width of the paper's prediction head; left out: no such head",
    )
    head_batch_norm: bool = Field(
        False, description="batch norm in projector and predictor, as in the paper"
    )
    queue_size: int = Field(
        10_000, ge=0, le=100_000_000, description="rows of the support set; 0: none (SimCLR)"
    )
    neighbours: int = Field(
        1, ge=1, le=1_024, description="nearest rows of which one at random is the neighbour"
    )
    pushed_views: Literal[1, 2] = Field(
        1, description="views whose projections enter the queue: the first, or both"
    )
    encoder_momentum: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of the weights whose projections are looked up and queued; left out: none",
    )
    temperature: float = Field(0.1, gt=0, le=100, description="divides the similarities")
    aug_recipe: Annotated[str, AfterValidator(partial(_known, "aug_recipe"))] = Field(
        "brightness", description="augmentation; 'brightness' is the Keras example's"
    )
    aug_strength: float = Field(
        1.0, ge=0, le=1.2, description="0 keeps only the flip; 1 is the recipe's own"
    )
    crop_min_area: float = Field(
        default_factory=following("crop_min_area"),
        gt=0,
        le=1,
        description="smallest crop as a share of the image; default: by recipe and strength",
    )
    crop_max_aspect: float = Field(
        default_factory=following("crop_max_aspect"),
        ge=1,
        le=10,
        description="a crop's longer side by its shorter; default: by recipe and strength",
    )
    flip_prob: float = Field(0.5, ge=0, le=1, description="of flipping left and right")
    brightness_shift: float = Field(
        default_factory=following("brightness_shift"),
        ge=0,
        le=1,
        description="largest, in shares of the value range; default: by recipe and strength",
    )
    jitter_prob: float = Field(0.8, ge=0, le=1, description="of the four colour jitters at once")
    jitter_brightness: float = Field(
        default_factory=following("jitter_brightness"),
        ge=0,
        le=1,
        description="its factor's distance from 1; default: by recipe and strength",
    )
    jitter_contrast: float = Field(
        default_factory=following("jitter_contrast"),
        ge=0,
        le=1,
        description="its factor's distance from 1; default: by recipe and strength",
    )
    jitter_saturation: float = Field(
        default_factory=following("jitter_saturation"),
        ge=0,
        le=1,
        description="its factor's distance from 1; default: by recipe and strength",
    )
    jitter_hue: float = Field(
        default_factory=following("jitter_hue"),
        ge=0,
        le=0.5,
        description="largest turn of the colour circle; default: by recipe and strength",
    )
    grey_prob: float = Field(
        default_factory=following("grey_prob"),
        ge=0,
        le=1,
        description="of losing all colour; default: by recipe and strength",
    )
    blur_prob: float = Field(
        default_factory=following("blur_prob"),
        ge=0,
        le=1,
        description="of a Gaussian blur; default: by recipe and strength",
    )
    blur_min_sigma: float = Field(0.1, gt=0, le=100, description="least blur, in pixels")
    blur_max_sigma: float = Field(2.0, gt=0, le=100, description="most blur, in pixels")
    solarise_prob: float = Field(
        0.0, ge=0, le=1, description="of inverting all values from solarise_threshold on"
    )
    solarise_threshold: float = Field(
        0.5, ge=0, le=1, description="of solarising, in shares of the value range"
    )
    view2_blur_prob: float = Field(
        default_factory=lambda known: known["blur_prob"],
        ge=0,
        le=1,
        description="blur_prob of the second view; default: of both",
    )
    view2_solarise_prob: float = Field(
        default_factory=lambda known: known["solarise_prob"],
        ge=0,
        le=1,
        description="solarise_prob of the second view; default: of both",
    )
    neighbour_gradient: Literal["straight_through", "stop"] = Field(
        "straight_through",
        description="a projection's gradient through its neighbour, or none as in the paper",
    )
    loss_blocks: Literal[2, 4] = Field(
        4, description="2: the paper's; 4: the Keras example's, with their transposes"
    )
    optimizer: Literal["adam", "adamw", "sgd", "lars"] = Field(
        "adam", description="of encoder and head; adam: with Keras's epsilon"
    )
    learning_rate: float = Field(1e-3, gt=0, le=1_000, description="of encoder and head")
    optimizer_momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and lars")
    lars_trust: float = Field(1e-3, gt=0, le=1, description="lars: its trust coefficient")
    lars_clip: bool = Field(
        False, description="lars: never scale a layer's learning rate beyond learning_rate"
    )
    weight_decay: float = Field(
        0.0, ge=0, le=10, description="of weights; biases and norms are spared"
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate after its warm-up"
    )
    warmup_epochs: int = Field(0, ge=0, le=100_000, description="of linear warm-up")
    gradient_clip: float | None = Field(
        None, gt=0, description="largest norm of the gradient; left out: none"
    )
    micro_batches: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="parts in which a batch passes the encoder, to save memory; one loss",
    )
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="of products in augmentation, encoder, heads and look-up; `doctor` measures "
        "what bf16 gains on a processor",
    )
    compile: bool = Field(False, description="compile the encoder (torch.compile)")
    probe_learning_rate: float = Field(1e-3, gt=0, le=100, description="Adam, online probe")
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="of weights, data order, augmentation and queue"
    )

    @model_validator(mode="after")
    def _knobs_fit(self) -> Self:
        if misfits := list(self._misfits()):
            raise ValueError("; ".join(misfits))
        return self

    def _misfits(self) -> Iterator[str]:
        """Yield why knobs do not fit each other, and the way out."""
        pushed = self.pushed_views * self.global_batch
        if 0 < self.queue_size < pushed:
            batches = "one global batch" if self.pushed_views == 1 else "two views"
            yield (
                f"queue_size={self.queue_size} cannot hold {batches} of {self.global_batch} "
                f"(batch_size + labelled_batch_size); use queue_size >= {pushed}, 0 for none, "
                "or a smaller batch_size"
            )
        if 0 < self.queue_size < self.neighbours:
            yield (
                f"neighbours={self.neighbours} is more than queue_size={self.queue_size}; "
                f"use neighbours <= {self.queue_size}"
            )
        if self.micro_batches > self.global_batch:
            yield (
                f"micro_batches={self.micro_batches} is more than the {self.global_batch} "
                f"images of a global batch; use micro_batches <= {self.global_batch}"
            )
        if self.warmup_epochs >= self.epochs:
            yield (
                f"warmup_epochs={self.warmup_epochs} leaves none of epochs={self.epochs} to "
                f"train in; use warmup_epochs < {self.epochs}"
            )
        if self.blur_min_sigma > self.blur_max_sigma:
            yield (
                f"blur_min_sigma={self.blur_min_sigma} lies above blur_max_sigma="
                f"{self.blur_max_sigma}; use blur_min_sigma <= {self.blur_max_sigma}"
            )

    @property
    def features(self) -> int:
        """Dimension of the encoder's output."""
        return self.width * FEATURES_PER_WIDTH.get(self.encoder, 1)

    @property
    def global_batch(self) -> int:
        """Images in one contrastive step, over all workers."""
        return self.batch_size + self.labelled_batch_size

    @property
    def digest(self) -> str:
        """Six hex digits that follow every knob of the config."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:6]


def images_config(dataset: str, image_size: int | None = None) -> TrialConfig:
    """Return a config that stands for images alone: no batch asks for more than there are.

    Raises:
        UsageError: there is no such data set, or the size is out of bounds.
    """
    size = {} if image_size is None else {"image_size": image_size}
    one = {"batch_size": 1, "labelled_batch_size": 1, "queue_size": 0}
    try:
        return TrialConfig.model_validate({"dataset": dataset} | size | one)
    except ValidationError as error:
        first = error.errors()[0]
        of_size = image_size is not None and first["loc"] != ("dataset",)
        wrong = f"--image-size {image_size}" if of_size else f"dataset {dataset!r}"
        rule = str(first["msg"]).removeprefix("Value error, ")
        raise UsageError(f"{wrong}: {rule}") from None
