"""Processes of trials that die where Ray Tune would not expect it: the trial is tried again."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError

from nnclr_study.study.run_folder import RunFolder
from nnclr_study.sweep import deaths
from tests.sweep.test_engine import small as small

# Two processes die: one trial may be handed both, and may lose no third.
DYING = """
import os, sys
from pathlib import Path
from nnclr_study import cli
from nnclr_study.sweep import engine
here = Path.cwd()
in_process = engine.in_process
def last_of_its_process(params, job):
    in_process(params, job)
    from ray.train._internal.session import _TrainSession
    reset = _TrainSession.reset
    def die(*args, **kwargs):
        for death in "first", "second":
            try:
                (here / death).touch(exist_ok=False)
            except FileExistsError:
                continue
            os._exit(1)
        return reset(*args, **kwargs)
    _TrainSession.reset = die
engine.in_process = last_of_its_process
sys.exit(cli.main())
"""


@pytest.mark.parametrize("death", [OutOfMemoryError("low on memory"), ActorDiedError()])
def test_a_process_killed_for_memory_has_died(death):
    heard = []
    tracked = SimpleNamespace(actor_id=1, _on_error=lambda _, error: heard.append(error))
    manager = object.__new__(deaths._Manager)
    manager._failed_actor_ids, manager._cleanup_actor = set(), lambda **_: None
    manager._actor_task_failed(SimpleNamespace(_tracked_actor=tracked, _on_error=None), death)
    (error,) = heard
    assert isinstance(error, RayActorError)
    assert str(error) == str(death)
    assert manager._failed_actor_ids == {1}


@pytest.mark.ray
def test_a_process_that_dies_as_it_is_handed_on_costs_no_trial(small, tmp_path):
    words = [sys.executable, "-c", DYING, "run", small]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = RunFolder.open(tmp_path / "runs" / "small")
    assert [row.status for row in folder.trials().values()] == ["finished"] * 4
    assert (tmp_path / "second").exists(), "fewer than two died"
