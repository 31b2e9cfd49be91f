"""A Ray that does not start, or dies, is told in a line. No cluster."""

import os
import signal
from contextlib import contextmanager, nullcontext
from threading import Event
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import AuthenticationError, RaySystemError
from rich.console import Console

from nnclr_study.errors import ClusterError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep import client, cluster, engine
from nnclr_study.sweep.cluster import joined
from tests.study.test_spec import GOOD


def start(monkeypatch, work, address=None):
    """Join a cluster with `work` in place of `ray.init`."""
    monkeypatch.setattr(ray, "init", lambda **_: work())
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with joined(address):
        pass


def fails(error):
    def work():
        raise error

    return work


def dashboard_dies():
    try:
        raise Exception("\nThe last 20 lines of dashboard.log:\nTraceback\n")
    except Exception as error:
        raise error from error


TIMED_OUT = "The current node timed out during startup. This could happen because"


@pytest.mark.parametrize(
    "work, said",
    [
        (fails(Exception(TIMED_OUT)), TIMED_OUT),
        (dashboard_dies, "The last 20 lines of dashboard.log:"),
        (fails(AssertionError()), "AssertionError"),
        (fails(RuntimeError("Failed to start GCS. \nmore")), "Failed to start GCS."),
        (fails(AuthenticationError("no token")), "no token"),
        (fails(RaySystemError("gone")), "gone"),
        (fails(KeyError("node_ip")), "node_ip"),
        (fails(TimeoutError("no node")), "no node"),
        (fails(SystemExit(1)), "1"),
    ],
)
def test_whatever_ray_raises_as_it_starts_is_told_in_a_line(monkeypatch, work, said):
    with pytest.raises(ClusterError) as caught:
        start(monkeypatch, work)
    assert caught.value.exit_code == 3
    told = str(caught.value)
    assert told.startswith("Ray does not start on this machine: ")
    assert said in told
    assert told.endswith("run the same command again to resume")
    assert "\n" not in told


def test_whatever_ray_raises_as_it_joins_is_told_in_a_line(monkeypatch):
    with pytest.raises(ClusterError, match="no Ray cluster at auto: no node; start one") as caught:
        start(monkeypatch, fails(Exception("no node\nmore")), "auto")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "job, given",
    [
        ('{"runtime_env": {"env_vars": {"OURS": "theirs", "MORE": "1"}}}', {"ALSO_OURS": "2"}),
        ('{"runtime_env": {}}', {"OURS": "1", "ALSO_OURS": "2"}),
        ('{"runtime_env": null}', {"OURS": "1", "ALSO_OURS": "2"}),
        ("{}", {"OURS": "1", "ALSO_OURS": "2"}),
    ],
)
def test_what_a_ray_job_sets_itself_is_not_set_again(monkeypatch, job, given):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", job)
    monkeypatch.setattr(cluster, "environment", lambda: {"OURS": "1", "ALSO_OURS": "2"})
    seen = []
    monkeypatch.setattr(ray, "init", lambda **options: seen.append(options["runtime_env"]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with joined("auto"):
        pass
    assert seen == [{"env_vars": given}]


@pytest.mark.parametrize("error", [Exception("dead"), RuntimeError("dead"), SystemExit(1)])
def test_a_start_that_an_interrupt_made_fail_is_interrupted(monkeypatch, error):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT) or fails(error)())
        with pytest.raises(KeyboardInterrupt):
            start(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            start(monkeypatch, fails(SystemExit(signal.SIGTERM)))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), ClusterError("gone")], ids=repr)
def test_ray_is_no_longer_watched_once_tune_has_ended(monkeypatch, tmp_path, error):
    study = parse_study(GOOD, "good.toml")
    folder = RunFolder.create(tmp_path / "good").keep(study)
    over, seen = Event(), []

    def fit():
        seen.append(over.is_set())
        if error:
            raise error

    @contextmanager
    def page():
        try:
            yield lambda: None
        finally:
            seen.append(over.is_set())

    ready = SimpleNamespace(make=lambda _: None)
    for name, made in {
        "joined": nullcontext(over),
        "resources": [{"CPU": 1.0}],
        "alive": [],
        "_prepare": ([], {}),
        "Ready": ready,
        "_trainable": None,
        "tuner": SimpleNamespace(fit=fit),
    }.items():
        monkeypatch.setattr(engine, name, lambda *_, made=made, **__: made)
    how = engine.How(engine.Demand("in-process", None, None, None))
    with pytest.raises(type(error)) if error else nullcontext(), folder.lock():
        engine.run_study(study, folder, plan_trials(study), how, Console(quiet=True), page())
    assert seen == [False, True]


@pytest.mark.parametrize("address", [None, "auto"])
def test_what_joins_a_cluster_may_end_the_watch_over_it(monkeypatch, address):
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with joined(address) as over:
        assert not over.is_set()


@pytest.mark.parametrize(
    "result, said",
    [
        (ConnectionError("the client is disconnected"), "the client is disconnected"),
        (RaySystemError("its node died"), "its node died"),
        (-9, "ended by signal 9"),
    ],
)
def test_a_study_that_dies_on_another_cluster_is_told(monkeypatch, result, said):
    def get(_):
        if isinstance(result, Exception):
            raise result
        return result

    remote = SimpleNamespace(remote=lambda *_: None)
    fake = SimpleNamespace(remote=lambda **_: lambda _: remote, get=get)
    monkeypatch.setattr(client, "ray", fake)
    monkeypatch.setattr(client, "joined", lambda *_, **__: nullcontext())
    with pytest.raises(ClusterError, match=said) as caught:
        client.run_there("ray://head:10001", "", [])
    assert "run the same command again to resume" in str(caught.value)
