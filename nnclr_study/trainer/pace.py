"""Some real steps of a trial, timed: for a study's forecast, and for the choice of precision."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.forecast import Pace
from nnclr_study.trainer import augment, checkpoint
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.runtime import settle
from nnclr_study.trainer.world import CPU, World, random_stream

STEPS = 4


def pace(config: TrialConfig, data: Path, gpus: float | None = None) -> Pace:
    """Train two short epochs of a trial in this process.

    The second one's steps count, which are warm, and the first one's evaluation, which is without
    the test images, as in all epochs but the last.

    Args:
        config: of the trial.
        data: folder of data sets.
        gpus: GPUs that the trial will have; None: a GPU if torch sees one.

    Raises:
        DataError: the images cannot be had.
        DivergedError: it diverges at once.
    """
    short = config.model_copy(update={"epochs": 2, "steps_per_epoch": STEPS, "warmup_epochs": 0})
    *_, last = train(short, load_dataset(config, data), World.alone(gpus))
    first, second = last.rows
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint"
        checkpoint.save(last, file)
        size = file.stat().st_size
    return Pace(second.train_seconds / STEPS, first.seconds - first.train_seconds, size)


def bf16_speed() -> float:
    """Return how many times as fast as in float32 a step is in bf16, on the CPU.

    Of conv4 at 32 pixels, on one thread, as a trial has it there.
    """
    settle(CPU, "float32")
    steps = {
        precision: train_step(TrialConfig(precision=precision, width=64, batch_size=48), 32, CPU)
        for precision in ("float32", "bf16")
    }
    seconds = in_turn(steps, STEPS)
    return seconds["float32"] / seconds["bf16"]


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each work, all measured once a round, one after another."""
    for work in works.values():
        work()  # warm, twice: the second step is the first that finds its memory laid out
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = perf_counter()
            work()
            seconds[name].append(perf_counter() - started)
    return {name: median(times) for name, times in seconds.items()}


def train_step(config: TrialConfig, side: int, device: torch.device) -> Callable[[], None]:
    """Return one whole step of a trial, as the loop takes it, on random images."""
    learner = Learner(config, side, num_classes=10, world=World(device))
    generator = random_stream(0, "benchmark", 0, device)
    shape = config.global_batch, 3, side, side
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)
    count = config.labelled_batch_size
    labels = torch.randint(0, 10, (count,), device=device, generator=generator)
    recipes = augment.Recipe.of_both_views(config)

    def step() -> None:
        view1, view2 = (
            augment.apply(images, augment.draw(recipe, len(images), generator), config.precision)
            for recipe in recipes
        )
        learner.contrastive_step(view1, view2, labels)
        weak = augment.draw(augment.PROBE_RECIPE, count, generator)
        learner.probe_step(augment.apply(images[-count:], weak), labels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
