"""The page while a study runs: it follows the rows, and only reads them."""

import re
import threading
import time
import urllib.error
import urllib.request

import pytest

from nnclr_study.errors import RunFolderError, UsageError
from nnclr_study.report.live import Interim, serving
from nnclr_study.report.page import build_report
from nnclr_study.study.plan import plan_trials
from tests.report.helpers import make_run, study_text, write_trial


def pending(path):
    """A run of which two trials have not begun."""
    text = study_text("queue_size = [0, 500]", (1, 2))
    return make_run(path, text, lambda trial: 0.5 if trial.config.seed == 1 else None)


def wait_for(condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_the_page_is_built_when_something_changed_and_not_before(tmp_path):
    folder = pending(tmp_path / "run")
    page = folder.report / "index.html"
    with Interim(folder.path, every=0.05) as changed:
        time.sleep(0.2)
        assert not page.exists()
        changed()
        wait_for(page.exists)
        assert "2 of 4 trials finished" in page.read_text()
        write_trial(folder, plan_trials(folder.study())[2], 0.5)
        changed()
        wait_for(lambda: "3 of 4 trials finished" in page.read_text())


def test_it_is_built_no_more_often_than_said(tmp_path, monkeypatch):
    folder = pending(tmp_path / "run")
    built = []
    monkeypatch.setattr("nnclr_study.report.live.build_report", built.append)
    with Interim(folder.path, every=60) as changed:
        for _ in range(50):
            changed()
            time.sleep(0.005)
        wait_for(lambda: built)
    assert len(built) == 1


def test_a_run_that_goes_on_has_a_page_that_reloads_itself(tmp_path):
    folder = pending(tmp_path / "run")
    write_trial(folder, plan_trials(folder.study())[2], 2)
    reload = '<meta http-equiv="refresh" content="30">'
    with folder.lock():
        assert reload in build_report(folder.path).page.read_text()
    assert reload not in build_report(folder.path).page.read_text(), "it was interrupted"


def test_watch_serves_what_the_rows_say_now_and_writes_nothing(tmp_path):
    folder = pending(tmp_path / "run")
    with serving(folder.path, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_address[1]}"

        def get(path=""):
            with urllib.request.urlopen(f"{root}/{path}", timeout=20) as answer:
                return answer.read().decode()

        first = get()
        assert "2 of 4 trials finished" in first
        stamp = re.search(r"<time.*?</time>", first)[0]
        assert re.search(r"<time.*?</time>", get("index.html"))[0] == stamp, "nothing has changed"
        write_trial(folder, plan_trials(folder.study())[2], 0.5)
        assert "3 of 4 trials finished" in get()
        assert get("trials.csv").startswith("trial_id,")
        for path in ("study.toml", "../study.toml", "lock"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(path)
        with (
            pytest.raises(UsageError, match="in use; use another"),
            serving(folder.path, server.server_address[1]),
        ):
            pass
        folder.study_file.write_text("broken\n")
        with pytest.raises(urllib.error.HTTPError, match="500"):
            get()
        server.shutdown()
    assert not folder.report.exists()


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(RunFolderError, match="no run folder"), serving(tmp_path, 0):
        pass
