"""The page while a study runs: built anew as rows come, and served on this machine."""

import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Any

from nnclr_study import crash
from nnclr_study.errors import RunFolderError, StudyError, UsageError
from nnclr_study.report.page import build_report
from nnclr_study.study.run_folder import RunFolder

BUILD_SECONDS = 30.0
"""Least time from one build to the next while a study runs."""
RETRY_SECONDS = 5.0
"""Least time from a build that failed to the next, where nothing has changed."""
REQUEST_SECONDS = 10.0
"""Time that a client has for its whole request."""
ANSWER_SECONDS = 60.0
"""Time that a client has to take an answer."""
MAX_CLIENTS = 32
"""Clients that are answered at a time."""
SERVED = {
    "index.html": "text/html; charset=utf-8",
    "trials.csv": "text/csv; charset=utf-8",
    "summary.md": "text/markdown; charset=utf-8",
    "analysis.json": "application/json",
}
OURS = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
"""Hosts that a browser may have asked: with any other, a foreign page has found its way here."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer: no other page may hold, frame or guess at what is here."""


class Interim:
    """Keeps a run's page up to date in a thread of its own, until the context ends.

    Args:
        run: the run folder.
        then: called after each build.
        every: least seconds from one build to the next.
    """

    def __init__(
        self,
        run: Path,
        then: Callable[[], None] = lambda: None,
        every: float = BUILD_SECONDS,
    ) -> None:
        self._run = run
        self._then = then
        self._every = every
        self._changed, self._over = Event(), Event()
        self._thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> Callable[[], None]:
        """Begin; return what has the page built, now or when it is time."""
        self._thread.start()
        return self._changed.set

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._changed.set()
        self._thread.join()

    def _work(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            if self._over.is_set():
                return
            with suppress(Exception):  # told by the last build, which is not in a thread
                build_report(self._run)
                self._then()
            self._over.wait(self._every)


class _Page:
    """The files of a run's page, built anew when the run has changed.

    Args:
        folder: the run folder.
        target: folder for the files.
        say: is told in a line why the page cannot be built, once for each reason.
    """

    def __init__(self, folder: RunFolder, target: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._target = target
        self.say = say
        self._lock = Lock()
        self._state = _state(folder)
        self._error = ""
        """Why the last build failed; empty: it did not."""
        self._built_at = monotonic()
        build_report(folder.path, target)

    def read(self, name: str) -> bytes:
        """Return a file of the page as it is now.

        Raises:
            RunFolderError: it cannot be built; the text says why.
        """
        with self._lock:  # who asks meanwhile waits, and gets what was built
            state = _state(self._folder)
            again = self._error and monotonic() - self._built_at > RETRY_SECONDS
            if state != self._state or again:
                self._build()
                self._state = state
            if self._error:
                raise RunFolderError(*self._error.splitlines())
            return (self._target / name).read_bytes()

    def _build(self) -> None:
        before, self._error = self._error, ""
        try:
            build_report(self._folder.path, self._target)
        except StudyError as error:
            self._error = str(error)
        except Exception as error:
            self._error = f"internal error: {crash.summary(error)}"
        self._built_at = monotonic()
        if self._error not in ("", before):
            self.say(self._error)


class _Server(ThreadingHTTPServer):
    """Answers a bounded number of clients at a time, and waits for none without an end.

    Each client has a thread. Where there are too many, the client whose request has been coming
    for longest is dropped for a new one.
    """

    request_queue_size = 128
    """Clients that the system lets wait for a moment, without trying again after seconds."""

    def __init__(self, port: int, page: _Page) -> None:
        self.page = page
        self._guard = Lock()
        self._clients = 0
        self._until: dict[Any, float] = {}
        """Deadline of each connection whose request has not arrived yet."""
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a client in a thread, or turn it away."""
        with self._guard:
            full = self._clients >= MAX_CLIENTS
            if full and self._until:
                self._drop(next(iter(self._until)))
                full = False
            if not full:
                self._clients += 1
                self._until[request] = monotonic() + REQUEST_SECONDS
        if not full:
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.settimeout(REQUEST_SECONDS)
            request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 10\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a client."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._clients -= 1
                self._until.pop(request, None)

    def received(self, request: Any) -> None:
        """Note that a client has sent its whole request."""
        with self._guard:
            self._until.pop(request, None)

    def service_actions(self) -> None:
        """Drop clients whose request takes too long; called twice a second."""
        with self._guard:
            now = monotonic()
            for request in [late for late, until in self._until.items() if until < now]:
                self._drop(request)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Print a line for an error, and nothing for a client that went away meanwhile."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.page.say(f"internal error: {crash.summary(error)}")

    def _drop(self, request: Any) -> None:
        del self._until[request]
        with suppress(OSError):  # it went away itself
            request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "nnclr-study", ""
    timeout = ANSWER_SECONDS

    def parse_request(self) -> bool:
        """Read the rest of a request."""
        complete = super().parse_request()
        self.server.received(self.connection)
        return complete

    def do_GET(self) -> None:
        if not OURS.fullmatch(self.headers.get("Host", "")):
            self.send_error(403, explain="ask for it as 127.0.0.1 or localhost")
            return
        name = self.path.partition("?")[0].strip("/") or "index.html"
        if name not in SERVED:
            self.send_error(404)
            return
        try:
            body = self.server.page.read(name)
        except (StudyError, OSError) as error:
            self.send_error(500, explain=str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", SERVED[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Answer with an error, and repeat nothing of the request."""
        del message
        super().send_error(code, explain=explain)

    def end_headers(self) -> None:
        """Add what every answer says."""
        for header, value in HEADERS.items():
            self.send_header(header, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing: the terminal is the user's."""


@contextmanager
def serving(
    run: Path, port: int, say: Callable[[str], None] = lambda _: None
) -> Iterator[ThreadingHTTPServer]:
    """Serve a run's page on 127.0.0.1, built anew when rows have come; the run is only read.

    Args:
        run: the run folder.
        port: 0: any that is free.
        say: is told in a line why the page cannot be built, once for each reason.

    Raises:
        RunFolderError: there is no run folder, or it is not one of ours.
        UsageError: the port is taken.
    """
    folder = RunFolder.look(run)
    # A client may still have the page built while this ends.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as built:
        page = _Page(folder, Path(built), say)
        try:
            server = _Server(port, page)
        except OSError as error:
            another = "one from 1024 on" if isinstance(error, PermissionError) else "another"
            raise UsageError(f"--port {port}: {error.strerror}; use {another}") from None
        with server:
            yield server


def _state(folder: RunFolder) -> list[object]:
    """Return what changes whenever the page would."""
    files = ("study.toml", "suggestions.jsonl", "epochs.jsonl", "trials.jsonl", "sessions.jsonl")
    found: list[object] = [folder.is_running()]
    for name in files:
        try:
            stat = (folder.path / name).stat()
        except OSError as error:
            found.append((name, error.errno))
        else:
            found.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return found
