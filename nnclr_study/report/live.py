"""The page while a study runs: built anew as rows come, and served on this machine."""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType

from nnclr_study.errors import StudyError, UsageError
from nnclr_study.report.page import build_report
from nnclr_study.study.run_folder import RunFolder

BUILD_SECONDS = 30.0
"""Least time from one build to the next while a study runs."""
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
            with suppress(StudyError):  # told by the last build, which is not in a thread
                build_report(self._run)
                self._then()
            self._over.wait(self._every)


@contextmanager
def serving(run: Path, port: int) -> Iterator[ThreadingHTTPServer]:
    """Serve a run's page on 127.0.0.1, built anew when rows have come; the run is only read.

    Raises:
        RunFolderError: there is no run folder, or it is not one of ours.
        UsageError: the port is taken.
    """
    folder = RunFolder.look(run)
    lock = Lock()
    with tempfile.TemporaryDirectory() as built:
        target = Path(built)
        seen: list[object] = []

        class Handler(BaseHTTPRequestHandler):
            server_version, sys_version = "nnclr-study", ""

            def do_GET(self) -> None:
                if not OURS.fullmatch(self.headers.get("Host", "")):
                    self.send_error(403, explain="ask for it as 127.0.0.1 or localhost")
                    return
                name = self.path.partition("?")[0].strip("/") or "index.html"
                if name not in SERVED:
                    self.send_error(404)
                    return
                try:
                    with lock:
                        state = _state(folder)
                        if seen != [state]:
                            build_report(folder.path, target)
                            seen[:] = [state]
                        body = (target / name).read_bytes()
                except StudyError as error:
                    self.send_error(500, explain=str(error))
                    return
                with suppress(ConnectionError):  # a tab that was closed
                    self.send_response(200)
                    self.send_header("Content-Type", SERVED[name])
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def end_headers(self) -> None:
                for header, value in HEADERS.items():
                    self.send_header(header, value)
                super().end_headers()

            def log_message(self, *_: object) -> None:
                pass

        build_report(folder.path, target)
        try:
            server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise UsageError(f"--port {port}: {error.strerror}; use another") from None
        with server:
            yield server


def _state(folder: RunFolder) -> list[object]:
    """Return what changes whenever the page would."""
    files = ("study.toml", "suggestions.jsonl", "epochs.jsonl", "trials.jsonl", "sessions.jsonl")
    found: list[object] = [folder.is_running()]
    for name in files:
        with suppress(FileNotFoundError):
            stat = (folder.path / name).stat()
            found.append((name, stat.st_size, stat.st_mtime_ns))
    return found
