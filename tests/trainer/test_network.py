"""A batch that passes in parts is the batch that passes at once."""

import pytest
import torch

from nnclr_study.errors import UsageError
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.network import embed
from nnclr_study.trainer.world import World
from tests.trainer.test_loop import config

HEADS = {"predictor_width": 6, "projector_depth": 3}


def learner(**knobs):
    return Learner(config(**knobs), side=32, num_classes=10, world=World())


def views(count, seed=0):
    return torch.rand(2, count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def gradients(trial):
    parameters = trial.network.named_parameters()
    return {name: p.grad for name, p in parameters if p.grad is not None}


@pytest.mark.parametrize("parts", [2, 5, 32])
@pytest.mark.parametrize(
    "knobs",
    [{}, HEADS, HEADS | {"neighbour_gradient": "stop"}, {"queue_size": 0}, {"loss_blocks": 2}],
    ids=str,
)
def test_in_parts_the_gradient_is_the_whole_batch_s(knobs, parts):
    whole, parted = learner(**knobs), learner(**knobs, micro_batches=parts)
    want = whole.contrastive_step(*views(32))
    got = parted.contrastive_step(*views(32))
    for metric, value in want.items():
        assert torch.allclose(got[metric], value, atol=1e-6), metric
    theirs, ours = gradients(whole), gradients(parted)
    assert ours.keys() == theirs.keys()
    assert len(ours) >= 12
    for name, gradient in theirs.items():
        largest = float(gradient.abs().max())
        assert torch.allclose(ours[name], gradient, atol=1e-5 * largest), name
        assert largest > 0


def test_in_parts_batch_norm_counts_every_image_once():
    knobs = {"encoder": "resnet18", "width": 4, "encoder_momentum": 0.99}
    parted = learner(**knobs, micro_batches=4)
    once = learner(**knobs)
    pair = views(32)
    parted.contrastive_step(*pair)
    once.network.train()
    for view1, view2 in zip(pair[0].chunk(4), pair[1].chunk(4), strict=True):
        once.network(view1, view2)
    for ours, theirs in zip(parted.encoder.buffers(), once.encoder.buffers(), strict=True):
        if ours.is_floating_point():
            assert torch.equal(ours, theirs)
    slow = parted.slow.encoder.buffers()
    for ours, theirs in zip(slow, once.encoder.buffers(), strict=True):
        if ours.is_floating_point():
            assert torch.equal(ours, theirs), "of the same weights, so far"


def test_in_parts_no_graph_is_kept():
    trial = learner()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        embed(trial.network, *views(32), parts=4)
        assert kept == []
        embed(trial.network, *views(32), parts=1)
        assert kept != []


def test_more_parts_than_a_worker_s_images_are_refused():
    with pytest.raises(UsageError, match=r"micro_batches=20 with --workers 2.*use --workers 1"):
        Learner(config(micro_batches=20), 32, 10, World(rank=0, size=2))


def test_bf16_is_float32_but_for_rounding():
    exact, rounded = learner(), learner(precision="bf16")
    for step in range(3):
        want, got = (trial.contrastive_step(*views(32, step)) for trial in (exact, rounded))
        assert got["c_loss"].item() == pytest.approx(want["c_loss"].item(), rel=0.02)
        assert got["c_loss"] != want["c_loss"]
        assert got["c_loss"].dtype == torch.float32
    labels = torch.arange(8)
    want, got = (t.probe_step(views(8)[0], labels)["p_loss"] for t in (exact, rounded))
    assert got.item() == pytest.approx(want.item(), rel=0.02)
    assert all(tensor.dtype != torch.bfloat16 for tensor in rounded.state_dict().values())


@pytest.mark.slow
def test_compiled_it_is_the_same_trial():
    plain, compiled = learner(), learner(compile=True)
    for step in range(3):
        want, got = (trial.contrastive_step(*views(32, step)) for trial in (plain, compiled))
        assert got["c_loss"].item() == pytest.approx(want["c_loss"].item(), abs=1e-5)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
