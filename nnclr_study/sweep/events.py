"""Every epoch as TensorBoard's event files: `tensorboard --logdir RUN/tensorboard`."""

from pathlib import Path

from tensorboardX import SummaryWriter

from nnclr_study.study.rows import EpochRow


class Events:
    """Writes the numbers of every epoch, a folder a trial."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writers: dict[str, SummaryWriter] = {}

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        """Write one epoch of a trial."""
        if trial_id not in self._writers:
            self._writers[trial_id] = SummaryWriter(str(self._path / trial_id))
        writer = self._writers[trial_id]
        for name, value in row.model_dump(exclude={"epoch"}).items():
            if value is not None:
                writer.add_scalar(name, value, row.epoch)
        writer.flush()

    def end(self, trial_id: str) -> None:
        """Close a trial's file."""
        writer = self._writers.pop(trial_id, None)
        if writer is not None:
            writer.close()
