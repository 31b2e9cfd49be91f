"""A run folder in an object store: moto's S3, on this machine."""

import shutil
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

from nnclr_study.errors import ClusterError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import load_study, parse_study
from nnclr_study.sweep.store import Store
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.world import World
from tests.study.test_run_folder import ended, epoch
from tests.study.test_spec import GOOD
from tests.sweep.test_engine import STUDY, call, pictures, rows
from tests.sweep.test_engine import small as small

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture
def bucket(monkeypatch):
    """Return the URI of an empty bucket."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    _make_bucket(f"http://127.0.0.1:{port}")
    yield f"s3://lab/studies?endpoint_override=127.0.0.1:{port}&scheme=http"
    server.stop()


def _make_bucket(server):
    # All of moto's servers in a process hold the same: what an earlier test left goes first.
    urlopen(Request(f"{server}/moto-api/reset", method="POST")).close()
    boto3.client("s3", endpoint_url=server).create_bucket(Bucket="lab")


def test_a_run_folder_comes_back_as_it_was_sent(bucket, tmp_path):
    folder = RunFolder.create(tmp_path / "good").keep(parse_study(GOOD, "good.toml"))
    folder.append_epoch("t", epoch(1))
    folder.report.mkdir()
    (folder.report / "index.html").write_text("page")
    (folder.path / "lock").write_text("process 1")
    store = Store(bucket, "good")
    store.push(folder.path)
    fresh = RunFolder.create(tmp_path / "fresh")
    store.pull(fresh.path)
    assert fresh.epochs() == folder.epochs()
    assert fresh.study() == folder.study()
    assert not (fresh.path / "lock").exists()
    assert store.get("report/index.html", tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text() == "page"
    assert not store.get("checkpoints/t.safetensors", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_is_there_for_a_moment_is_not_sent(bucket, tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "good").keep(parse_study(GOOD, "good.toml"))
    (folder.path / "optuna.journal.lock").touch()
    (folder.path / "gone.txt").touch()
    store, is_file = Store(bucket, "good"), Path.is_file

    def vanishing(path):
        there = is_file(path)
        if path.name == "gone.txt":
            path.unlink()
        return there

    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_file", vanishing)
        store.push(folder.path)
    Store(bucket, "good").pull(tmp_path / "here")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["study.toml"]


def test_rows_that_are_longer_here_stay(bucket, tmp_path):
    folder = RunFolder.create(tmp_path / "good").keep(parse_study(GOOD, "good.toml"))
    folder.append_epoch("t", epoch(1))
    store = Store(bucket, "good")
    store.push(folder.path)
    folder.append_epoch("t", epoch(2))
    store.pull(folder.path)
    assert len(folder.epochs()["t"]) == 2
    store.push(folder.path)
    (folder.path / "epochs.jsonl").write_text("")
    store.pull(folder.path)
    assert len(folder.epochs()["t"]) == 2


def test_a_machine_that_comes_back_keeps_what_another_has_sent(bucket, tmp_path):
    study = parse_study(GOOD, "good.toml")
    begun, other = plan_trials(study)[:2]

    def machine(name):
        folder, store = RunFolder.create(tmp_path / name), Store(bucket, "good")
        store.pull(folder.path)
        return folder.keep(study), store

    def work(folder, trial, epochs, top1):
        for number in epochs:
            folder.append_epoch(trial.id, epoch(number, top1))

    def tear(folder):
        with (folder.path / "epochs.jsonl").open("a") as file:
            file.write('{"trial_id": ')

    first, store = machine("first")
    work(first, begun, [1], 0.1)
    store.push(first.path)
    work(first, begun, [2, 3, 4], 0.1)  # and killed, with more rows than the second will send
    work(first, other, [1, 2], 0.1)
    tear(first)

    second, store = machine("second")
    work(second, begun, [2, 3, 4, 5], 0.2)
    second.append_trial(ended(begun))
    tear(second)
    store.push(second.path)
    whole = second.epochs()[begun.id]

    first, store = machine("first")
    work(first, other, [3], 0.1)
    store.push(first.path)
    for name in ("first", "second", "third", "first"):
        folder, store = machine(name)
        assert folder.epochs()[begun.id] == whole
        assert [row.epoch for row in folder.epochs()[other.id]] == [1, 2, 3]
        assert [*folder.trials()] == [begun.id]
        store.push(folder.path)


def test_a_retry_that_was_not_sent_stays_after_the_failure(bucket, tmp_path):
    trial, other = plan_trials(parse_study(GOOD, "good.toml"))[:2]
    first, second = (RunFolder.create(tmp_path / name) for name in ("first", "second"))
    store = Store(bucket, "good")
    first.append_trial(ended(trial, "failed"))
    store.push(first.path)
    first.append_trial(ended(trial))
    store.pull(second.path)
    second.append_trial(ended(other))
    store.push(second.path)
    for _ in range(2):
        store.pull(first.path)
        assert {row.status for row in first.trials().values()} == {"finished"}
        assert len((first.path / "trials.jsonl").read_text().splitlines()) == 3


def test_only_pictures_of_trials_are_brought(tmp_path):
    store = Store(f"file://{tmp_path}/there", "x")
    odd = ["a\n.png", "\u202e.png", "x" * 250 + ".png", "a.exe", "-rf.png", "a.png.1.part", ".png"]
    for name in ["t-1_s1.png", "t-1_s1.json", *odd]:
        (tmp_path / "there" / "x" / "gallery").mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / "x" / "gallery" / name).write_text("1")
    store.pull(tmp_path / "here")
    brought = sorted(path.name for path in (tmp_path / "here" / "gallery").iterdir())
    assert brought == ["t-1_s1.json", "t-1_s1.png"]


def test_a_small_file_takes_one_request(flaky, tmp_path):
    server, uri = flaky
    Store(uri, "x").write("a", BytesIO(b"1"))
    before = server.asked
    Store(uri, "x").write("b", BytesIO(b"2"))
    assert server.asked == before + 1
    assert Store(uri, "x").read("b") == b"2"


@pytest.mark.parametrize("uri", ["s3://lab2/x", "nowhere://x", "s3://"])
def test_a_store_that_cannot_be_used_is_told(bucket, tmp_path, uri):
    (tmp_path / "study.toml").write_text("x")
    query = bucket.partition("?")[2] if uri.startswith("s3://lab") else ""
    with pytest.raises(ClusterError, match="cannot be used") as caught:
        Store(f"{uri}?{query}", "x").push(tmp_path)
    assert "\n" not in str(caught.value)
    assert "--storage" in str(caught.value)


class Server:
    """Moto's S3, of which every so manieth answer is an error, or all of them."""

    def __init__(self):
        self._app = DomainDispatcherApplication(create_backend_app)
        self.asked, self.every, self.is_down = 0, 0, False

    def __call__(self, environ, start):
        self.asked += 1
        if self.is_down or (self.every and self.asked % self.every == 0):
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"]
        return self._app(environ, start)


