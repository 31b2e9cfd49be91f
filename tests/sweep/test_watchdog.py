"""A process that has started Ray ends with the code of a ClusterError when Ray dies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import subprocess, sys, time
from nnclr_study.sweep import watchdog
watchdog.POLL_SECONDS = 0.05
name, grace, kill, seconds = sys.argv[1], float(sys.argv[2]), sys.argv[3], float(sys.argv[4])
with watchdog.watched(grace) as over:
    child = subprocess.Popen([name, "60"])
    time.sleep(0.5)
    if kill == "kill":
        child.kill()
    if "over" in sys.argv:
        over.set()
    time.sleep(seconds)
child.kill()
print("to its end")
"""


@pytest.mark.parametrize(
    "name, grace, kill, seconds, code, more",
    [
        ("raylet", 0.1, "kill", 30, 3, ""),
        ("gcs_server", 0.1, "kill", 30, 3, ""),
        ("raylet", 30, "kill", 0.5, 0, ""),
        ("raylet", 0.3, "kill", 1, 0, "over"),
        ("raylet", 0.1, "let live", 0.5, 0, ""),
        ("dashboard", 0.1, "kill", 0.5, 0, ""),
    ],
)
def test_the_process_ends_where_ray_has_died(tmp_path, name, grace, kill, seconds, code, more):
    program = shutil.copy(shutil.which("sleep"), tmp_path / name)
    words = [sys.executable, "-c", PROGRAM, program, str(grace), kill, str(seconds), more]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    if code:
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: Ray's process {name} died")
        assert line.endswith("run the same command again to resume")
    else:
        assert done.stdout == "to its end\n"
