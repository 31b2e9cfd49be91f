"""`run` killed by SIGKILL: nothing is lost, doubled or run again. `kill_run.py` does it often."""

import time

import pytest

from nnclr_study.study.run_folder import RunFolder
from tests.faults.kill_run import STUDY, check, start
from tests.processes import working_in

pytestmark = pytest.mark.ray


def test_a_run_that_was_killed_twice_ends_as_one_that_was_not(tmp_path):
    (tmp_path / "killed.toml").write_text(STUDY.replace("epochs = 12", "epochs = 6"))
    undisturbed, folder = (RunFolder(tmp_path / name / "killed") for name in ("whole", "torn"))
    assert start(undisturbed, tmp_path).wait() == 0
    ended = {}
    for epochs in (3, 15):
        home = tmp_path / f"killed at {epochs}"
        home.mkdir()
        process = start(folder, home)
        while process.poll() is None and sum(map(len, folder.epochs().values())) < epochs:
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -9
        assert ended.items() <= folder.trials().items()
        ended = folder.trials()
    assert start(folder, tmp_path).wait() == 0
    assert ended, "the second call was killed late enough"
    assert ended.items() <= folder.trials().items()
    check(folder, undisturbed)
    assert not [line for line in working_in(home) if "ImplicitFunc" in line], "a trial lives on"
