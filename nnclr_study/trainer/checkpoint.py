"""The last epoch of a trial as one file: tensors, config and every row so far."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nnclr_study.errors import RunFolderError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.rows import EpochRow
from nnclr_study.trainer.loop import Snapshot


def save(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot; the file is either the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    about = {
        "config": snapshot.config.model_dump_json(),
        "rows": json.dumps([row.model_dump() for row in snapshot.rows]),
    }
    tensors = {name: tensor.contiguous() for name, tensor in snapshot.tensors.items()}
    save_file(tensors, part, metadata=about)
    part.replace(path)


def load(path: Path) -> Snapshot | None:
    """Return the snapshot in a file, or None where there is none.

    Raises:
        RunFolderError: the file is not one that `save` wrote.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            return Snapshot(
                config=TrialConfig.model_validate_json(about["config"]),
                rows=[EpochRow.model_validate(row) for row in json.loads(about["rows"])],
                tensors={name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
            )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} is no checkpoint of this version ({error}); delete it and the trial "
            "starts afresh"
        ) from error
