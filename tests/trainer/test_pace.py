"""A probe of a trial's pace: real steps, a real checkpoint."""

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.pace import pace


def test_a_probe_takes_steps_and_weighs_a_checkpoint(tmp_path):
    shared = {"dataset": "digits", "batch_size": 32, "labelled_batch_size": 8, "width": 16}
    small = pace(TrialConfig(queue_size=0, warmup_epochs=5, **shared), tmp_path)
    large = pace(TrialConfig(queue_size=100_000, **shared), tmp_path)
    assert 0 < small.step_seconds < large.step_seconds
    assert small.evaluation_seconds > 0
    queue = 4 * 100_000 * 16
    assert queue < large.checkpoint_bytes - small.checkpoint_bytes < 2 * queue
