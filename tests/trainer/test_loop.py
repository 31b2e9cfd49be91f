"""A whole trial: the same rows to the bit, resumed or not, whatever ran before it."""

import pytest
import torch

from nnclr_study.errors import RunFolderError
from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import checkpoint
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.evaluate import PROBE_CS
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import DivergedError, train
from nnclr_study.trainer.world import World


def config(**knobs):
    small = {
        "dataset": "digits",
        "epochs": 4,
        "steps_per_epoch": 3,
        "batch_size": 24,
        "labelled_batch_size": 8,
        "width": 8,
        "queue_size": 70,
        "seed": 5,
    }
    return TrialConfig(**(small | knobs))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load_dataset(config(), tmp_path_factory.mktemp("data"))


def rows(snapshots):
    """Return the rows of a trial without their clocks."""
    *_, last = snapshots
    return [row.model_dump(exclude={"seconds", "train_seconds"}) for row in last.rows]


@pytest.mark.parametrize(
    "knobs",
    [
        {"queue_size": 0},
        {"queue_size": 70},
        {"encoder_momentum": 0.9, "neighbours": 3, "pushed_views": 2, "micro_batches": 3},
        {"precision": "bf16"},
        {"optimizer": "adamw", "weight_decay": 0.1, "gradient_clip": 1.0},
        {"optimizer": "sgd", "optimizer_momentum": 0.0},
        {"encoder": "resnet18", "width": 4, "head_batch_norm": True, "predictor_width": 6},
        {"optimizer": "lars", "learning_rate": 1.0, "schedule": "cosine", "warmup_epochs": 2},
    ],
    ids=str,
)
def test_killed_after_any_epoch_it_goes_on_to_the_bit(digits, tmp_path, knobs):
    trial = config(**knobs)
    whole = rows(train(trial, digits, World()))
    assert len(whole) == 4
    for stop in (1, 2, 3):
        path = tmp_path / f"{stop}.safetensors"
        for snapshot in train(trial, digits, World()):
            checkpoint.save(snapshot, path)
            if len(snapshot.rows) == stop:
                break
        torch.manual_seed(stop)  # what a new process would not share
        saved = checkpoint.load(path)
        assert saved.config == trial
        assert len(saved.rows) == stop
        assert rows(train(trial, digits, World(), saved)) == whole


def test_trials_in_one_process_share_nothing(digits):
    alone = rows(train(config(), digits, World()))
    first, second = train(config(), digits, World()), train(config(seed=6), digits, World())
    for _ in range(3):
        next(first)
        torch.randn(7)
        other = next(second)
    assert rows(first) == alone
    assert other.rows[0].c_loss != alone[0]["c_loss"]


def test_test_images_are_looked_at_once_at_the_end(digits):
    *early, last = rows(train(config(), digits, World()))
    assert [row["test_probe_top1"] for row in early] == [None] * 3
    assert 0 < last["test_probe_top1"] < 1


def test_every_epoch_is_scored_and_the_queue_where_there_is_one(digits):
    for trial in (config(), config(queue_size=0)):
        for row in rows(train(trial, digits, World())):
            absent = {name for name, value in row.items() if value is None}
            of_a_queue = set() if trial.queue_size else {"nn_same_label", "nn_age", "queue_used"}
            assert absent - {"test_probe_top1"} == of_a_queue
            assert row["probe_C"] in PROBE_CS
            assert 1 <= row["rankme"] <= 8
            assert 0 < row["feature_std"] < 8**-0.5


def test_a_queue_that_was_never_labelled_says_nothing_of_labels(digits):
    # In the first step only the random rows of the start are there to be found.
    row = next(train(config(queue_size=20_000, steps_per_epoch=1), digits, World())).rows[0]
    assert row.nn_same_label is None
    assert row.nn_age == 0
    assert 0 < row.queue_used <= 64 / 20_032


