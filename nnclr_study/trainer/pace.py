"""Some real steps of a trial, timed: what a study's forecast is made from."""

import tempfile
from pathlib import Path

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.forecast import Pace
from nnclr_study.trainer import checkpoint
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.world import World

STEPS = 4


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
