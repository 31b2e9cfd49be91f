"""Some real steps of a trial, timed: for a study's forecast, and for the choice of precision."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.forecast import Pace
from nnclr_study.trainer import checkpoint
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.runtime import settle
from nnclr_study.trainer.world import CPU, World

STEPS = 4
WARM = 2
"""Steps before those that count: the second is the first that finds its memory laid out."""


def pace(config: TrialConfig, data: Path) -> Pace:
    """Train two short epochs of a trial in this process.

    The second one's steps count, which are warm, and the first one's evaluation, which is without
    the test images, as in all epochs but the last.

    Raises:
        DataError: the images cannot be had.
        DivergedError: it diverges at once.
    """
    short = config.model_copy(update={"epochs": 2, "steps_per_epoch": STEPS, "warmup_epochs": 0})
    *_, last = train(short, load_dataset(config, data), World.alone())
    first, second = last.rows
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint"
        checkpoint.save(last, file)
        size = file.stat().st_size
    return Pace(second.train_seconds / STEPS, first.seconds - first.train_seconds, size)


def bf16_speed() -> float:
    """Return how many times as fast as in float32 a step is in bf16, on the CPU.

    Of conv4 at 32 pixels, in alternation, on one thread, as a trial has it there.
    """
    settle(CPU, "float32")
    steps = {
        precision: _step(TrialConfig(precision=precision, width=64, batch_size=48))
        for precision in ("float32", "bf16")
    }
    seconds: dict[str, list[float]] = {precision: [] for precision in steps}
    for _ in range(WARM + STEPS):
        for precision, step in steps.items():
            started = perf_counter()
            step()
            seconds[precision].append(perf_counter() - started)
    usual = {precision: median(times[WARM:]) for precision, times in seconds.items()}
    return usual["float32"] / usual["bf16"]


def _step(config: TrialConfig) -> Callable[[], object]:
    side = 32
    learner = Learner(config, side, num_classes=2, world=World(CPU))
    view1, view2 = torch.rand(2, config.global_batch, 3, side, side)
    labels = torch.zeros(config.labelled_batch_size, dtype=torch.long)
    return lambda: learner.contrastive_step(view1, view2, labels)
