"""A step reads nothing back from its device: on meta tensors, which hold no values, it could not.

A card would be waited for at such a place. Tensors of another device would not do either.
"""

from contextlib import nullcontext

import pytest
import torch

from nnclr_study.trainer import augment, learner, network
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.world import CPU, World, random_stream
from tests.trainer.test_loop import config

META = torch.device("meta")
SIDE, CLASSES = 32, 10


@pytest.fixture(autouse=True)
def on_meta(monkeypatch):
    """Give what meta has none of: generators and autocast."""
    monkeypatch.setattr(learner, "random_stream", lambda *key: random_stream(*key[:3], CPU))
    for module in (learner, network):
        monkeypatch.setattr(module, "autocast", lambda *_: nullcontext())


def view(recipe, images):
    drawn = augment.draw(recipe, len(images), torch.Generator())
    return augment.apply(
        images, augment.Draw(*(None if part is None else part.to(META) for part in drawn))
    )


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"queue_size": 0},
        {"neighbour_gradient": "stop", "aug_recipe": "simclr", "optimizer": "adamw"},
        {"optimizer": "lars", "neighbours": 3, "pushed_views": 2, "predictor_width": 8},
        {"encoder_momentum": 0.9, "micro_batches": 2, "gradient_clip": 1.0},
        {"encoder": "resnet18", "width": 8, "optimizer": "sgd", "head_batch_norm": True},
    ],
    ids=str,
)
def test_a_step_reads_nothing_back(knobs):
    trial = config(**knobs)
    ours = Learner(trial, SIDE, CLASSES, World(META))
    images = torch.empty(trial.global_batch, 3, SIDE, SIDE, dtype=torch.uint8, device=META)
    labels = torch.empty(trial.labelled_batch_size, dtype=torch.long, device=META)
    for _ in range(2):  # the second finds the optimisers' moments
        views = [view(recipe, images) for recipe in augment.Recipe.of_both_views(trial)]
        metrics = ours.contrastive_step(*views, labels)
        metrics |= ours.probe_step(view(augment.PROBE_RECIPE, images[: len(labels)]), labels)
        assert {value.device.type for value in metrics.values()} == {"meta"}


def test_what_reads_back_would_be_seen():
    with pytest.raises(RuntimeError, match="meta"):
        torch.empty((), device=META).item()
    with pytest.raises(RuntimeError):
        torch.empty(3, device=META).nonzero()
    with pytest.raises(RuntimeError):
        torch.empty(3, device=META) + torch.ones(3)
