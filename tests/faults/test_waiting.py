"""What another job holds: `run` says what it waits for, and goes on when it is free."""

import io
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from rich.console import Console

from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep import waiting
from nnclr_study.sweep.resources import Placement
from nnclr_study.sweep.terminal import Progress
from nnclr_study.sweep.waiting import Waiting, told
from tests.sweep.test_cluster import cluster, joined
from tests.sweep.test_engine import STUDY, command
from tests.sweep.test_engine import small as small

MEASURED_SECONDS = 10


def test_what_is_waited_for_is_named_with_what_is_free():
    there = {"CPU": 4.0, "GPU": 2.0}
    on_gpus = Placement("train", 2, 1.0, 1)
    assert told(on_gpus, 1, there, {"CPU": 3.9}) == (
        "waiting: 1 trial(s), for 2 GPU and 2 CPU each; free now: 0 of 2 GPUs and 3.9 of 4 CPUs"
    )
    without = Placement("in-process", 1, 0.0, 4)
    assert told(without, 3, there, {}) == (
        "waiting: 3 trial(s), for 1 CPU each; free now: 0 of 4 CPUs"
    )


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Return what asks an invented cluster at every step, who waits there, and the terminal."""
    study = parse_study(STUDY, "small.toml")
    terminal = io.StringIO()
    folder = RunFolder.create(tmp_path / "small").keep(study)
    progress = Progress(Console(file=terminal, width=200), study, folder, plan_trials(study))
    context = SimpleNamespace(get_job_id=lambda: "02", gcs_address="here:1")
    monkeypatch.setattr(waiting, "ASK_AGAIN_SECONDS", 0)
    monkeypatch.setattr(waiting.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(waiting.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setattr(waiting.ray, "available_resources", lambda: {"CPU": 3.0})
    pending = []

    def groups(address, filters, timeout):
        assert (address, filters[0]) == ("here:1", ("creator_job_id", "=", "02"))
        if None in pending:
            raise ConnectionError("no dashboard")
        return pending

    monkeypatch.setattr(waiting, "list_placement_groups", groups)
    told_by = Waiting(Placement("train", 1, 1.0, 1), progress)
    return SimpleNamespace(**locals())


def test_it_is_said_once_when_it_lasts_and_the_living_line_follows(asked):
    step, line = asked.told_by.on_step_begin, lambda: asked.progress.__rich__().plain
    asked.pending.append("one")
    step()
    assert "waiting" not in asked.terminal.getvalue(), "it may be on its way"
    step()
    step()
    assert asked.terminal.getvalue().count("waiting: 1 trial(s), for 1 GPU and 1 CPU each") == 1
    assert "free now: 0 of 1 GPUs and 3 of 4 CPUs" in asked.terminal.getvalue()
    assert line().endswith("waiting")
    asked.pending.clear()
    step()
    assert "waiting" not in line()
    asked.pending.append("another")
    asked.told_by.on_trial_complete()
    step()
    step()
    assert asked.terminal.getvalue().count("waiting: ") == 2


def test_without_an_answer_nothing_is_said(asked):
    asked.pending.append(None)
    for _ in range(3):
        asked.told_by.on_step_begin()
    assert asked.terminal.getvalue() == ""


@pytest.mark.ray
@pytest.mark.parametrize("runner", ["train", "in-process"])
def test_gpus_that_another_job_holds_are_waited_for_without_a_busy_loop(small, tmp_path, runner):
    small.write_text(STUDY.replace("[1, 2]", "[1]"))
    with cluster({"num_cpus": 4, "num_gpus": 1}) as made, joined(made):
        other = ray.util.placement_group([{"GPU": 1}])
        ray.get(other.ready())
        words = ("--address", made.address, "--gpus-per-trial", "1", "--runner", runner)
        process = subprocess.Popen(
            command("run", small, *words), cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        said = []
        while "waiting" not in "".join(said):
            said.append(process.stdout.readline())
            assert said[-1], f"ended without waiting: {said}"
        assert "for 1 GPU and 1 CPU each; free now: 0 of 1 GPUs and" in said[-1]
        before = _cpu_seconds(process.pid)
        time.sleep(MEASURED_SECONDS)
        used = (_cpu_seconds(process.pid) - before) / MEASURED_SECONDS
        assert not (tmp_path / "runs" / "small" / "epochs.jsonl").exists()
        ray.util.remove_placement_group(other)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert len(RunFolder.open(tmp_path / "runs" / "small").trials()) == 2
        print(f"{runner}: {used:.1%} of a core")
        assert used < 0.2


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
