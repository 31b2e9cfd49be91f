"""The page while a study runs: it follows the rows, and only reads them."""

import errno
import os
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from functools import partial
from types import SimpleNamespace

import pytest

from nnclr_study.errors import RunFolderError, UsageError
from nnclr_study.report import live
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


@pytest.fixture
def watched(tmp_path):
    """A run, what `watch` says of it on the terminal, and its server."""
    folder, lines = pending(tmp_path / "run"), []
    with serving(folder.path, 0, lines.append) as made:
        serve = partial(made.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        yield SimpleNamespace(folder=folder, lines=lines, server=made)
        made.shutdown()


def slow(server, text=b"GET / HTTP/1.1\r\nHost: "):
    """Return a connection that has begun a request."""
    there = socket.create_connection(server.server_address, timeout=20)
    there.sendall(text)
    return there


def test_a_request_that_never_ends_is_dropped(watched, monkeypatch):
    monkeypatch.setattr(live, "REQUEST_SECONDS", 0.3)
    with slow(watched.server) as silent, slow(watched.server, b"GET") as dribbling:
        begun = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - begun < 10:
                dribbling.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - begun < 5
        with suppress(ConnectionError):
            assert silent.recv(10_000).startswith((b"", b"HTTP/1.0 403"))
    assert asked(watched.server, "GET /")[0] == 200
    assert watched.lines == []


def test_slow_clients_do_not_keep_others_out_and_take_few_threads(watched, monkeypatch):
    monkeypatch.setattr(live, "MAX_CLIENTS", 8)
    before = threading.active_count()
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(slow(watched.server))
        assert asked(watched.server, "GET /")[0] == 200
        wait_for(lambda: threading.active_count() - before <= 8)


def test_a_client_is_turned_away_where_all_others_are_being_answered(watched, monkeypatch):
    monkeypatch.setattr(live, "MAX_CLIENTS", 2)
    go_on = threading.Event()
    page, begun = watched.server.page, []
    read = page.read

    def wait_and_read(name):
        begun.append(name)
        go_on.wait(20)
        return read(name)

    monkeypatch.setattr(page, "read", wait_and_read)
    with slow(watched.server, GET), slow(watched.server, GET):
        wait_for(lambda: len(begun) == 2)
        with slow(watched.server, b"") as third:
            assert third.recv(1000).startswith(b"HTTP/1.0 503")
        go_on.set()
    wait_for(lambda: asked(watched.server, "GET /")[0] == 200)


GET = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"
HASTY = [
    b"",
    b"G",
    b"\r\n",
    b"GET /\r\n\r\n",
    b"GET /",
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"FOO / HTTP/1.1\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
    b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n",
    b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    b"GET /\xff\x00\x1b[2J HTTP/1.1\r\nHost: \xe7\x8c\xab\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    GET,
]


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_may_leave_at_any_moment(watched, capfd, reset):
    for request in HASTY:
        with slow(watched.server, request) as there:
            if reset:
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                with suppress(OSError):
                    there.shutdown(socket.SHUT_RDWR)
    assert asked(watched.server, "GET /")[0] == 200
    assert watched.lines == []
    assert capfd.readouterr() == ("", "")


def test_what_becomes_of_the_run_folder_is_told_and_passes(watched, monkeypatch, capfd):
    path, aside = watched.folder.path, watched.folder.path.with_name("aside")

    def check(reason):
        for _ in range(2):
            status, _, text = asked(watched.server, "GET /")
            assert status == 500
            assert reason in text
        assert reason in watched.lines.pop()
        assert watched.lines == []

    path.rename(aside)
    check("it holds no study.toml")
    path.write_text("a file")
    asked(watched.server, "GET /")
    assert watched.lines == [], "the same reason"
    path.unlink()
    aside.rename(path)
    assert asked(watched.server, "GET /")[0] == 200
    text = watched.folder.study_file.read_text()
    watched.folder.study_file.write_text("[study\n<script>")
    check("not valid TOML")
    watched.folder.study_file.unlink()
    watched.folder.study_file.mkdir()
    check("it holds no study.toml")
    watched.folder.study_file.rmdir()
    watched.folder.study_file.write_text(text)
    with monkeypatch.context() as broken:
        broken.setattr(live, "build_report", lambda *_: {}["<script>"])
        check("internal error: KeyError")
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.0)
    assert asked(watched.server, "GET /")[0] == 200, "though nothing has changed"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fails", [False, True])
def test_clients_that_come_at_once_have_the_page_built_once(watched, monkeypatch, fails):
    built = []

    def build(*_):
        built.append(1)
        time.sleep(0.2)
        if fails:
            raise RunFolderError("no")

    monkeypatch.setattr(live, "build_report", build)
    with (watched.folder.path / "epochs.jsonl").open("a") as rows:
        rows.write("\n")
    found = []
    ask = partial(lambda: found.append(asked(watched.server, "GET /")[0]))
    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [500 if fails else 200] * 10
    assert built == [1]


def test_it_ends_at_once_though_clients_hang(tmp_path):
    folder = pending(tmp_path / "run")
    with ExitStack() as held:
        with serving(folder.path, 0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for _ in range(5):
                held.enter_context(slow(server))
            begun = time.monotonic()
            server.shutdown()
        assert time.monotonic() - begun < 1


def test_a_port_that_needs_a_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(live, "_Server", refuse)
    with (
        pytest.raises(UsageError, match="--port 80: Permission denied; use one from 1024 on"),
        serving(pending(tmp_path / "run").path, 80),
    ):
        pass
