"""A probe of a trial's pace: real steps, a real checkpoint."""

import time

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import pace
from nnclr_study.trainer.pace import bf16_speed


def test_a_probe_takes_steps_and_weighs_a_checkpoint(tmp_path):
    shared = {"dataset": "digits", "batch_size": 32, "labelled_batch_size": 8, "width": 16}
    small = pace.pace(TrialConfig(queue_size=0, warmup_epochs=5, **shared), tmp_path)
    large = pace.pace(TrialConfig(queue_size=100_000, **shared), tmp_path)
    assert 0 < small.step_seconds < large.step_seconds
    assert small.evaluation_seconds > 0
    queue = 4 * 100_000 * 16
    assert queue < large.checkpoint_bytes - small.checkpoint_bytes < 2 * queue


def test_bf16_that_takes_half_as_long_is_twice_as_fast(monkeypatch):
    assert bf16_speed() > 0
    seconds = {"float32": 0.1, "bf16": 0.05}
    slow = lambda config, *_: lambda: time.sleep(seconds[config.precision])  # noqa: E731
    monkeypatch.setattr(pace, "train_step", slow)
    assert 1.3 < bf16_speed() < 2.5