@pytest.fixture
def flaky(monkeypatch):
    """Return a server, and the URI of an empty bucket on it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    app = Server()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    host = f"127.0.0.1:{server.port}"
    _make_bucket(f"http://{host}")
    yield app, f"s3://key:hunter2@lab/studies?endpoint_override={host}&scheme=http"
    server.shutdown()
    thread.join()


IMPATIENT = """
import sys
from nnclr_study import cli
from nnclr_study.sweep import store
store.PATIENCE_SECONDS = 1.0
sys.exit(cli.main())
"""


@pytest.mark.ray
@pytest.mark.parametrize("runner", ["in-process", "train"])
def test_a_store_that_fails_costs_no_row(small, flaky, tmp_path, runner):
    server, uri = flaky
    small.write_text(STUDY.replace("epochs = 4", "epochs = 8").replace("[1, 2]", "[1]"))
    words = ["run", str(small), "--storage", uri, "--runner", runner]
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    folder = RunFolder(tmp_path / "runs" / "small")
    epochs = folder.path / "epochs.jsonl"
    server.every = 7
    while process.poll() is None and not (epochs.exists() and len(epochs.read_bytes()) > 1_500):
        time.sleep(0.05)
    server.is_down = True
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 3, errors
    assert errors.startswith("error: the object store s3://key:***@lab/studies cannot be used: ")
    assert "the same command goes on" in errors
    assert len(errors.splitlines()) == 1
    assert {row.status for row in folder.trials().values()} <= {"finished"}, "none has failed"
    before = rows(folder.path)

    server.is_down = False
    resumed = call(*words, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = rows(folder.path)
    assert {trial_id: after[trial_id][: len(kept)] for trial_id, kept in before.items()} == before
    server.every = 0
    there = RunFolder.create(tmp_path / "there")
    Store(uri, "small").pull(there.path)
    assert rows(there.path) == after
    for trial in plan_trials(load_study(small)):
        *_, whole = train(trial.config, load_dataset(trial.config, tmp_path), World.alone())
        clocks = {"seconds", "train_seconds"}
        assert after[trial.id] == [row.model_dump(exclude=clocks) for row in whole.rows]
    telling = [path for path in folder.path.rglob("*") if path.is_file() and holds(path)]
    assert telling == [], "neither our files nor Ray's"


def holds(path):
    return b"hunter2" in path.read_bytes()


@pytest.mark.ray
def test_a_study_goes_on_from_the_store_alone(small, bucket, tmp_path):
    # A TorchTrainer takes its time: a seed less.
    for runner, seeds in (("in-process", "[1, 2]"), ("train", "[1]")):
        small.write_text(STUDY.replace("[1, 2]", seeds))
        count = len(plan_trials(load_study(small)))
        words = ("--storage", bucket, "--runner", runner)
        first = call("run", small, *words, cwd=tmp_path)
        assert first.returncode == 0, first.stdout + first.stderr
        whole = rows(tmp_path / "runs" / "small")
        shown = pictures(tmp_path / "runs" / "small")
        shutil.rmtree(tmp_path / "runs")
        again = call("run", small, *words, cwd=tmp_path)
        assert again.returncode == 0, again.stdout + again.stderr
        assert f"all {count} trials have ended: {count} finished" in again.stdout
        assert rows(tmp_path / "runs" / "small") == whole
        assert pictures(tmp_path / "runs" / "small") == shown

        # As if the machine had been lost after half of them had ended.
        store = Store(bucket, "small")
        ended = tmp_path / "runs" / "small" / "trials.jsonl"
        ended.write_text("".join(ended.read_text().splitlines(keepends=True)[: count // 2]))
        store.write("trials.jsonl", BytesIO(ended.read_bytes()))
        shutil.rmtree(tmp_path / "runs")
        resumed = call("run", small, *words, cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr
        assert resumed.stdout.count("finished  queue_size") == count // 2
        assert rows(tmp_path / "runs" / "small") == whole, "from their checkpoints"
        client = boto3.client("s3", endpoint_url=_endpoint(bucket))
        client.delete_objects(
            Bucket="lab",
            Delete={
                "Objects": [
                    {"Key": found["Key"]}
                    for found in client.list_objects_v2(Bucket="lab")["Contents"]
                ]
            },
        )
        shutil.rmtree(tmp_path / "runs")


def _endpoint(uri):
    return f"http://{uri.partition('endpoint_override=')[2].partition('&')[0]}"
