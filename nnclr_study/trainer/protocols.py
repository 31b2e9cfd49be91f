"""What a trial's encoder is worth, by protocols that cost more than the probe of every epoch."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnclr_study.errors import UsageError
from nnclr_study.trainer import augment
from nnclr_study.trainer.checkpoint import encoder_state
from nnclr_study.trainer.data import SPLIT_SEED, batches
from nnclr_study.trainer.encoder import build_encoder, initialise
from nnclr_study.trainer.evaluate import LinearProbe, encode, images_at_once, knn_top1
from nnclr_study.trainer.images import Dataset, Split
from nnclr_study.trainer.loop import Snapshot
from nnclr_study.trainer.optimizers import KerasAdam
from nnclr_study.trainer.runtime import autocast, settle
from nnclr_study.trainer.world import CPU, World, random_stream

PERCENTS = (1, 10, 100)
"""Of the labelled train images that are used."""
PROTOCOLS = (
    "linear",
    "knn",
    *(f"{kind}-{percent}" for percent in PERCENTS for kind in ("supervised", "finetune")),
)
BATCH = 64
STEPS = 1_000
"""64,000 images, half as many as the Keras example's fine-tuning sees."""
CHECK_EVERY = 100
"""Steps from one look at val to the next; the best of these is kept."""
LEARNING_RATES = (1e-3, 3e-4)
"""Adam's: the Keras example's, and a gentler one; the better on val is kept."""


class Subject(NamedTuple):
    """An encoder that is to be scored."""

    build: Callable[[], nn.Module]
    """Returns its architecture, with whatever weights."""
    tensors: dict[str, Tensor]
    """Its state dict, as pretraining left it."""
    features: int
    """Dimension of its output."""
    seed: int
    precision: str
    at_once: int = BATCH
    """Number of images that it encodes at a time: at most what a step of fine-tuning holds with
    its gradients, since pretraining may have had several workers."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Return a trial's encoder."""
        config = snapshot.config
        build = partial(build_encoder, config, config.image_size)
        state = encoder_state(snapshot)
        fitting = min(images_at_once(config), 2 * BATCH)
        return cls(build, state, config.features, config.seed, config.precision, fitting)


class Score(NamedTuple):
    """A protocol's result. All choices are made on val; test is read once, after them."""

    labels: int
    """Labelled train images that were used."""
    val_top1: float
    test_top1: float
    chosen: dict[str, float]
    """What val chose: C of the linear probe; learning_rate and step of a training."""


def score(protocol: str, subject: Subject, data: Dataset, world: World) -> Score:
    """Return what a protocol, one of `PROTOCOLS`, says of an encoder.

    linear: logistic regression on frozen features. knn: weighted nearest neighbours among
    them. finetune-P: encoder and a new classifier, trained on P % of the labels.
    supervised-P: the same training of an encoder that was never pretrained. On a CPU the
    result is a function of its weights to the bit.
    """
    settle(world.device, subject.precision)
    data = data.on(world.device, world.gpu_share)
    if protocol in ("linear", "knn"):
        encoder = _encoder(subject, True, world)
        return (_linear if protocol == "linear" else _knn)(encoder, subject, data, world)
    kind, percent = protocol.split("-")
    return _trained(subject, kind == "finetune", int(percent), data, world)


def labelled_share(labels_N: Tensor, percent: int) -> Tensor:
    """Return the rows of `percent` % of each class, one of each at the least, in order.

    The same in every trial; a smaller share is part of a larger one.
    """
    shuffled = torch.randperm(len(labels_N), generator=random_stream(SPLIT_SEED, "labels", 0, CPU))
    labels = labels_N.cpu()[shuffled]
    rows = []
    for kind in range(int(labels.max()) + 1):
        of_kind = shuffled[labels == kind]
        rows.append(of_kind[: max(1, round(len(of_kind) * percent / 100))])
    return torch.cat(rows).sort().values


