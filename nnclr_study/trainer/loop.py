"""A whole trial: `train` yields its state after every epoch; the caller keeps what it wants."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import monotonic

import torch
import torch.nn.functional as F
from torch import Tensor

from nnclr_study.errors import StudyError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.rows import EpochRow
from nnclr_study.trainer import augment, scores
from nnclr_study.trainer.data import batches
from nnclr_study.trainer.evaluate import LinearProbe, encode, images_at_once, knn_top1
from nnclr_study.trainer.feed import feed, must_stream
from nnclr_study.trainer.images import Dataset
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.plugins import augmentation
from nnclr_study.trainer.runtime import settle
from nnclr_study.trainer.world import World, random_stream

COLLAPSED = 1e-3
"""Of features whose spread is less than this share of that over the whole sphere."""


class DivergedError(StudyError):
    """A loss that is no longer a number, or features that are all the same: no result."""

    exit_code = 1

    def __init__(self, reason: str, epoch: int) -> None:
        last = f"the last good epoch is {epoch - 1}" if epoch > 1 else "no epoch was good"
        super().__init__(f"{reason} in epoch {epoch}; {last}")


@dataclass(frozen=True)
class Snapshot:
    """A trial after an epoch: all its rows so far and all that it needs to go on.

    The tensors are the live ones: save them before the next epoch is asked for.
    """

    config: TrialConfig
    rows: list[EpochRow]
    tensors: dict[str, Tensor]


def train(
    config: TrialConfig, data: Dataset, world: World, resume: Snapshot | None = None
) -> Iterator[Snapshot]:
    """Train a trial and yield a snapshot an epoch, from where `resume` left off.

    On a CPU the rows are a function of the config to the bit, resumed or not; so it computes
    in one thread, whatever the machine has. All workers of a world yield the same rows.

    Raises:
        DivergedError: a metric is not finite, or the features collapsed.
        PluginError: a plug-in is missing, fails, or is not what it should be.
    """
    settle(world.device, config.precision)
    learner = Learner(config, data.side, data.num_classes, world)
    rows: list[EpochRow] = []
    if resume is not None:
        learner.load_state_dict(resume.tensors)
        rows = list(resume.rows)
        learner.steps_taken = len(rows) * config.steps_per_epoch
    data = data.on(world.device, world.gpu_share)
    for epoch in range(len(rows), config.epochs):
        started = monotonic()
        metrics = _train_epoch(learner, data, epoch)
        _check_finite({"c_loss": metrics["c_loss"]}, epoch)
        trained = monotonic()
        worth = _evaluate(learner, data, epoch)
        _check_finite(metrics | worth, epoch)
        row = EpochRow(
            epoch=epoch + 1,
            **metrics,
            **worth,
            train_seconds=trained - started,
            seconds=monotonic() - started,
        )
        rows = [*rows, row]
        yield Snapshot(config, rows, learner.state_dict())


def _check_finite(measured: Mapping[str, float | None], epoch: int) -> None:
    for name, value in measured.items():
        if value is not None and not math.isfinite(value):
            raise DivergedError(f"{name} is {value}", epoch + 1)


def _train_epoch(learner: Learner, data: Dataset, epoch: int) -> dict[str, float]:
    """Take the steps of one epoch; return the mean of each metric over them."""
    config, world = learner.config, learner.world
    steps = range(epoch * config.steps_per_epoch, (epoch + 1) * config.steps_per_epoch)
    unlabelled, labelled = (
        batches(count, size, steps, config.seed, name)
        for count, size, name in (
            (len(data.unlabelled), config.batch_size, "unlabelled order"),
            (len(data.train.labels), config.labelled_batch_size, "labelled order"),
        )
    )
    # Parameters are drawn for the global batch, so that they do not depend on the workers.
    own, own_labelled = world.rows(config.global_batch), world.rows(config.labelled_batch_size)
    requests = [
        (data.unlabelled, unlabelled[:, own]),
        (data.train.images, labelled[:, _after(own, config.batch_size)]),
        (data.train.images, labelled[:, own_labelled]),
    ]
    labels = data.train.labels[labelled.to(world.device)]
    randomness = random_stream(config.seed, "augment", epoch, world.device)
    recipes = augment.Recipe.of_both_views(config)
    further = _further(learner, "augment", epoch)
    totals: dict[str, Tensor] = {}
    with closing(feed(requests, world.device, must_stream(data, world.device))) as images:
        for (*parts, of_probe), labels_L in zip(images, labels, strict=True):
            batch = torch.cat(parts)
            drawn = [augment.draw(each, config.global_batch, randomness) for each in recipes]
            view1, view2 = (
                further(augment.apply(batch, view.rows(own), config.precision)) for view in drawn
            )
            weak = augment.draw(augment.PROBE_RECIPE, config.labelled_batch_size, randomness)
            metrics = learner.contrastive_step(view1, view2, labels_L) | learner.probe_step(
                augment.apply(of_probe, weak.rows(own_labelled)), labels_L
            )
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0) + value
    means = {name: total / config.steps_per_epoch for name, total in totals.items()}
    if learner.support is not None:
        means["queue_used"] = learner.support.take_used()
    # The only synchronisation of the epoch.
    row = dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))
    same, known = row.pop("nn_same", 0.0), row.pop("nn_known", 0.0)
    return row | {"nn_same_label": same / known} if known else row


def _evaluate(learner: Learner, data: Dataset, epoch: int) -> dict[str, float | None]:
    """Score the frozen encoder; the test images are looked at in the last epoch only."""
    config, world = learner.config, learner.world
    encoded = partial(encode, learner.encoder, most=images_at_once(config, world.size))
    train, val = (encoded(split.images, world) for split in (data.train, data.val))
    if not (train.isfinite().all() and val.isfinite().all()):
        raise DivergedError("features are not finite", epoch + 1)
    spread = float(scores.feature_std(val))
    if spread * config.features**0.5 < COLLAPSED:
        raise DivergedError(f"features collapsed: feature_std is {spread:.1e}", epoch + 1)
    with torch.no_grad():
        logits = learner.probe(val)
        val_p_loss = float(F.cross_entropy(logits, data.val.labels))
        val_p_acc = float((logits.argmax(1) == data.val.labels).float().mean())
    probe = LinearProbe.chosen(train, data.train.labels, val, data.val.labels, data.num_classes)
    test_probe_top1 = None
    if epoch + 1 == config.epochs:
        test = encoded(data.test.images, world)
        test_probe_top1 = probe.top1(test, data.test.labels)
    randomness = random_stream(config.seed, "evaluate", epoch, world.device)
    recipes = augment.Recipe.of_both_views(config)
    views = [augment.draw(recipe, len(val), randomness) for recipe in recipes]
    further = _further(learner, "evaluate", epoch)
    view1, view2 = (encoded(data.val.images, world, view, further) for view in views)
    return {
        "val_p_loss": val_p_loss,
        "val_p_acc": val_p_acc,
        "val_probe_top1": probe.top1(val, data.val.labels),
        "test_probe_top1": test_probe_top1,
        "probe_C": probe.C,
        "val_knn_top1": knn_top1(train, data.train.labels, val, data.val.labels, data.num_classes),
        "rankme": float(scores.rankme(val)),
        "alpha_req": scores.alpha_req(val),
        "alignment": float(scores.alignment(view1, view2)),
        "uniformity": float(scores.uniformity(val)),
        "feature_std": spread,
    }


def _further(learner: Learner, purpose: str, epoch: int) -> Callable[[Tensor], Tensor]:
    """Return what a plug-in does to our rows of the views, with randomness of their own."""
    name = f"{purpose} further, worker {learner.world.rank}"
    generator = random_stream(learner.config.seed, name, epoch, learner.world.device)
    return augmentation(learner.config, generator)


def _after(rows: slice, offset: int) -> slice:
    """Return the rows of a second list that follows a first one of length `offset`."""
    return slice(max(rows.start - offset, 0), max(rows.stop - offset, 0))
