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
from typing import Any, BinaryIO

from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock

from nnclr_study.errors import RunFolderError
from nnclr_study.study.files import open_inside, replacing

DELETE_STUDY = 1
"""The `op_code` of a log with which optuna-dashboard deletes a study."""
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
        with self._locked(), suppress(FileNotFoundError):
            with open_inside(path.parent, path.name) as file:
                is_whole = self._take_in(file)
            if not is_whole:
                self._replace()

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the logs from a number on, with those that other programs have added."""
        with (
            suppress(OSError, RunFolderError),  # reported by what writes next
            open_inside(self._path.parent, self._path.name) as file,
        ):
            self._take_in(file)
        return map(json.loads, self._logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add logs to the file, or write it anew where it was deleted or changed."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        with (
            self._locked(),
            open_inside(self._path.parent, self._path.name, "ab+", buffering=0) as file,
        ):
            is_whole = self._take_in(file)
            self._logs += lines
            if not is_whole:
                self._replace()
                return
            file.write(b"".join(lines))
            os.fsync(file.fileno())
            self._end = file.seek(0, os.SEEK_END)

    def _take_in(self, file: BinaryIO) -> bool:
        """Add what other programs have appended; return whether the file is as its logs are."""
        size = os.fstat(file.fileno()).st_size
        last = self._logs[-1] if self._logs else b""
        file.seek(max(self._end - len(last), 0))
        if file.read(len(last)) != last:
            return False
        logs = list(itertools.takewhile(self._is_taken, file))
        self._logs += logs
        self._end += sum(map(len, logs))
        return size == self._end

    def _is_taken(self, line: bytes) -> bool:
        """Tell whether a line is a log; one that deletes our study as we use it does not count."""
        return _is_whole(line) and (
            not self._logs or json.loads(line).get("op_code") != DELETE_STUDY
        )

    def _replace(self) -> None:
        with replacing(self._path.parent, self._path.name) as file:
            file.writelines(self._logs)
        self._end = sum(map(len, self._logs))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out other programs that write the journal, as optuna-dashboard."""
        link = Path(f"{self._path}.lock")
        if link.is_symlink() and not link.exists():
            # Optuna's own kind of lock, of a program that was given a relative path: it would be
            # waited for without end.
            link.unlink(missing_ok=True)
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
