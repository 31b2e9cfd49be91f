"""The train step against the Keras example's own numbers, step by step.

`golden/*.npz` were recorded from Keras 3.15 on TensorFlow 2.21 (float32, CPU) with the
augmentation left out: the two views are inputs.

In the second case one unit stands, in step 1, within float32 rounding of the edge of its ReLU:
summed in TensorFlow's order (which torch's plain layout shares) it falls on one side, in exact
arithmetic on the other. So the comparison runs in the plain layout, and a second test shows that
the layout we train in agrees with double precision.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.world import World

CASES = sorted((Path(__file__).parent / "golden").glob("*.npz"))


def pixels(array):
    return torch.from_numpy(array).float() / 255


def close(ours, theirs, tolerance=1e-4):
    theirs = torch.as_tensor(theirs).detach()
    deviation = float((ours.detach() - theirs).abs().max())
    assert deviation <= tolerance, f"off by {deviation:.2e}"
    return deviation


@pytest.fixture(params=CASES, ids=lambda path: path.stem)
def golden(request):
    return np.load(request.param)


def test_both_cases_are_here():
    assert [path.stem for path in CASES] == ["seed_48px_width16", "seed_96px_width32"]


def start(golden, layout, dtype=torch.float32):
    """Return a learner with the weights and the queue that the recording started from."""
    _, side, width, queue_size, batch, labelled, _ = golden["meta"].tolist()
    config = TrialConfig(
        width=width, queue_size=queue_size, batch_size=batch, labelled_batch_size=labelled
    )
    learner = Learner(config, side, num_classes=10, world=World())
    modules = {"encoder.": learner.encoder, "head.": learner.head, "probe.dense.": learner.probe}
    for prefix, module in modules.items():
        module.to(dtype=dtype, memory_format=layout)
        for key, weight in module.state_dict().items():
            weight.copy_(torch.from_numpy(golden[f"init/{prefix}{key}"]))
    learner.support.bank_QD = torch.from_numpy(golden["init/queue"]).to(dtype)
    return learner, modules


def test_the_train_step_is_the_seeds(golden, monkeypatch):
    learner, modules = start(golden, torch.contiguous_format)
    seen = {}
    look_up = learner.support.nearest

    def nearest(queries):
        index = look_up(queries)
        newest_first = (index - learner.support.head) % len(learner.support.bank_QD)
        seen.setdefault("queries", []).append(queries)
        seen.setdefault("index", []).append(newest_first)
        return index

    monkeypatch.setattr(learner.support, "nearest", nearest)
    worst, grads = 0.0, 0
    for step in range(golden["meta"][-1]):
        want = {k.removeprefix(f"step{step}/"): golden[k] for k in golden if f"step{step}/" in k}
        seen.clear()
        view1, view2 = pixels(want["view1_u8"]), pixels(want["view2_u8"])
        worst = max(worst, close(learner.encoder(view1), want["features1"]))
        got = learner.contrastive_step(view1, view2)
        for view in (0, 1):
            assert seen["index"][view].tolist() == want[f"nn_index{view + 1}"].tolist()
            worst = max(worst, close(seen["queries"][view], want[f"projections{view + 1}"]))
        for prefix, module in modules.items():
            for key, weight in module.named_parameters():
                if (grad := want.get(f"grad.{prefix}{key}")) is not None:
                    worst, grads = max(worst, close(weight.grad, grad)), grads + 1
        worst = max(worst, close(learner.support.newest_first(), want["queue"]))
        labels = torch.from_numpy(want["labels"])
        got |= learner.probe_step(pixels(want["labelled_u8"]), labels)
        for metric in ("c_loss", "c_acc", "p_loss", "p_acc"):
            worst = max(worst, close(got[metric], want[metric]))
        if want["dead_features"] == 0:  # the seed's r_acc is NaN-poisoned where one is dead
            worst = max(worst, close(got["r_acc"], want["r_acc"]))
    assert grads == 2 * (step + 1)
    drift = 0.0
    for prefix, module in modules.items():
        for key, weight in module.state_dict().items():
            drift = max(drift, close(weight, golden[f"final/{prefix}{key}"], 1e-3))
    print(f"largest deviation {worst:.1e}, of the last weights {drift:.1e}")


def test_the_layout_we_train_in_agrees_with_double_precision(golden):
    plain, modules = start(golden, torch.contiguous_format, torch.float64)
    trained_in, ours = start(golden, torch.channels_last)
    for step in range(golden["meta"][-1]):
        names = ("view1_u8", "view2_u8", "labelled_u8")
        views = [pixels(golden[f"step{step}/{name}"]) for name in names]
        labels = torch.from_numpy(golden[f"step{step}/labels"])
        want = plain.contrastive_step(*(view.double() for view in views[:2]))
        want |= plain.probe_step(views[2].double(), labels)
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        got = trained_in.contrastive_step(*views[:2]) | trained_in.probe_step(views[2], labels)
        for metric, value in want.items():
            close(got[metric], value, 1e-5)
        close(trained_in.support.newest_first(), plain.support.newest_first(), 1e-5)
    for prefix, module in ours.items():
        for key, weight in module.state_dict().items():
            close(weight, modules[prefix].state_dict()[key], 1e-5)
