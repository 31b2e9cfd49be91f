"""What a trial's queue retrieves: some val images, and the queued images nearest to them."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.files import replacing, subfolder, write_whole
from nnclr_study.trainer.data import batches
from nnclr_study.trainer.encoder import build_encoder, projection_head
from nnclr_study.trainer.evaluate import images_at_once
from nnclr_study.trainer.images import Dataset
from nnclr_study.trainer.loop import Snapshot
from nnclr_study.trainer.runtime import autocast, settle

QUERIES = 8
NEIGHBOURS = 5
LARGEST_SIDE = 48
"""Of an image in the file, in pixels; larger ones are shrunk to it."""


class Retrieved(NamedTuple):
    """A val image and what the queue retrieves for it, the nearest first."""

    label: int
    neighbours: list[int | None]
    """Their labels; None: unknown."""
    similarities: list[float]
    """Cosines between the projections."""
    images: list[Tensor]
    """The query, then its neighbours: (3, S, S) uint8."""


class Queued(NamedTuple):
    """Which images stand behind some rows of a queue."""

    labelled_N: Tensor
    """Whether they are among the labelled train images, not the unlabelled ones."""
    image_N: Tensor
    """Their numbers among these."""


def write_gallery(
    snapshot: Snapshot, data: Dataset, device: torch.device, folder: Path, trial_id: str
) -> list[Path]:
    """Write what a trial's queue retrieves; return the two files.

    `TRIAL.png` has a row a query: the query, then its neighbours. `TRIAL.json` has the `side`
    of an image in it, and of each row the `label`, the `neighbours` (their labels, null where
    unknown) and their `similarities`.
    """
    found = retrieve(snapshot, data, device)
    side = min(data.side, LARGEST_SIDE)
    sprite = Image.new("RGB", ((1 + NEIGHBOURS) * side, len(found) * side), "white")
    for row, retrieved in enumerate(found):
        for column, pixels in enumerate(retrieved.images):
            picture = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
            sprite.paste(picture.resize((side, side)), (column * side, row * side))
    about = {
        "side": side,
        "rows": [
            {
                "label": retrieved.label,
                "neighbours": retrieved.neighbours,
                "similarities": [round(cosine, 4) for cosine in retrieved.similarities],
            }
            for retrieved in found
        ],
    }
    files = [folder / f"{trial_id}.{kind}" for kind in ("png", "json")]
    folder.parent.mkdir(parents=True, exist_ok=True)
    subfolder(folder.parent, folder.name)
    with replacing(folder, files[0].name) as file:
        sprite.save(file, "PNG")
    write_whole(folder, files[1].name, json.dumps(about))
    return files


@torch.no_grad()
def retrieve(snapshot: Snapshot, data: Dataset, device: torch.device) -> list[Retrieved]:
    """Return what the queue of a snapshot retrieves for some val images.

    These are seen as the probe sees them, projected by the network whose projections are queued,
    and the same in every trial of a data set. Takes nothing from the training's random streams
    and, as every worker has the whole queue, needs no other worker.
    """
    config, tensors = snapshot.config, snapshot.tensors
    settle(device, config.precision)
    queries_B = _spread(data.val.labels)
    images_B = data.val.images[queries_B]
    projections_BD = _project(snapshot, images_B.to(device))
    bank_QD = tensors["support/bank_QD"].to(device)
    size, head, pushes = len(bank_QD), *(int(tensors[f"support/{n}"]) for n in ("head", "pushes"))
    # The head moves backwards from 0: until the queue is full, its random rows stand in front.
    random = max(0, size - pushes * config.pushed_views * config.global_batch)
    nearest = (projections_BD @ bank_QD[random:].T).topk(min(NEIGHBOURS, size - random))
    newest_first_BK = (nearest.indices.cpu() + random - head) % size
    found = []
    for row, query in enumerate(queries_B.tolist()):
        images, labels = _look_at(queued(newest_first_BK[row], pushes, config, data), data)
        found.append(
            Retrieved(
                label=int(data.val.labels[query]),
                neighbours=labels,
                similarities=nearest.values[row].tolist(),
                images=[images_B[row], *images],
            )
        )
    return found


def queued(rows_N: Tensor, pushes: int, config: TrialConfig, data: Dataset) -> Queued:
    """Return the images behind rows of a queue, counted from the newest one, 0.

    What was pushed follows from the config: a step's unlabelled and labelled images, then once
    more those of the second view, if it is pushed as well.
    """
    back_N = rows_N // (config.pushed_views * config.global_batch)
    place_N = rows_N % config.global_batch
    steps = range(pushes - 1 - int(back_N.max()), pushes)
    orders = (
        (len(data.unlabelled), config.batch_size, "unlabelled order"),
        (len(data.train.labels), config.labelled_batch_size, "labelled order"),
    )
    parts = [batches(count, size, steps, config.seed, name) for count, size, name in orders]
    pushed_SB = torch.cat(parts, dim=1)
    return Queued(place_N >= config.batch_size, pushed_SB[len(steps) - 1 - back_N, place_N])


def _look_at(behind: Queued, data: Dataset) -> tuple[list[Tensor], list[int | None]]:
    """Return images and their labels; an unlabelled image has one if it is a train image too."""
    images: list[Tensor] = []
    labels: list[int | None] = []
    for labelled, image in zip(behind.labelled_N.tolist(), behind.image_N.tolist(), strict=True):
        source = data.train.images if labelled else data.unlabelled
        images.append(source[image : image + 1][0])
        known = source is data.train.images
        labels.append(int(data.train.labels[image]) if known else None)
    return images, labels


def _spread(labels_N: Tensor) -> Tensor:
    """Return some rows, evenly spaced in class order."""
    count = min(QUERIES, len(labels_N))
    by_class = labels_N.sort(stable=True).indices
    return by_class[torch.arange(count) * len(labels_N) // count]


def _project(snapshot: Snapshot, images_BCHW: Tensor) -> Tensor:
    """Return the normalised projections of uint8 images, as of those that are queued."""
    config, device = snapshot.config, images_BCHW.device
    kind = "" if config.encoder_momentum is None else "slow_"
    modules = build_encoder(config, images_BCHW.shape[-1]), projection_head(config)
    for part, module in zip(("encoder", "head"), modules, strict=True):
        prefix = f"{kind}{part}/"
        own = [(n, tensor) for n, tensor in snapshot.tensors.items() if n.startswith(prefix)]
        module.load_state_dict({n.removeprefix(prefix): tensor for n, tensor in own})
    network = nn.Sequential(*modules).to(device).eval()
    few = torch.split(images_BCHW, images_at_once(config))
    with autocast(config.precision, device):
        rows = torch.cat([network(images.float() / 255) for images in few])
    return F.normalize(rows.float())
