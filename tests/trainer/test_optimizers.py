"""Optimisers against the plainest code that says the same, and the schedule's shape."""

import math

import pytest
import torch
from torch import nn

from nnclr_study.trainer.optimizers import LARS, KerasAdam, build_optimizer, learning_rate
from tests.trainer.test_loop import config

PAST = {"epochs": 10, "steps_per_epoch": 5, "learning_rate": 2.0}


def descend(optimizer, parameter, gradients):
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()


def test_lars_is_what_its_paper_says():
    torch.manual_seed(0)
    start, gradients = torch.randn(4, 3), [torch.randn(4, 3) for _ in range(5)]
    weight = nn.Parameter(start.clone())
    groups = [{"params": [weight], "weight_decay": 0.1, "adapt": True}]
    descend(LARS(groups, lr=0.5, momentum=0.9, trust=0.001, clip=False), weight, gradients)

    w, velocity = start.double(), torch.zeros(4, 3).double()
    for gradient in gradients:
        decayed = gradient.double() + 0.1 * w
        local = 0.001 * math.sqrt(float((w * w).sum())) / math.sqrt(float((decayed**2).sum()))
        velocity = 0.9 * velocity + 0.5 * local * decayed
        w = w - velocity
    assert torch.allclose(weight.double(), w, atol=1e-6)


def test_lars_clipped_never_goes_faster_than_its_rate():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3))
    groups = [{"params": [weight], "weight_decay": 0.0, "adapt": True}]
    optimizer = LARS(groups, lr=0.5, momentum=0.0, trust=0.02, clip=True)
    for size in (1e-3, 1.0):  # of the gradient: local rates far above 0.5, and below
        before = weight.detach().clone()
        weight.grad = size * torch.randn(4, 3)
        local = 0.02 * before.norm() / weight.grad.norm()
        optimizer.step()
        step = 0.5 * min(1.0, float(local) / 0.5) * weight.grad
        assert torch.allclose(weight, before - step, atol=1e-7)
        assert (local > 0.5) == (size < 1)


def test_lars_takes_biases_and_empty_layers_plainly():
    bias, empty = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(2, 2))
    groups = [
        {"params": [empty], "weight_decay": 0.0, "adapt": True},
        {"params": [bias], "weight_decay": 0.0, "adapt": False},
    ]
    optimizer = LARS(groups, lr=0.5, momentum=0.0, trust=0.001, clip=False)
    bias.grad, empty.grad = torch.ones(3), torch.ones(2, 2)
    optimizer.step()
    assert bias.tolist() == [0.5] * 3
    assert empty.tolist() == [[-0.5] * 2] * 2, "a weight of 0 is not stuck there"
    before = empty.clone()
    empty.grad, bias.grad = torch.zeros(2, 2), None
    optimizer.step()
    assert torch.equal(empty, before), "a gradient of 0 is no division by it"


def test_keras_adam_is_keras_s():
    torch.manual_seed(0)
    start, gradients = torch.randn(6), [1e-6 * torch.randn(6) for _ in range(4)]
    weight = nn.Parameter(start.clone())
    descend(KerasAdam([weight], lr=0.1), weight, gradients)
    w, m, v = start.double(), torch.zeros(6).double(), torch.zeros(6).double()
    for t, gradient in enumerate(gradients, start=1):
        g = gradient.double()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        rate = 0.1 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - rate * m / (v.sqrt() + 1e-7)
    assert torch.allclose(weight.double(), w, atol=1e-5)
    plain = nn.Parameter(start.clone())
    descend(torch.optim.Adam([plain], lr=0.1, eps=1e-7), plain, gradients)
    assert not torch.allclose(plain.double(), w, atol=1e-2), "torch's own is another"


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lars"])
def test_weight_decay_spares_vectors(name):
    layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = [p.detach().clone() for p in layer.parameters()]
    trial = config(optimizer=name, weight_decay=0.5, learning_rate=0.1)
    optimizer = build_optimizer([layer], trial)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = [not torch.equal(p, old) for p, old in zip(layer.parameters(), before, strict=True)]
    assert moved == [True, False, False, False]


def test_warm_up_rises_to_the_rate_and_cosine_falls_to_nothing():
    trial = config(**PAST, schedule="cosine", warmup_epochs=2)
    rates = [learning_rate(trial, step) for step in range(50)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[30] == pytest.approx(1.0)
    assert 0 < rates[49] < 0.01
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert learning_rate(config(**PAST), 0) == learning_rate(config(**PAST), 49) == 2.0


def test_warm_up_leaves_an_epoch_to_train_in():
    with pytest.raises(ValueError, match="use warmup_epochs < 4"):
        config(warmup_epochs=4)
