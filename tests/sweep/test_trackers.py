"""What MLflow and Weights & Biases hold of a run folder, read back from where they keep it."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import wandb
from mlflow import MlflowClient
from wandb.proto.wandb_internal_pb2 import Record

from nnclr_study.errors import UsageError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep.trackers import MLflow, WeightsAndBiases, tracker
from tests.study.test_run_folder import ended, epoch, session
from tests.study.test_spec import GOOD

STUDY = parse_study(GOOD, "good.toml")
TRIAL, OTHER = plan_trials(STUDY)[:2]
LOG_BLOCK, LOG_START, CHUNK_START = 32_768, 7, 7


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Return a database of MLflow's, which takes seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def folder(tmp_path):
    return begun(tmp_path / "good", 0)


def begun(path, hour):
    folder = RunFolder.create(path).keep(STUDY)
    call = session()
    started = call.started_at + timedelta(hours=hour)
    folder.append_session(call.model_copy(update={"started_at": started}))
    return folder


def runs_of(uri, trial=TRIAL):
    """Return the runs of a trial in MLflow, the newest first."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("good")
    known = [experiment.experiment_id] if experiment else []
    return client.search_runs(known, f"attributes.run_name = '{trial.id}'") if known else []


def steps(uri, run, metric="val_probe_top1"):
    history = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in history]


def test_mlflow_has_knobs_epochs_and_the_end_of_a_trial(uri, folder):
    told = MLflow(uri, STUDY, folder)
    told.epoch(TRIAL, epoch(1, 0.5))
    told.epoch(TRIAL, epoch(2, 0.75).model_copy(update={"test_probe_top1": 0.625}))
    told.end(TRIAL, ended(TRIAL).model_copy(update={"device": "CPU", "gpu_seconds": 3.0}))
    told.epoch(OTHER, epoch(1))
    told.close()
    run, (other,) = runs_of(uri)[0], runs_of(uri, OTHER)
    knobs = {knob: str(value) for knob, value in TRIAL.config.model_dump().items()}
    assert run.data.params == knobs
    assert steps(uri, run) == [(1, 0.5), (2, 0.75)]
    assert (run.data.metrics["test_probe_top1"], run.data.metrics["gpu_seconds"]) == (0.625, 3.0)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "finished")
    assert (run.data.tags["device"], run.data.tags["error"]) == ("CPU", "")
    assert (other.info.status, "status" in other.data.tags) == ("KILLED", False)


def test_a_run_folder_that_goes_on_goes_on_in_the_same_runs(uri, folder):
    before = len(runs_of(uri))
    first = MLflow(uri, STUDY, folder)
    first.epoch(TRIAL, epoch(1))
    first.end(TRIAL, ended(TRIAL, "failed").model_copy(update={"error": "OSError: full"}))
    run = runs_of(uri)[0]
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "OSError: full")
    again = MLflow(uri, STUDY, folder)
    again.epoch(TRIAL, epoch(2))
    assert runs_of(uri)[0].info.status == "RUNNING"
    again.end(TRIAL, ended(TRIAL))
    run = runs_of(uri)[0]
    assert len(runs_of(uri)) == before + 1
    assert [step for step, _ in steps(uri, run)] == [1, 2]
    assert (run.info.status, run.data.tags["error"]) == ("FINISHED", "")


def test_the_same_study_in_another_run_folder_has_runs_of_its_own(uri, folder, tmp_path):
    for number, run in enumerate((folder, begun(tmp_path / "afresh", hour=1))):
        MLflow(uri, STUDY, run).epoch(TRIAL, epoch(1, 0.25 + number / 2))
    newest, next_newest = runs_of(uri)[:2]
    assert steps(uri, newest) == [(1, 0.75)]
    assert steps(uri, next_newest) == [(1, 0.25)]