@pytest.mark.parametrize(
    "weight, said",
    [
        (torch.nan, "features are not finite in epoch 2; the last good epoch is 1"),
        (0.0, r"features collapsed: feature_std is 0.0e\+00 in epoch 2; the last good epoch is 1"),
    ],
)
def test_features_that_say_nothing_end_the_trial(digits, monkeypatch, weight, said):
    step = Learner.contrastive_step

    def poisoned(self, *args):
        metrics = step(self, *args)
        if self.steps_taken > self.config.steps_per_epoch:
            for parameter in self.encoder.parameters():
                parameter.data.fill_(weight)
        return metrics | {"c_loss": torch.ones(())}

    monkeypatch.setattr(Learner, "contrastive_step", poisoned)
    trial = train(config(), digits, World())
    assert len(next(trial).rows) == 1
    with pytest.raises(DivergedError, match=said):
        next(trial)


def test_a_trial_in_parts_is_the_trial_at_once(digits):
    whole, parted = (rows(train(config(micro_batches=n), digits, World())) for n in (1, 4))
    for ours, theirs in zip(parted, whole, strict=True):
        assert ours["c_loss"] == pytest.approx(theirs["c_loss"], abs=1e-4)


def test_it_learns(digits):
    trial = config(
        epochs=12, steps_per_epoch=20, width=16, queue_size=200, probe_learning_rate=0.02
    )
    seen = rows(train(trial, digits, World()))
    assert seen[-1]["c_loss"] < seen[0]["c_loss"] - 0.2
    assert seen[-1]["p_loss"] < seen[0]["p_loss"] - 0.1
    assert seen[-1]["val_p_acc"] > 0.25
    assert seen[-1]["val_probe_top1"] > 0.6


@pytest.mark.parametrize(
    "knob, value",
    [
        ("queue_size", 0),
        ("temperature", 0.5),
        ("aug_strength", 0.2),
        ("width", 16),
        ("seed", 6),
        ("projection_dim", 4),
        ("learning_rate", 0.01),
        ("probe_learning_rate", 0.01),
        ("batch_size", 23),
        ("labelled_batch_size", 7),
        ("steps_per_epoch", 2),
        ("val_fraction", 0.3),
        ("encoder", "resnet18"),
        ("projector_depth", 3),
        ("projector_width", 5),
        ("predictor_width", 6),
        ("head_batch_norm", True),
        ("neighbour_gradient", "stop"),
        ("loss_blocks", 2),
        ("optimizer", "sgd"),
        ("weight_decay", 0.5),
        ("warmup_epochs", 2),
        ("gradient_clip", 0.001),
        ("neighbours", 5),
        ("pushed_views", 2),
        ("encoder_momentum", 0.9),
        ("precision", "bf16"),
        ("view2_blur_prob", 1.0),
        ("view2_solarise_prob", 1.0),
    ],
)
def test_every_knob_is_connected(digits, tmp_path, knob, value):
    usual = next(train(config(), digits, World())).rows[0]
    trial = config(**{knob: value})
    turned = next(train(trial, load_dataset(trial, tmp_path), World())).rows[0]
    metrics = {"c_loss", "p_loss", "val_probe_top1", "val_p_loss"}
    assert turned.model_dump(include=metrics) != usual.model_dump(include=metrics)


def test_the_probe_step_leaves_the_encoder_alone(digits):
    learner = Learner(config(), digits.side, digits.num_classes, World())
    before = [weight.clone() for weight in learner.encoder.parameters()]
    learner.probe_step(digits.train.images[:8].float() / 255, digits.train.labels[:8])
    assert all(
        torch.equal(a, b) for a, b in zip(before, learner.encoder.parameters(), strict=True)
    )
    assert all(weight.grad is None for weight in learner.encoder.parameters())


def test_a_loss_that_is_no_number_ends_the_trial(digits):
    with pytest.raises(DivergedError, match="c_loss is nan in epoch 1"):
        list(train(config(temperature=1e-40), digits, World()))


def test_a_checkpoint_is_whole_or_absent(digits, tmp_path):
    path = tmp_path / "deep" / "trial.safetensors"
    assert checkpoint.load(path) is None
    snapshot = next(train(config(), digits, World()))
    checkpoint.save(snapshot, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing else is left behind"
    content = path.read_bytes()
    for cut in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(RunFolderError, match=r"trial\.safetensors is no checkpoint"):
            checkpoint.load(path)
