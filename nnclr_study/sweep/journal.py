"""The file `optuna.journal`: an Optuna journal that a run reads once and writes from memory.

It mirrors rows, so that nothing is lost with it. Users may delete it at any time; a file that is
no longer what this process wrote is replaced by a whole one.
"""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock

from nnclr_study.errors import RunFolderError
from nnclr_study.study.files import open_inside, replacing

LOCK_SECONDS = 5
"""After which whoever holds the journal's lock has died: writing takes milliseconds."""


class Journal(BaseJournalBackend):
    """Optuna's logs, in memory and in a file that optuna-dashboard reads.

    Args:
        path: of the file. What a writer that died left unfinished at its end does not count.

    Raises:
        RunFolderError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logs: list[bytes] = []
        self._end = 0
        """Size of the file after our last line."""
        link = Path(f"{path}.lock")
        if link.is_symlink() and not link.exists():
            # Optuna's own kind of lock, of a program that was given a relative path: it would be
            # waited for without end.
            link.unlink(missing_ok=True)
        with self._locked(), suppress(FileNotFoundError):
            with open_inside(path.parent, path.name) as file:
                self._logs = list(itertools.takewhile(_is_whole, file))
                size = file.seek(0, os.SEEK_END)
            self._end = sum(map(len, self._logs))
            if size != self._end:
                self._replace()

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the logs from a number on."""
        return map(json.loads, self._logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add logs to the file, or write it anew where it was deleted or changed."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        last = self._logs[-1] if self._logs else b""
        self._logs += lines
        with (
            self._locked(),
            open_inside(self._path.parent, self._path.name, "ab+", buffering=0) as file,
        ):
            file.seek(max(self._end - len(last), 0))
            if file.read(len(last)) != last:
                self._replace()
                return
            file.write(b"".join(lines))
            os.fsync(file.fileno())
            self._end = file.seek(0, os.SEEK_END)

    def _replace(self) -> None:
        with replacing(self._path.parent, self._path.name) as file:
            file.writelines(self._logs)
        self._end = sum(map(len, self._logs))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out other programs that write the journal, as optuna-dashboard."""
        lock = JournalFileOpenLock(str(self._path), grace_period=LOCK_SECONDS)
        try:
            lock.acquire()
            try:
                yield
            finally:
                with suppress(RuntimeError):  # somebody deleted the lock
                    lock.release()
        except OSError as error:
            raise RunFolderError(
                f"{self._path} cannot be written: {error.strerror}; what was recorded before is "
                "kept, and the same command goes on: make room, or the folder writable"
            ) from None


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
