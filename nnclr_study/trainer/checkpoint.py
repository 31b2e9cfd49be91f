"""The last epoch of a trial as one file: tensors, config and every row so far."""

import json
import os
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nnclr_study.errors import RunFolderError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.files import checked, new_part, open_inside, parse_json, subfolder
from nnclr_study.study.rows import EpochRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.trainer.loop import Snapshot


def save(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot; the file is either the old one or the new one, never half.

    Raises:
        RunFolderError: it cannot be written; the file is the old one.
    """
    folder, name = _place(path)
    part = None
    about = {
        "config": snapshot.config.model_dump_json(),
        "rows": json.dumps([row.model_dump() for row in snapshot.rows]),
    }
    tensors = {name: tensor.contiguous() for name, tensor in snapshot.tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        subfolder(folder, path.parent.name)
        part = new_part(folder, name)
        save_file(tensors, part, metadata=about)
        with open_inside(part.parent, part.name) as file:
            os.fsync(file.fileno())  # before it takes the old one's place
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            if part:
                part.unlink()
        size = sum(tensor.nbytes for tensor in tensors.values())
        raise RunFolderError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}, with a "
            f"checkpoint of {size:,} bytes; make room, or the folder writable, and the trial "
            "goes on from its last one"
        ) from error


def load(path: Path) -> Snapshot | None:
    """Return the snapshot in a file, or None where there is none.

    Raises:
        RunFolderError: the file is not one that `save` wrote.
    """
    try:
        if not checked(*_place(path)).exists():
            return None
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            return Snapshot(
                config=TrialConfig.model_validate_json(about["config"]),
                rows=[EpochRow.model_validate(row) for row in parse_json(about["rows"])],
                tensors={name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunFolderError(
            f"{path} is no checkpoint of this version ({error}); delete it and the trial "
            "starts afresh"
        ) from error


def of_trial(folder: RunFolder, trial_id: str) -> Snapshot:
    """Return the last epoch of a run's trial.

    Raises:
        RunFolderError: it has no checkpoint, or what is there is none.
    """
    snapshot = load(folder.checkpoint(trial_id))
    if snapshot is None:
        raise RunFolderError(
            f"{trial_id} has no checkpoint in {folder.path}: it has not begun, or its checkpoint "
            "was left elsewhere"
        )
    return snapshot


def encoder_state(snapshot: Snapshot) -> dict[str, Tensor]:
    """Return the state dict of a snapshot's encoder."""
    prefix = "encoder/"
    tensors = snapshot.tensors.items()
    return {name.removeprefix(prefix): t for name, t in tensors if name.startswith(prefix)}


def resume(path: Path, config: TrialConfig) -> Snapshot | None:
    """Return the snapshot from which a trial goes on; None: it starts afresh.

    A file that is no checkpoint, or that of another config, is set aside as `FILE.bad`: what
    stands in the way is not loaded, and not lost either.

    Raises:
        RunFolderError: it is a symbolic link, or not a regular file.
    """
    checked(*_place(path))
    try:
        found = load(path)
    except RunFolderError:
        found = None
    else:
        if found is None or _fits(found, config):
            return found
    with suppress(FileNotFoundError):  # another worker of the trial was faster
        path.replace(path.with_name(f"{path.name}.bad"))
    return None


def _place(path: Path) -> tuple[Path, str]:
    """Return the run folder of a checkpoint, and the checkpoint's name in it."""
    return path.parent.parent, f"{path.parent.name}/{path.name}"


def _fits(snapshot: Snapshot, config: TrialConfig) -> bool:
    """Tell whether a snapshot is one of a trial's, after as many epochs as it has rows."""
    epochs = [row.epoch for row in snapshot.rows]
    known = list(range(1, config.epochs + 1))
    return snapshot.config == config and epochs != [] and epochs == known[: len(epochs)]
