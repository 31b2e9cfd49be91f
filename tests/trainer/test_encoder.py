"""Encoders and heads: shapes, torchvision's names, and what batch norm may not do."""

import pytest
import torch
import torchvision
from torch import nn

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.encoder import (
    build_encoder,
    initialise,
    prediction_head,
    projection_head,
)
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.world import World
from tests.trainer.test_loop import config


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("encoder, width", [("conv4", 16), ("resnet18", 8), ("resnet50", 4)])
def test_an_encoder_has_the_features_that_its_config_says(encoder, width, side):
    trial = config(encoder=encoder, width=width)
    features = build_encoder(trial, side)(torch.rand(2, 3, side, side))
    assert features.shape == (2, trial.features)
    assert features.min() >= 0, "all of them end in a ReLU or a mean over one"


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_of_width_64_is_torchvision_s(name):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None)
    theirs.fc = nn.Identity()
    ours = build_encoder(config(encoder=name, width=64), side=224)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_a_small_image_keeps_its_pixels_through_the_stem():
    small = build_encoder(config(encoder="resnet18", width=4), side=32)
    stem = small.maxpool(small.bn1(small.conv1(torch.rand(1, 3, 32, 32))))
    assert stem.shape == (1, 4, 32, 32)


def test_width_multiplies_every_stage():
    narrow, wide = (build_encoder(config(encoder="resnet18", width=w), 32) for w in (8, 16))
    for a, b in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert b.shape[0] == 2 * a.shape[0]


def test_defaults_follow_the_encoder():
    trial = TrialConfig(encoder="resnet50")
    assert (trial.width, trial.features, trial.projector_width) == (64, 2048, 2048)
    example = TrialConfig()
    assert (example.width, example.projector_width, example.projection_dim) == (128, 128, 128)


def test_the_paper_s_heads_can_be_set():
    paper = {"projector_depth": 3, "projector_width": 2048, "projection_dim": 256}
    trial = config(encoder="resnet50", width=64, predictor_width=4096, **paper)
    trial = trial.model_copy(update={"head_batch_norm": True})
    projector, predictor = projection_head(trial), prediction_head(trial)
    kinds = [type(layer).__name__ for layer in projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    shapes = [tuple(layer.weight.shape) for layer in projector if isinstance(layer, nn.Linear)]
    assert shapes == [(2048, 2048), (2048, 2048), (256, 2048)]
    assert [type(layer).__name__ for layer in predictor] == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
    ]
    assert predictor(projector(torch.rand(3, 2048))).shape == (3, 256)


def test_without_a_width_there_is_no_prediction_head():
    assert isinstance(prediction_head(config()), nn.Identity)


@pytest.mark.parametrize("encoder", ["conv4", "resnet18"])
def test_weights_follow_the_generator_alone(encoder):
    modules = []
    for _ in range(2):
        torch.rand(3)
        module = build_encoder(config(encoder=encoder, width=4), 32)
        initialise(module, torch.Generator().manual_seed(1))
        modules.append(module)
    for a, b in zip(*(module.parameters() for module in modules), strict=True):
        assert torch.equal(a, b)


def test_scoring_and_probing_leave_batch_statistics_alone():
    trial = config(encoder="resnet18", width=4, head_batch_norm=True)
    learner = Learner(trial, 32, 10, World())
    images = torch.rand(trial.global_batch, 3, 32, 32)
    before = learner.encoder.bn1.running_mean.clone()
    learner.probe_step(images[:8], torch.arange(8))
    assert torch.equal(learner.encoder.bn1.running_mean, before)
    learner.contrastive_step(images, images.flip(3))
    assert not torch.equal(learner.encoder.bn1.running_mean, before)
