"""What only a card can show. Run with: pytest -m gpu"""

import numpy as np
import pytest
import torch

from nnclr_study.trainer import augment, checkpoint
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.world import World, random_stream
from tests.trainer.test_golden import CASES, pixels
from tests.trainer.test_loop import config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_the_card_takes_the_seed_s_first_step():
    golden = np.load(CASES[1])
    _, side, width, queue_size, batch, labelled, _ = golden["meta"].tolist()
    knobs = {"batch_size": batch, "labelled_batch_size": labelled, "queue_size": queue_size}
    world = World.alone()
    learner = Learner(config(width=width, **knobs), side, 10, world)
    parts = {"encoder.": learner.encoder, "head.": learner.head, "probe.dense.": learner.probe}
    for prefix, module in parts.items():
        for key, weight in module.state_dict().items():
            weight.copy_(torch.from_numpy(golden[f"init/{prefix}{key}"]))
    learner.support.bank_QD.copy_(torch.from_numpy(golden["init/queue"]))
    views = [pixels(golden[f"step0/view{v}_u8"]).to(world.device) for v in (1, 2)]
    got = learner.contrastive_step(*views)
    for metric in ("c_loss", "c_acc", "r_acc"):
        assert got[metric].item() == pytest.approx(golden[f"step0/{metric}"], abs=1e-3)
    queue = learner.support.newest_first().cpu()
    assert torch.allclose(queue, torch.from_numpy(golden["step0/queue"]), atol=1e-3)


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"precision": "bf16"},
        {"optimizer": "lars", "neighbours": 3, "pushed_views": 2},
        {"encoder_momentum": 0.9, "micro_batches": 2, "gradient_clip": 1.0},
    ],
    ids=str,
)
def test_a_step_never_waits_for_the_card(tmp_path, knobs):
    world, trial = World.alone(), config(**knobs)
    digits = load_dataset(trial, tmp_path)
    learner = Learner(trial, digits.side, digits.num_classes, world)
    images = digits.unlabelled[: trial.global_batch].to(world.device)
    labels = digits.train.labels[: trial.labelled_batch_size].to(world.device)
    generator = random_stream(0, "augment", 0, world.device)
    recipe = augment.Recipe.of(trial)

    def step():
        view1, view2 = (
            augment.apply(images, augment.draw(recipe, len(images), generator)) for _ in range(2)
        )
        learner.contrastive_step(view1, view2, labels)
        learner.probe_step(view1[: len(labels)], labels)

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_trial_runs_and_resumes_on_the_card(tmp_path):
    trial, path = config(epochs=3), tmp_path / "trial.safetensors"
    digits, world = load_dataset(trial, tmp_path), World.alone()
    whole = [snapshot.rows[-1] for snapshot in train(trial, digits, world)]
    checkpoint.save(next(train(trial, digits, world)), path)
    *_, last = train(trial, digits, world, checkpoint.load(path))
    for ours, theirs in zip(last.rows, whole, strict=True):
        assert ours.c_loss == pytest.approx(theirs.c_loss, abs=1e-3)


def test_images_on_the_card_and_streamed_to_it_are_the_same(tmp_path, monkeypatch):
    trial, world = config(epochs=2), World.alone()
    digits = load_dataset(trial, tmp_path)
    assert digits.on(world.device).unlabelled[:1].is_cuda
    resident = [snapshot.rows[-1].c_loss for snapshot in train(trial, digits, world)]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 0))
    assert not digits.on(world.device).unlabelled[:1].is_cuda
    streamed = [snapshot.rows[-1].c_loss for snapshot in train(trial, digits, world)]
    assert streamed == pytest.approx(resident, abs=1e-3)


def test_a_compiled_step_is_the_plain_one(tmp_path):
    digits, world = load_dataset(config(), tmp_path), World.alone()
    plain, compiled = (
        next(train(config(compile=value), digits, world)).rows[0].c_loss for value in (False, True)
    )
    assert compiled == pytest.approx(plain, abs=1e-3)
