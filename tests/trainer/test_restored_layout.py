"""Restored optimizer state has the memory layout of its parameter, as a fused step requires."""

from itertools import product

import pytest
import torch
from torch import nn

from nnclr_study.trainer import checkpoint
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import Snapshot
from nnclr_study.trainer.optimizers import build_optimizer, restore
from nnclr_study.trainer.world import World
from tests.study.test_run_folder import epoch
from tests.trainer.test_loop import config

TOLERANCE = 1e-5
"""Of a weight after one step: fused and plain steps round differently in float32."""


def learner(trial, fused=False):
    made = Learner(trial, side=32, num_classes=10, world=World())
    for group in [*made.optimizer.param_groups, *made.probe_optimizer.param_groups]:
        if "fused" in group:
            group["fused"] = fused
    return made


def step(of, seed):
    generator = torch.Generator().manual_seed(seed)
    views = torch.rand(2, of.config.global_batch, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 10, (of.config.labelled_batch_size,), generator=generator)
    of.contrastive_step(*views, labels)
    of.probe_step(views[0, : len(labels)], labels)


def saved(of, path):
    """Return what a checkpoint of a learner holds, read from its file."""
    checkpoint.save(Snapshot(of.config, [epoch(1)], of.state_dict()), path)
    return checkpoint.load(path).tensors


def moments(of):
    for optimizer in (of.optimizer, of.probe_optimizer):
        for parameter, tensors in optimizer.state.items():
            yield from ((name, parameter, t) for name, t in tensors.items() if name != "step")


@pytest.mark.parametrize(
    "encoder, optimizer",
    [*product(["conv4", "resnet18"], ["adam", "adamw", "sgd", "lars"]), ("resnet50", "adam")],
)
def test_state_from_a_file_has_the_strides_of_its_parameters(encoder, optimizer, tmp_path):
    trial = config(encoder=encoder, width=4, optimizer=optimizer, encoder_momentum=0.9)
    before = learner(trial)
    step(before, 1)
    tensors = saved(before, tmp_path / "checkpoint")
    assert all(tensor.is_contiguous() for tensor in tensors.values()), "as in older checkpoints"
    after = learner(trial)
    after.load_state_dict(tensors)
    restored = list(moments(after))
    assert any(p.ndim == 4 and not p.is_contiguous() for _, p, _ in restored)
    assert len(restored) == len(list(moments(before)))
    for name, parameter, moment in restored:
        assert moment.stride() == parameter.stride(), name
    got, want = after.state_dict(), before.state_dict()
    assert got.keys() == want.keys()
    for name, tensor in got.items():
        assert tensor.stride() == want[name].stride(), name
        assert torch.equal(tensor, want[name]), name


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_fused_step_after_a_resume_is_the_plain_step_without_one(optimizer, tmp_path):
    trial = config(optimizer=optimizer)
    whole = learner(trial)
    step(whole, 1)
    resumed = learner(trial, fused=True)
    resumed.load_state_dict(saved(whole, tmp_path / "checkpoint"))
    resumed.steps_taken = whole.steps_taken
    for of in (whole, resumed):
        step(of, 2)
    want = whole.state_dict()
    for name, tensor in resumed.state_dict().items():
        assert torch.allclose(tensor, want[name], atol=TOLERANCE), name


def test_the_same_tensors_can_be_restored_twice():
    trial = config()
    before = learner(trial)
    step(before, 1)
    tensors = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    resumed = [learner(trial) for _ in range(2)]
    for of in resumed:
        of.load_state_dict(tensors)
        step(of, 2)
    first, second = (of.state_dict() for of in resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_count_of_steps_of_a_scalar_parameter_is_no_moment():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.bfloat16))
            self.weight = nn.Parameter(torch.ones(2, 2))

    module = Scaled()
    optimizer = build_optimizer([module], config())
    (module.weight.sum() * module.scale).backward()
    optimizer.step()
    state = optimizer.state_dict()["state"]
    restore(optimizer, state)
    assert optimizer.state[module.scale]["step"].dtype == torch.float32
    assert optimizer.state[module.scale]["exp_avg"].dtype == torch.bfloat16


def test_a_moment_of_another_shape_is_refused():
    before = learner(config())
    step(before, 1)
    tensors = before.state_dict()
    name = next(n for n, t in tensors.items() if n.endswith("exp_avg") and t.dim() == 4)
    with pytest.raises(RuntimeError, match=r"exp_avg has the shape \(\), and its parameter has"):
        learner(config()).load_state_dict(tensors | {name: torch.tensor(5.0)})
