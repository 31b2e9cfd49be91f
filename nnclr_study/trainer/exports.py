"""A trained encoder as a folder of files that other programs read; nothing in it is a pickle."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nnclr_study.errors import RunFolderError, UsageError, lines_of, writing
from nnclr_study.study.config import FEATURES_PER_WIDTH, TrialConfig
from nnclr_study.study.files import checked, parse_json, read_bytes, replacing, write_whole
from nnclr_study.study.run_folder import EXPORTED_WEIGHTS
from nnclr_study.trainer.checkpoint import encoder_state
from nnclr_study.trainer.encoder import build_encoder, unusable
from nnclr_study.trainer.loop import Snapshot

WEIGHTS, PREPROCESSING, CONFIG, ONNX, CARD = FILES = (
    EXPORTED_WEIGHTS,
    "preprocessing.json",
    "config.json",
    "encoder.onnx",
    "README.md",
)


class Export(NamedTuple):
    """What an export's files hold: an encoder's weights and the trial that trained it."""

    config: TrialConfig
    tensors: dict[str, Tensor]
    trial_id: str
    epoch: int
    """After which the weights were saved."""


def claim(folder: Path) -> None:
    """Make a folder that takes an export; hidden files in it may stay, as a repository's.

    Raises:
        UsageError: it holds other files, or cannot be made.
    """
    with writing(folder, "--output", UsageError):
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if foreign := names - (set(FILES) if WEIGHTS in names else set()):
        raise UsageError(
            f"{folder} holds {min(foreign)}, which no export wrote; name a new folder, or that "
            "of an earlier export, with --output"
        )


def write(snapshot: Snapshot, about: dict[str, Any], folder: Path) -> str | None:
    """Write all files of an export but its card; config.json last, as nothing is read without.

    Args:
        snapshot: of the trial.
        about: what config.json says beside the trial's config.
        folder: as `claim` left it.

    Returns:
        Why there is no encoder.onnx; None: it is there.

    Raises:
        UsageError: a file cannot be written.
    """
    config, state = snapshot.config, encoder_state(snapshot)
    told = {"epoch": len(snapshot.rows), **about, "config": config.model_dump()}
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    with writing(folder, "--output", UsageError):
        # First what an earlier export says: it is not true of the new weights.
        for name in (CONFIG, CARD, PREPROCESSING, ONNX):
            (folder / name).unlink(missing_ok=True)
        # Not by save_file, which lets nobody else read the file.
        with replacing(folder, WEIGHTS) as file:
            file.write(save(tensors, metadata={"format": "pt"}))
        no_onnx = _write_onnx(config, state, folder / ONNX)
        for value, name in ((preprocessing(config.image_size), PREPROCESSING), (told, CONFIG)):
            write_text(json.dumps(value, indent=2) + "\n", folder / name)
    return no_onnx


def read(folder: Path) -> Export:
    """Return what the files of an export hold.

    Raises:
        RunFolderError: they are not as `write` leaves them in the end.
    """
    try:
        told = parse_json(read_bytes(folder, CONFIG))
        return Export(
            TrialConfig.model_validate(told["config"]),
            load_file(checked(folder, WEIGHTS)),
            str(told["trial_id"]),
            int(told["epoch"]),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunFolderError(
            f"{folder} is no export of this version ({error}); write it anew with `export`"
        ) from None


def rebuilt(config: TrialConfig, tensors: dict[str, Tensor], source: Path) -> nn.Module:
    """Return a trial's encoder with these weights, in eval mode.

    Raises:
        RunFolderError: they are another encoder's; `source` is where they come from.
    """
    is_own = config.encoder in FEATURES_PER_WIDTH  # a plug-in's may hold whatever it likes
    if is_own and (wrong := unusable(tensors)):
        raise RunFolderError(f"{source} cannot be used as an encoder: {wrong}")
    try:
        if is_own:
            with torch.device("meta"):  # a file's claims cost no memory before they are checked
                build_encoder(config, config.image_size).load_state_dict(tensors, assign=True)
        encoder = build_encoder(config, config.image_size)
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        said = lines_of(error)[-1].strip()
        raise RunFolderError(f"{source} holds weights that its config has not: {said}") from None
    return encoder.eval()


def write_text(text: str, path: Path) -> None:
    """Write a file of an export.

    Raises:
        UsageError: it cannot be written.
    """
    with writing(path.parent, "--output", UsageError):
        write_whole(path.parent, path.name, text)


def preprocessing(image_size: int) -> dict[str, Any]:
    """Return what an encoder expects of images, as preprocessing.json says it."""
    return {
        "image_size": image_size,
        "resize": "shorter side",
        "interpolation": "bicubic",
        "crop": "centre",
        "channels": "RGB",
        "layout": "NCHW",
        "dtype": "float32",
        "range": [0.0, 1.0],
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }


def _write_onnx(config: TrialConfig, state: dict[str, Tensor], path: Path) -> str | None:
    """Write an encoder as ONNX, from `images` to `features`; return why it could not be."""
    if config.encoder not in FEATURES_PER_WIDTH:
        return "a plug-in's encoder is not translated"
    if not (find_spec("onnx") and find_spec("onnxscript")):
        return "it needs pip install 'nnclr-study[onnx]'"
    encoder = rebuilt(config, state, path)
    images = torch.zeros(2, 3, config.image_size, config.image_size)
    try:
        program = torch.onnx.export(
            encoder,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    except torch.onnx.OnnxExporterError as error:
        return f"torch could not translate the encoder ({lines_of(error)[0]})"
    assert program is not None
    for node in program.model.graph:  # they tell of the files of this machine
        node.metadata_props.clear()
    program.save(path, external_data=False)
    return None
