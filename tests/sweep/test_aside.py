"""Trackers that fail, or hang, beside a study that does not mind."""

from threading import Event, current_thread

import pytest

from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep import aside as module
from nnclr_study.sweep.aside import aside
from nnclr_study.sweep.trackers import tracker
from tests.study.test_run_folder import ended, epoch, session
from tests.study.test_spec import GOOD

STUDY = parse_study(GOOD, "good.toml")
TRIAL = plan_trials(STUDY)[0]


class Listener:
    """Notes what it is told, by which thread; fails or hangs where asked to."""

    def __init__(self, fails=(), hangs=None):
        self.heard, self.threads = [], set()
        self.fails, self.hangs = fails, hangs

    def note(self, what):
        self.threads.add(current_thread())
        if self.hangs:
            self.hangs.wait(60)
        if what in self.fails:
            raise ConnectionError(f"no answer to {what}\nand a hundred lines more")
        self.heard.append(what)

    def epoch(self, trial, row):
        self.note((trial.id, row.epoch))

    def end(self, trial, row):
        self.note((trial.id, row.status))

    def close(self):
        self.note("close")


def tell(listener, said, name="mlflow:x"):
    with aside({name: listener}, said.append) as (told,):
        told.epoch(TRIAL, epoch(1))
        told.epoch(TRIAL, epoch(2))
        told.end(TRIAL, ended(TRIAL))


def test_all_is_told_in_order_and_before_the_end():
    listener, said = Listener(), []
    tell(listener, said)
    assert listener.heard == [(TRIAL.id, 1), (TRIAL.id, 2), (TRIAL.id, "finished"), "close"]
    assert said == []
    (thread,) = listener.threads
    assert thread is not current_thread()


def test_what_fails_is_said_once_and_the_rest_is_told():
    listener, said = Listener(fails=[(TRIAL.id, 1), "close"]), []
    tell(listener, said)
    assert listener.heard == [(TRIAL.id, 2), (TRIAL.id, "finished")]
    assert said == [
        f"warning: --tracker mlflow:x: no answer to ('{TRIAL.id}', 1); the study goes on"
    ]


def test_what_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(module, "LAST_SECONDS", 0.1)
    answers = Event()
    listener, said = Listener(hangs=answers), []
    tell(listener, said)
    assert said == [
        "warning: --tracker mlflow:x: what it was told last is not there after 0.1 s; "
        "the study goes on"
    ]
    assert listener.heard == []
    answers.set()
    (thread,) = listener.threads
    thread.join(60)
    assert listener.heard[-1] == "close"


def test_an_error_of_the_study_is_not_hidden():
    listener = Listener()
    with pytest.raises(KeyboardInterrupt), aside({"mlflow:x": listener}, print):
        raise KeyboardInterrupt
    assert listener.heard == ["close"]


def test_a_server_that_is_down_is_told_of_without_its_password(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = RunFolder.create(tmp_path / "good").keep(STUDY)
    folder.append_session(session())
    name = "mlflow:http://user:hunter2@127.0.0.1:9"
    said = []
    tell(tracker(name, STUDY, folder), said, name)
    (line,) = said
    assert line.startswith("warning: --tracker mlflow:http://user:***@127.0.0.1:9: ")
    assert line.endswith("; the study goes on")
    assert "hunter2" not in line
