"""Plug-ins where they are used: imported, held to their contracts, and named when they fail."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nnclr_study.errors import PluginError, StudyError, cut, shown
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plugins import Plugin, find, is_plugin
from nnclr_study.trainer.contracts import PARTS, DatasetPlugin, Original, Part

KEEPS_WEIGHTS = "keeps_weights"
"""Attribute of an encoder whose weights are not drawn anew."""
LONGEST_REASON = 500
"""Characters of what a plug-in raised."""


def dataset_key(name: str, folder: Path) -> str:
    """Return a text that follows the content of a plug-in's data set, and its version.

    Raises:
        PluginError: as of all here, the plug-in is missing, fails, or breaks its contract.
    """
    plugin, dataset = _dataset(name)
    with _blamed(plugin, "key"):
        key = dataset.key(folder)
    if not isinstance(key, str):
        raise PluginError(f"{plugin}: key must return a text, and returned {shown(key)}")
    return f"{plugin} {key}"


def open_dataset(name: str, folder: Path, image_size: int) -> Original:
    """Open a plug-in's data set; every image is checked when it is read."""
    plugin, dataset = _dataset(name)
    with _blamed(plugin, "open"):
        original = dataset.open(folder, image_size)
    if not isinstance(original, Original):
        raise PluginError(
            f"{plugin}: open must return an Original, and returned {_kind(original)}"
        )
    with _blamed(plugin, "what open returned"):
        parts = {part: _checked(plugin, part, found) for part, found in original.parts.items()}
        labelled = {part for part in parts if parts[part].labels is not None}
        if not {"train", "test"} <= labelled or not set(parts) <= set(PARTS):
            raise PluginError(
                f"{plugin}: its parts are {', '.join(parts) or 'none'}; there must be train and "
                "test, both with labels, and may be unlabelled"
            )
        return Original([str(name) for name in original.classes], parts)


def plugin_encoder(config: TrialConfig, side: int) -> nn.Module:
    """Return a trial's encoder from a plug-in, after it has encoded two images."""
    plugin, build = _callable("encoder", config.encoder)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        with _blamed(plugin, "building it"):
            encoder = build(config, side)
        if not isinstance(encoder, nn.Module):
            raise PluginError(f"{plugin} must return a torch.nn.Module, not {_kind(encoder)}")
        with _blamed(plugin, f"encoding (2, 3, {side}, {side})"), torch.no_grad():
            features = encoder.eval()(torch.zeros(2, 3, side, side))
    wanted = torch.empty(2, config.features)
    if not _alike(features, wanted):
        raise PluginError(
            f"{plugin} gives {_kind(features)} for two images, and width={config.width} asks for "
            f"{_kind(wanted)}; set width to the features that it gives, or have it follow "
            "config.width"
        )
    setattr(encoder, KEEPS_WEIGHTS, True)
    return encoder.train()


def augmentation(config: TrialConfig, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return what a plug-in does to the views of a trial; without one they stay as they are."""
    if not is_plugin(config.aug_recipe) or config.aug_strength == 0:
        return lambda views: views
    plugin, augment = _callable("aug_recipe", config.aug_recipe)

    def augmented(views_BCHW: Tensor) -> Tensor:
        wanted = torch.empty_like(views_BCHW, device="meta")
        with _blamed(plugin, f"augmenting {tuple(wanted.shape)}"):
            found: Tensor = augment(views_BCHW, generator, config.aug_strength)
        if not _alike(found, wanted) or found.device != views_BCHW.device:
            where = f" on {found.device}" if isinstance(found, Tensor) else ""
            raise PluginError(
                f"{plugin} must return {_kind(wanted)} on {views_BCHW.device}, and returned "
                f"{_kind(found)}{where}"
            )
        return found.clamp(0, 1).contiguous(memory_format=torch.channels_last)

    return augmented


def check_plugins(config: TrialConfig) -> None:
    """Try what a trial takes from plug-ins beside its images, on two grey ones."""
    side = config.image_size
    if is_plugin(config.encoder):
        plugin_encoder(config, side)
    augmentation(config, torch.Generator())(torch.full((2, 3, side, side), 0.5))


def _dataset(name: str) -> tuple[Plugin, DatasetPlugin]:
    plugin, found = _loaded("dataset", name)
    if not isinstance(found, DatasetPlugin):
        raise PluginError(f"{plugin} must be a DatasetPlugin, and is {_kind(found)}")
    return plugin, found


def _callable(knob: str, name: str) -> tuple[Plugin, Callable[..., Any]]:
    plugin, found = _loaded(knob, name)
    if not callable(found):
        raise PluginError(f"{plugin} must be a function, and is {_kind(found)}")
    return plugin, found


def _loaded(knob: str, name: str) -> tuple[Plugin, Any]:
    plugin = find(knob, name)
    with _blamed(plugin, f"importing {plugin.entry.value}"):
        return plugin, plugin.entry.load()


@contextmanager
def _blamed(plugin: Plugin, doing: str) -> Iterator[None]:
    """Name a plug-in in what it raises; an error that it made for users is left as it is."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # whatever others' code may raise
        reason = cut(" ".join(f"{type(error).__name__}: {error}".split()), LONGEST_REASON)
        raise PluginError(f"{plugin}: {doing} raised {reason}") from error


def _checked(plugin: Plugin, name: str, part: Part) -> Part:
    """Return a part whose labels are int64, and whose images are looked at as they are read."""

    def named(row: int) -> str:
        with _blamed(plugin, f"naming image {row} of {name}"):
            return f"{plugin}: {part.named(name, row)}"

    def read(row: int) -> np.ndarray | Image.Image:
        with _blamed(plugin, f"reading image {row} of {name}"):
            image = part.read(row)
            if isinstance(image, Image.Image):
                return image
            pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise PluginError(
                f"{plugin}: image {row} of {name} is {_kind(pixels)}; it must be uint8 (H, W, 3), "
                "or a PIL image"
            )
        return pixels

    labels = part.labels
    if labels is not None:
        labels = np.asarray(labels).astype(np.int64, casting="safe")
    return part._replace(read=read, labels=labels, name=named)


def _alike(found: Any, wanted: Tensor) -> bool:
    same = isinstance(found, Tensor) and found.shape == wanted.shape
    return same and found.dtype == wanted.dtype


def _kind(value: Any) -> str:
    """Return what a value is: of a tensor its type and shape."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
