"""Memory that runs out: the trial's row says how much and the way out, and nobody tries again."""

import os
import pickle
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._dynamo.exc import InternalTorchDynamoError

from nnclr_study.study.run_folder import RunFolder
from nnclr_study.sweep import trial
from nnclr_study.sweep.memory import lack
from nnclr_study.sweep.resources import Placement
from nnclr_study.sweep.trial import Job, gave_up, reason
from nnclr_study.trainer.world import World
from tests.processes import descendants, line_of
from tests.sweep.test_engine import STUDY, call, command
from tests.sweep.test_engine import small as small
from tests.trainer.test_loop import config

GPU = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 9.69 GiB is free. Including non-PyTorch memory, this process has 69.41 GiB memory in "
    "use. Of the allocated memory 68.80 GiB is allocated by PyTorch, and 11.30 MiB is reserved by "
    "PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
RAY = """Failure # {} (occurred at 2026-11-25_00-05-47)
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, \
ID: 37383d3b) was 22.73GB used / 23.54GB limit (0.965792)
OOM kill reason: Memory usage 24407888256B exceeded threshold of 24012692480B
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io
"""


def test_what_is_said_of_lacking_memory_has_the_figure_and_the_way_out():
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**46)
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**46)
    for error, figures in (
        (GPU, "20.00 GiB more wanted, 9.69 GiB of 79.11 GiB free"),
        (torchs.value, "262,144.0 GiB more wanted"),
        (numpys.value, "512. TiB"),
        (MemoryError(), "no figure known"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED\nat"), "CUDNN_STATUS_ALLOC_FAILED;"),
    ):
        said = reason(error)
        assert figures in said
        assert "micro_batches" in said
        assert "\n" not in said


@pytest.mark.parametrize("other", [RuntimeError("shapes differ"), OSError("out of memory cards")])
def test_other_errors_are_told_as_they_are(other):
    assert lack(other) is None
    assert reason(other) == f"{type(other).__name__}: {other}"


def test_of_what_torch_says_the_cause_counts_and_not_its_advice():
    advice = "Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace"
    cause = "No working C++ compiler found in ('g++',)"
    error = InternalTorchDynamoError(f"backend='inductor' raised:\n{cause}\n\n{advice}")
    assert reason(error) == f"InternalTorchDynamoError: {cause}"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return what a trial reports whose training raises an error."""

    def start(error, world):
        def fails(*_):
            raise error

        monkeypatch.setattr(trial, "train", fails)
        monkeypatch.setattr(trial, "load_dataset", lambda *_: None)
        reports = []
        job = Job(tmp_path, tmp_path, [], Placement("in-process", 1, 0, 1), "", None, nccl=False)
        params = {"trial_id": "one", "config": config().model_dump_json()}
        trial._run(params, job, world, reports.append)
        return reports

    return start


def test_a_lone_worker_reports_it_so_that_nobody_retries(run):
    (told,) = run(GPU, World())
    assert told["failed"].startswith("the GPU ran out of memory: 20.00 GiB more wanted")


def test_one_of_several_workers_raises_it_and_so_do_other_errors(run):
    with pytest.raises(torch.OutOfMemoryError):
        run(GPU, World(size=2))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(RuntimeError("shapes differ"), World())


@pytest.fixture
def given_up(tmp_path):
    """Return a trial as Tune leaves it, whose last error was that a process died."""
    files = {name: tmp_path / name for name in ("error.txt", "error.pkl")}
    files["error.pkl"].write_bytes(pickle.dumps(OSError("died")))
    names = {"error_file": "error.txt", "pickled_error_file": "error.pkl"}
    return SimpleNamespace(**{field: str(files[name]) for field, name in names.items()})


def test_what_ray_says_of_a_process_that_it_killed_counts_if_it_came_last(given_up):
    text = Path(given_up.error_file)
    text.write_text("Failure # 1 (occurred at 2026-11-25_00-05-41)\ndied\n" + RAY.format(2))
    assert "ended the trial: 22.73GB of 23.54GB used" in gave_up(given_up)
    text.write_text(RAY.format(1) + "Failure # 2 (occurred at 2026-11-25_00-05-49)\ndied\n")
    assert gave_up(given_up) == "OSError: died"


def test_of_an_error_that_tune_did_not_keep_there_is_what_it_said(given_up):
    given_up.pickled_error_file = None
    text = Path(given_up.error_file)
    text.write_text("Failure # 1 (occurred at 2026-11-25_00-05-49)\nno reset\n")
    assert gave_up(given_up) == "RuntimeError: no reset"
    given_up.error_file = None
    assert gave_up(given_up) == "ended without saying why"


@pytest.mark.ray
@pytest.mark.skipif(
    Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1",
    reason="this machine promises memory that it has not",
)
def test_two_workers_that_lack_memory_are_tried_once(small, tmp_path):
    text = STUDY.replace("[1, 2]", "[1]").replace("epochs = 4", "epochs = 1")
    text = text.replace("width = 16", "width = 16\nprojection_dim = 65_536")
    small.write_text(text.replace("[0, 100]", "[100_000_000]"))
    process = subprocess.Popen(
        command("run", small, "--workers", "2"), cwd=tmp_path, stdout=subprocess.PIPE
    )
    workers = set()
    while process.poll() is None:
        started = descendants(process.pid)
        workers |= {pid for pid in started if "RayTrainWorker" in line_of(pid)}
        time.sleep(0.05)
    assert process.returncode == 1, process.stdout.read()
    (row,) = RunFolder.open(tmp_path / "runs" / "small").trials().values()
    assert "24,414.1 GiB more wanted" in row.error
    assert len(workers) <= 4, "more than one further attempt, which was to be called off, began"


@pytest.mark.ray
def test_a_process_that_ray_kills_for_memory_leaves_the_figure(small, tmp_path):
    small.write_text(STUDY.replace("[1, 2]", "[1]").replace("[0, 100]", "[100]"))
    strict = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    done = call("run", small, cwd=tmp_path, env=os.environ | strict)
    assert done.returncode == 1, done.stdout + done.stderr
    (row,) = RunFolder.open(tmp_path / "runs" / "small").trials().values()
    assert row.error.startswith("the node ran low on memory, and Ray ended the trial: ")
    assert "--max-concurrent" in row.error
