"""What the rows of an earlier study tell of one to come: its pace, and how far trials scatter."""

from collections.abc import Iterable
from math import sqrt

from nnclr_study.report.analyse import analyse
from nnclr_study.report.load import Tables
from nnclr_study.report.noise import Noise
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.forecast import Pace
from nnclr_study.study.run_folder import RunFolder

WORK = ("dataset", "image_size", "encoder", "width", "batch_size")
"""Knobs that decide most how long a step takes."""


def noise_of(tables: Tables) -> Noise | None:
    """Return how far a study's trials scatter; None where its seeds do not tell."""
    blocks = analyse(tables)["blocks"]
    if blocks is None:
        return None
    seed_sd = blocks["residual_sd"] / sqrt(1 - blocks["correlation"])
    return Noise(seed_sd, blocks["correlation"], str(tables.path))


def unlike(tables: Tables, configs: Iterable[TrialConfig]) -> list[str]:
    """Return in what the trials of a study to come, `configs`, do other work than these did."""
    coming, found = list(configs), []
    for knob in WORK:
        there, here = ({str(getattr(c, knob)) for c in each} for each in (tables.configs, coming))
        if here - there:
            found.append(f"{knob} {', '.join(sorted(here))} and not {', '.join(sorted(there))}")
    return found


def paces_of(tables: Tables) -> list[Pace]:
    """Return the pace of every trial that has an epoch."""
    configs = dict(zip(tables.trials["trial_id"], tables.configs, strict=True))
    paces = []
    for trial_id, rows in tables.epochs.groupby("trial_id", sort=False):
        file = RunFolder(tables.path).checkpoint(str(trial_id))
        training = float(rows["train_seconds"].mean())
        paces.append(
            Pace(
                step_seconds=training / configs[trial_id].steps_per_epoch,
                evaluation_seconds=float(rows["seconds"].mean()) - training,
                checkpoint_bytes=file.stat().st_size if file.is_file() else None,
            )
        )
    return paces