def _linear(encoder: nn.Module, subject: Subject, data: Dataset, world: World) -> Score:
    train, val, test = _features(encoder, subject.at_once, data, world)
    probe = LinearProbe.chosen(train, data.train.labels, val, data.val.labels, data.num_classes)
    return Score(
        len(train),
        probe.top1(val, data.val.labels),
        probe.top1(test, data.test.labels),
        {"C": probe.C},
    )


def _knn(encoder: nn.Module, subject: Subject, data: Dataset, world: World) -> Score:
    train, val, test = _features(encoder, subject.at_once, data, world)
    of_val, of_test = (
        knn_top1(train, data.train.labels, features, split.labels, data.num_classes)
        for features, split in ((val, data.val), (test, data.test))
    )
    return Score(len(train), of_val, of_test, {})


def _features(encoder: nn.Module, at_once: int, data: Dataset, world: World) -> list[Tensor]:
    splits = (data.train, data.val, data.test)
    found = [encode(encoder, split.images, world, most=at_once) for split in splits]
    if not all(features.isfinite().all() for features in found):
        raise UsageError(
            "the encoder turns these images into features that are not finite numbers, which "
            "cannot be scored; check its weights, and the --normalise of a file"
        )
    return found


def _trained(
    subject: Subject, pretrained: bool, percent: int, data: Dataset, world: World
) -> Score:
    rows = labelled_share(data.train.labels, percent)
    train = Split(data.train.images.some(rows), data.train.labels[rows.to(world.device)])
    best, best_model, chosen = -1.0, None, {}
    for rate in LEARNING_RATES:
        encoder = _encoder(subject, pretrained, world)
        model = nn.Sequential(encoder, _classifier(subject, data.num_classes, world))
        for step in _train(model, train, subject, rate, world):
            val = _top1(model, subject, data.val, world)
            if val > best:
                best, best_model = val, deepcopy(model)
                chosen = {"learning_rate": rate, "step": step}
    assert best_model is not None
    return Score(len(rows), best, _top1(best_model, subject, data.test, world), chosen)


def _train(
    model: nn.Module, train: Split, subject: Subject, rate: float, world: World
) -> Iterator[int]:
    """Train a classifier; yield the number of steps taken whenever val is to be looked at."""
    optimizer = KerasAdam(model.parameters(), lr=rate, fused=world.device.type == "cuda")
    size = min(BATCH, len(train.labels))
    order = batches(len(train.labels), size, range(STEPS), subject.seed, "fine-tuning order")
    randomness = random_stream(subject.seed, "fine-tuning views", 0, world.device)
    for step, rows_B in enumerate(order.to(train.images[:0].device), start=1):
        images = train.images[rows_B].to(world.device)
        view = augment.draw(augment.PROBE_RECIPE, size, randomness)
        model.train()
        with autocast(subject.precision, world.device):
            logits = model(augment.apply(images, view))
        optimizer.zero_grad()
        labels = train.labels[rows_B.to(world.device)]
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % CHECK_EVERY == 0 or step == STEPS:
            yield step


def _top1(model: nn.Module, subject: Subject, split: Split, world: World) -> float:
    logits = encode(model, split.images, world, most=subject.at_once)
    return float((logits.argmax(1) == split.labels).double().mean())


def _encoder(subject: Subject, pretrained: bool, world: World) -> nn.Module:
    """Return an encoder as pretraining left it, or one that has learned nothing."""
    encoder = subject.build()
    if pretrained:
        encoder.load_state_dict(subject.tensors)
    else:
        initialise(encoder, random_stream(subject.seed, "supervised", 0, CPU))
    return encoder.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _classifier(subject: Subject, num_classes: int, world: World) -> nn.Module:
    classifier = nn.Linear(subject.features, num_classes)
    initialise(classifier, random_stream(subject.seed, "classifier", 0, CPU))
    return classifier.to(world.device)
