"""Whole studies as a user runs them, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import load_study
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.world import World
from tests.processes import descendants, line_of, survivors

pytestmark = pytest.mark.ray

STUDY = """
[study]
name = "small"
question = "Does it run?"
seeds = [1, 2]
[trial]
dataset = "digits"
epochs = 4
steps_per_epoch = 6
batch_size = 32
labelled_batch_size = 8
width = 16
[grid]
queue_size = [0, 100]
"""


FROM_TERMINALS = signal.SIGINT, signal.SIGHUP


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(STUDY)
    return path


def command(*words):
    return [sys.executable, "-m", "nnclr_study.cli", *map(str, words)]


def call(*words, cwd, env=None):
    return subprocess.run(
        command(*words), cwd=cwd, env=env, capture_output=True, text=True, timeout=400
    )


def rows(folder):
    """Return every epoch row without its clocks."""
    clocks = {"seconds", "train_seconds"}
    return {
        trial_id: [row.model_dump(exclude=clocks) for row in epochs]
        for trial_id, epochs in RunFolder.open(folder).epochs().items()
    }


def pictures(folder):
    """Return the bytes of every file of the gallery."""
    return {path.name: path.read_bytes() for path in (folder / "gallery").iterdir()}


def test_both_runners_and_no_runner_give_the_same_rows_to_the_bit(small, tmp_path):
    for runner in ("in-process", "train"):
        done = call("run", small, "--runner", runner, "--storage", runner, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = RunFolder.open(tmp_path / runner / "small")
        assert {row.status for row in folder.trials().values()} == {"finished"}
        assert folder.sessions()[0].runner == runner
        page = tmp_path / runner / "small" / "report" / "index.html"
        assert page.stat().st_size > 1_000_000
        assert done.stdout.count("finished  queue_size") == 4
        assert str(page.relative_to(tmp_path)) in done.stdout
        assert "Traceback" not in done.stderr
        assert "ray" not in done.stdout.lower() + done.stderr.lower(), "Ray's own noise"
    in_process, train = (rows(tmp_path / name / "small") for name in ("in-process", "train"))
    assert in_process == train
    shown, again = (pictures(tmp_path / name / "small") for name in ("in-process", "train"))
    assert shown == again
    with_queue = [t.id for t in plan_trials(load_study(small)) if t.config.queue_size]
    assert set(shown) == {
        f"{trial_id}.{kind}" for trial_id in with_queue for kind in ("png", "json")
    }
    trial = plan_trials(load_study(small))[3]
    alone = call("trial", small, trial.id, cwd=tmp_path)
    told = [json.loads(line) for line in alone.stdout.splitlines()]
    for row in told:
        del row["seconds"], row["train_seconds"]
    assert told == in_process[trial.id]


def interrupt(file, cwd, number, when):
    """Run a study until `when(process)`, send it a signal, and see that it ends as it should.

    What a terminal sends goes to the whole process group, and so to Ray's processes.
    """
    process = subprocess.Popen(
        command("run", file),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # What a shell starts in the background, these tests perhaps, ignores some.
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in FROM_TERMINALS],
    )
    while process.poll() is None and not when(process):
        time.sleep(0.05)
    (os.killpg if number in FROM_TERMINALS else os.kill)(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert errors.splitlines() == [b"interrupted; the same command goes on where it was"]
    assert survivors(cwd) == []


def has_dashboard(process):
    return any("dashboard/dashboard.py" in line_of(pid) for pid in descendants(process.pid))


def test_ctrl_c_while_ray_starts_interrupts(small, tmp_path):
    interrupt(small, tmp_path, signal.SIGINT, has_dashboard)


def test_interrupted_it_goes_on_where_it_was(small, tmp_path):
    small.write_text(STUDY.replace("epochs = 4", "epochs = 50"))
    epochs = tmp_path / "runs" / "small" / "epochs.jsonl"
    ended = tmp_path / "runs" / "small" / "trials.jsonl"
    # As clusters and containers end what they run, and as SLURM warns of the end.
    interrupt(small, tmp_path, signal.SIGTERM, lambda _: epochs.exists() and _lines(epochs) > 10)
    interrupt(small, tmp_path, signal.SIGUSR1, lambda _: _lines(epochs) > 30)
    interrupt(small, tmp_path, signal.SIGINT, lambda _: ended.exists() and _lines(epochs) > 110)
    before = RunFolder.open(tmp_path / "runs" / "small")
    finished = before.trials()
    recorded = before.epochs()
    assert 1 <= len(finished) < 4
    partial = [t for t, done in recorded.items() if t not in finished]
    assert partial, "some trial was under way"
    assert "interrupted" in call("status", "runs/small", cwd=tmp_path).stdout

    resumed = call("run", small, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count("finished  queue_size") == 4 - len(finished)
    for trial_id, row in finished.items():
        assert before.trials()[trial_id] == row, "not run again"
    for trial_id in partial:
        assert before.epochs()[trial_id][: len(recorded[trial_id])] == recorded[trial_id]

    assert call("run", small, "--storage", "whole", cwd=tmp_path).returncode == 0
    assert rows(tmp_path / "runs" / "small") == rows(tmp_path / "whole" / "small")

    again = call("run", small, cwd=tmp_path)
    assert again.returncode == 0
    assert "all 4 trials have ended: 4 finished" in again.stdout
    assert len(before.sessions()) == 4, "nothing was started"


def test_a_trial_that_fails_is_a_row_and_the_others_go_on(small, tmp_path):
    small.write_text(STUDY.replace("queue_size = [0, 100]", "temperature = [1e-40, 0.1]"))
    done = call("run", small, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    folder = RunFolder.open(tmp_path / "runs" / "small")
    statuses = {t: row.status for t, row in folder.trials().items()}
    assert sorted(statuses.values()) == ["failed", "failed", "finished", "finished"]
    failed = [row for row in folder.trials().values() if row.status == "failed"]
    reason = "DivergedError: c_loss is nan in epoch 1; no epoch was good"
    assert all(row.error == reason for row in failed)
    assert all(row.val_probe_top1 is None for row in failed)
    again = call("run", small, cwd=tmp_path)
    assert again.returncode == 1
    assert "2 finished, 2 failed" in again.stdout
    assert "--retry-failed" in again.stdout
    assert len(folder.sessions()) == 1
    retried = call("run", small, "--retry-failed", cwd=tmp_path)
    assert retried.returncode == 1
    assert len(folder.sessions()) == 2
    assert retried.stdout.count("failed    temperature") == 2


FULL = """
import sys
from nnclr_study import cli
from nnclr_study.errors import RunFolderError
from nnclr_study.study.run_folder import RunFolder
append, told = RunFolder.append_epoch, []
def full(folder, trial_id, row):
    told.append(row)
    if len(told) > 5:
        raise RunFolderError("epochs.jsonl cannot be written: No space left on device")
    append(folder, trial_id, row)
