"""The page while a study runs: it follows the rows, and only reads them."""

import re
import socket
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


def asked(server, line, host="127.0.0.1"):
    """Return the status, the headers and the text that a request is answered with."""
    with socket.create_connection(server.server_address, timeout=20) as there:
        there.sendall(f"{line} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        head, _, text = there.makefile("rb").read().partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in headers), text.decode()


@pytest.fixture
def server(tmp_path):
    folder = pending(tmp_path / "run")
    (folder.path / "secret.txt").write_text("hunter2")
    with serving(folder.path, 0) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.mark.parametrize(
    "path",
    [
        "/../study.toml",
        "/%2e%2e/study.toml",
        "/..%2fstudy.toml",
        "/%2e%2e%2fstudy.toml",
        "//etc/passwd",
        "/etc/passwd",
        "/./../secret.txt",
        "/secret.txt",
        "/%00",
        "/index.html/../secret.txt",
        "/report/",
        "/..",
        "/<script>",
    ],
)
def test_nothing_but_the_page_and_its_files_is_served(server, path):
    status, _, text = asked(server, f"GET {path}")
    assert status == 404
    assert "hunter2" not in text
    assert "<script>" not in text


def test_it_listens_on_this_machine_alone_and_takes_nothing(server):
    assert server.server_address[0] == "127.0.0.1"
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "CONNECT"):
        assert asked(server, f"{method} /")[0] == 501
    assert asked(server, "GET /")[0] == 200


@pytest.mark.parametrize(
    "host, status",
    [
        ("127.0.0.1:8000", 200),
        ("LOCALHOST:9", 200),
        ("[::1]:8000", 200),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("", 403),
    ],
)
def test_a_page_elsewhere_cannot_read_it_by_another_name(server, host, status):
    found, headers, text = asked(server, "GET /", host)
    assert found == status
    assert ("trials finished" in text) == (status == 200)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Python" not in headers["Server"]