def records(path):
    """Yield what is in one of wandb's files, a log of LevelDB's format."""
    data, place, whole = path.read_bytes(), LOG_START, b""
    while place < len(data):
        if LOG_BLOCK - place % LOG_BLOCK < CHUNK_START:
            place += LOG_BLOCK - place % LOG_BLOCK
            continue
        length = int.from_bytes(data[place + 4 : place + 6], "little")
        kind = data[place + 6]  # 1: whole, 2: its first chunk, 3: a further one, 4: its last
        whole += data[place + CHUNK_START : place + CHUNK_START + length]
        place += CHUNK_START + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


def items(of):
    return {item.key or item.nested_key[0]: item.value_json for item in of}


def test_wandb_has_knobs_epochs_and_the_end_of_a_trial(folder, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    on_interrupt = signal.getsignal(signal.SIGINT)
    told = WeightsAndBiases("lab/queues", STUDY, folder)
    for number in (1, 2):
        for trial in (TRIAL, OTHER):
            told.epoch(trial, epoch(number, number / 4))
    told.end(TRIAL, ended(TRIAL).model_copy(update={"device": "CPU"}))
    told.end(OTHER, ended(OTHER, "failed").model_copy(update={"error": "OSError: full"}))
    again = WeightsAndBiases("lab/queues", STUDY, folder)
    again.epoch(TRIAL, epoch(3))
    again.close()
    wandb.teardown()  # its process may still write when a run has finished
    files = sorted((folder.path / "wandb").glob("offline-run-*/*.wandb"))
    found = {path: list(records(path)) for path in files}
    runs = {path: next(r.run for r in found[path] if r.HasField("run")) for path in files}
    assert {run.display_name for run in runs.values()} == {TRIAL.id, OTHER.id}
    assert {(run.entity, run.project, run.run_group) for run in runs.values()} == {
        ("lab", "queues", "good")
    }
    own = [path for path, run in runs.items() if run.display_name == TRIAL.id]
    (other,) = set(files) - set(own)
    first, resumed = own
    assert runs[first].run_id == runs[resumed].run_id != runs[other].run_id
    config = items(runs[first].config.update)
    assert config["queue_size"] == str(TRIAL.config.queue_size)
    history = [items(r.history.item) for r in found[first] if r.HasField("history")]
    assert [(row["_step"], row["val_probe_top1"]) for row in history] == [
        ("1", "0.25"),
        ("2", "0.5"),
    ]
    assert ended_with(found[first]) == (0, '"finished"', '""', '"CPU"')
    assert ended_with(found[other]) == (1, '"failed"', '"OSError: full"', None)
    # Nothing of the machine or the command line, and nothing on the terminal.
    assert not list(folder.path.rglob("wandb-metadata.json"))
    assert not any(r.HasField("stats") or r.HasField("output_raw") for r in found[first])
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGINT) is on_interrupt


def ended_with(found):
    summary = {}
    for record in found:
        summary |= items(record.summary.update)
    (code,) = (record.exit.exit_code for record in found if record.HasField("exit"))
    return (code, *map(summary.get, ("status", "error", "device")))


def test_wandb_without_a_key_is_an_error_and_asks_nobody(tmp_path):
    code = f"""
from pathlib import Path
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep.trackers import tracker
study = parse_study({GOOD!r}, "good.toml")
try:
    tracker("wandb:queues", study, RunFolder(Path("x")))
except Exception as error:
    print(type(error).__name__, error)
"""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "WANDB_MODE": "online"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("UsageError --tracker wandb:queues has no key: give one with")
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_with_the_way_out(folder, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(UsageError, match=rf"pip install 'nnclr-study\[{kind}\]'"):
        tracker(f"{kind}:x", STUDY, folder)


@pytest.mark.parametrize("word", ["mlflow", "wandb:", "comet:x", "http://user:hunter2@host"])
def test_what_is_no_tracker_is_told_without_its_password(folder, word):
    with pytest.raises(UsageError, match="names no tracker; use mlflow:URI") as caught:
        tracker(word, STUDY, folder)
    assert "hunter2" not in str(caught.value)