RunFolder.append_epoch = full
sys.exit(cli.main())
"""


def test_without_room_a_study_stops_and_goes_on_when_there_is_some(small, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "small")
    in_the_way = [
        folder.checkpoints / f"{trial.id}.safetensors.part"
        for trial in plan_trials(load_study(small))
    ]
    for path in in_the_way:
        path.mkdir(parents=True)
    blocked = call("run", small, cwd=tmp_path)
    for path in in_the_way:
        path.rmdir()
    full = subprocess.run(
        [sys.executable, "-c", FULL, "run", small], cwd=tmp_path, capture_output=True, text=True
    )
    for stopped, said in ((blocked, "checkpoint of"), (full, "No space left on device")):
        assert stopped.returncode == 2, stopped.stdout + stopped.stderr
        assert said in stopped.stderr
        assert "Traceback" not in stopped.stderr
    assert {row.status for row in folder.trials().values()} <= {"finished"}
    assert call("run", small, cwd=tmp_path).returncode == 0
    assert call("run", small, "--storage", "whole", cwd=tmp_path).returncode == 0
    assert rows(tmp_path / "runs" / "small") == rows(tmp_path / "whole" / "small")


def test_two_workers_train_the_trial_that_one_trains(small, tmp_path):
    small.write_text(STUDY.replace("[1, 2]", "[1]").replace("[0, 100]", "[100]"))
    for workers in (1, 2):
        storage = f"workers{workers}"
        done = call("run", small, "--workers", workers, "--storage", storage, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert RunFolder.open(tmp_path / storage / "small").sessions()[0].workers == workers
    (one,), (two,) = (rows(tmp_path / f"workers{n}" / "small").values() for n in (1, 2))
    for ours, theirs in zip(two, one, strict=True):
        assert ours["c_loss"] == pytest.approx(theirs["c_loss"], abs=1e-3)
        assert ours["p_loss"] == pytest.approx(theirs["p_loss"], abs=1e-3)


@pytest.mark.parametrize(
    "runner, victim",
    [("in-process", "ImplicitFunc"), ("train", "RayTrainWorker"), ("train", "ImplicitFunc")],
)
def test_a_killed_process_is_replaced_and_its_trial_goes_on(small, tmp_path, runner, victim):
    text = STUDY.replace("epochs = 4", "epochs = 30").replace("[1, 2]", "[1]")
    small.write_text(text.replace("[0, 100]", "[100]"))
    process = subprocess.Popen(
        command("run", small, "--runner", runner), cwd=tmp_path, stdout=subprocess.PIPE
    )
    epochs = tmp_path / "runs" / "small" / "epochs.jsonl"
    while process.poll() is None and _lines(epochs) < 5:
        time.sleep(0.05)
    (pid,) = [pid for pid in descendants(process.pid) if f"ray::{victim}" in line_of(pid)]
    os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    (trial,) = plan_trials(load_study(small))
    *_, whole = train(trial.config, load_dataset(trial.config, tmp_path), World())
    clocks = {"seconds", "train_seconds"}
    undisturbed = [row.model_dump(exclude=clocks) for row in whole.rows]
    assert rows(tmp_path / "runs" / "small") == {trial.id: undisturbed}
    assert _lines(epochs) == 30, "no row is written twice"
    assert set(pictures(tmp_path / "runs" / "small")) == {f"{trial.id}.png", f"{trial.id}.json"}


def test_a_cluster_that_is_not_there_or_has_no_gpu_is_told(small, tmp_path):
    nowhere = call("run", small, "--address", "127.0.0.1:1", cwd=tmp_path)
    assert nowhere.returncode == 3, nowhere.stderr
    assert "--address" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr
    no_gpu = call("run", small, "--gpus-per-trial", "64", cwd=tmp_path)
    assert no_gpu.returncode == 3, no_gpu.stderr
    assert "cannot hold one trial" in no_gpu.stderr
    homeless = call("run", small, cwd=tmp_path, env=os.environ | {"HOME": "/proc/none"})
    assert homeless.returncode == 3, homeless.stderr
    assert "/proc/none/.ray/auth_token" in homeless.stderr
    for said in (nowhere, no_gpu, homeless):
        assert "Traceback" not in said.stderr
    assert not (tmp_path / "runs" / "small" / "sessions.jsonl").exists()


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
