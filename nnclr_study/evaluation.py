"""What `evaluate` does: the encoder of a trial, of an export or of others, by protocols."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from nnclr_study.errors import UsageError
from nnclr_study.study.config import TrialConfig, images_config
from nnclr_study.study.rows import EvaluationRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.trainer import checkpoint, exports
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.encoder import build_encoder
from nnclr_study.trainer.evaluate import images_at_once
from nnclr_study.trainer.protocols import BATCH, PROTOCOLS, Subject, score
from nnclr_study.trainer.weights import published
from nnclr_study.trainer.world import World


class Result(NamedTuple):
    """What a protocol said."""

    told: dict[str, Any]
    """As JSON has it."""
    before: bool
    """It was recorded earlier."""
    supervised: float | None
    """test_top1 of the same training never pretrained, where `told` is of a fine-tuning."""


class Evaluation(NamedTuple):
    """An encoder in words, and its results, which are computed as they are asked for."""

    about: str
    results: Iterator[Result]


def of_trial(run_folder: Path, trial_id: str, protocols: list[str], data: Path) -> Evaluation:
    """Score a trial's encoder; results are recorded, and those that are recorded not repeated.

    Args:
        run_folder: of the study.
        trial_id: its id, or how it begins.
        protocols: of `PROTOCOLS`; none: all of them.
        data: folder of data sets.

    Raises:
        RunFolderError: there is no such run folder, or the trial has no checkpoint.
        UsageError: no such trial or protocol.
    """
    run = RunFolder.open(run_folder)
    found = run.trial(trial_id).id
    wanted = _known(protocols)
    snapshot = checkpoint.of_trial(run, found)
    state = checkpoint.encoder_state(snapshot)
    exports.rebuilt(snapshot.config, state, run.checkpoint(found))  # as of an export
    epoch, epochs = len(snapshot.rows), snapshot.config.epochs
    out_of = "" if epoch == epochs else f" of {epochs}: it has not finished"

    def results() -> Iterator[Result]:
        images, world = None, World.alone()
        with run.lock("evaluate"):
            done = run.evaluations()
            for name in wanted:
                row = done.get((found, name, epoch))
                before = row is not None
                if row is None:
                    images = images or load_dataset(snapshot.config, data)
                    started = monotonic()
                    scored = score(name, Subject.of(snapshot), images, world)
                    row = EvaluationRow(
                        trial_id=found,
                        protocol=name,
                        epoch=epoch,
                        **scored._asdict(),
                        seconds=monotonic() - started,
                        device=str(world.device),
                        ended_at=datetime.now(UTC),
                    )
                    run.append_evaluation(row)
                    done[found, name, epoch] = row
                afresh = done.get((found, _supervised(name), epoch))
                supervised = afresh.test_top1 if afresh else None
                yield Result(row.model_dump(mode="json"), before, supervised)

    return Evaluation(f"{found}, after epoch {epoch}{out_of}", results())


def of_file(
    path: Path, images: TrialConfig, normalise: str | None, protocols: list[str], data: Path
) -> Evaluation:
    """Score a ResNet that others trained; nothing is recorded.

    Args:
        path: of the safetensors file with its weights.
        images: says of which data set, and how large.
        normalise: what it expects, as `published` has it.
        protocols: of `PROTOCOLS`; none: all of them.
        data: folder of data sets.

    Raises:
        UsageError: the file holds no such weights, or there is no such protocol.
    """
    wanted = _known(protocols)
    if normalise is None:
        raise UsageError(
            f"{path} does not say on which values its encoder was trained: add --normalise "
            "imagenet (most published ones), --normalise none (from 0 to 1, as ours) or "
            "--normalise MEAN/STD"
        )
    about, subject = published(path, normalise)
    about += f", on {images.dataset} at {images.image_size} px, normalise {normalise}"
    told = {"source": str(path), "dataset": images.dataset, "image_size": images.image_size}
    told |= {"normalise": normalise}
    return Evaluation(about, _results(subject, images, wanted, data, told))


def of_export(folder: Path, dataset: str | None, protocols: list[str], data: Path) -> Evaluation:
    """Score an exported encoder; nothing is recorded.

    Args:
        folder: of the export, whose image size counts.
        dataset: another one than it was trained on.
        protocols: of `PROTOCOLS`; none: all of them.
        data: folder of data sets.

    Raises:
        RunFolderError: the folder's files are not as `export` leaves them.
        UsageError: there is no such protocol or data set.
    """
    wanted, found = _known(protocols), exports.read(folder)
    own = found.config
    images = own if dataset is None else images_config(dataset, own.image_size)
    exports.rebuilt(own, found.tensors, folder)  # weights that do not fit are told now
    build = partial(build_encoder, own, own.image_size)
    at_once = min(images_at_once(own), 2 * BATCH)
    subject = Subject(build, found.tensors, own.features, own.seed, own.precision, at_once)
    about = f"{found.trial_id}, after epoch {found.epoch}, on {images.dataset}"
    told = {"source": str(folder), "dataset": images.dataset, "image_size": own.image_size}
    return Evaluation(about, _results(subject, images, wanted, data, told))


def _results(
    subject: Subject, images: TrialConfig, protocols: list[str], data: Path, told: dict[str, Any]
) -> Iterator[Result]:
    world, found, done = World.alone(), load_dataset(images, data), dict[str, float]()
    for name in protocols:
        started = monotonic()
        scored = score(name, subject, found, world)
        done[name] = scored.test_top1
        row = told | {"protocol": name, **scored._asdict()}
        row |= {"seconds": monotonic() - started, "device": str(world.device)}
        yield Result(row, False, done.get(_supervised(name)))


def _known(protocols: list[str]) -> list[str]:
    wanted = list(dict.fromkeys(protocols or PROTOCOLS))
    if unknown := [name for name in wanted if name not in PROTOCOLS]:
        raise UsageError(f"--protocol {unknown[0]}: use one of {', '.join(PROTOCOLS)}")
    return wanted


def _supervised(protocol: str) -> str:
    """Return the protocol that a fine-tuning has to beat; of others one that is none."""
    kind, _, percent = protocol.partition("-")
    return f"supervised-{percent}" if kind == "finetune" else ""
