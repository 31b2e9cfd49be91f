"""The lock of a run folder: one process writes it at a time.

Two things are locked: the file `lock`, whose text says who is at work, and the folder itself,
which stays locked when somebody deletes the file. Where a file system cannot lock folders, as NFS,
the file alone counts, and who holds it makes it again when it was deleted.
"""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import BinaryIO, Self

from nnclr_study.errors import RunFolderError, writing
from nnclr_study.study.files import open_inside

NAME = "lock"
LONGEST_OWNER = 200
"""Characters of a lock's text, which names its owner, that are shown."""
ASKING_SECONDS = 0.5
"""Far longer than `owner` holds a lock."""


class FolderLock:
    """Holds a run folder for this process until the context ends.

    Args:
        folder: the run folder.
        command: what is at work, as `run`.

    Raises:
        RunFolderError: another process holds it, or it cannot be locked; from `check`, it was
            moved or deleted, or another process holds its new lock.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self._folder = folder
        self._command = command
        self._option = "--storage" if command == "run" else None
        self._descriptor = -1
        self._file: BinaryIO | None = None
        self._has_inodes = True
        """Whether files keep their numbers; a few network file systems make them up each time."""

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._has_inodes = _is_at(self._descriptor, self._folder)
            try:
                _take(self._descriptor)
            except BlockingIOError:
                raise self._in_use() from None
            except OSError:
                pass  # the file alone counts
            self._file = self._taken()
        except OSError:
            self._release()
            with writing(self._folder, self._option):
                raise
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def check(self) -> None:
        """Make sure that this process still writes the folder that it locked, and nobody else."""
        if not self._has_inodes:
            return
        if not _is_at(self._descriptor, self._folder):
            raise RunFolderError(
                f"{self._folder} was moved or deleted while `{self._command}` was at work on it; "
                "what was recorded is where the folder went: move it back, and the same command "
                "goes on"
            )
        if self._file is None or not _is_at(self._file.fileno(), self._folder / NAME):
            try:
                taken = self._taken()
            except OSError as error:
                raise RunFolderError(
                    f"{self._folder / NAME} was deleted while `{self._command}` was at work, and "
                    f"cannot be made again: {error.strerror}"
                ) from None
            self._release_file()
            self._file = taken

    def _taken(self) -> BinaryIO:
        """Return the file, locked and with our text."""
        while True:
            file = open_inside(self._folder, NAME, "ab+")
            try:
                _take(file.fileno())
                if not self._has_inodes or _is_at(file.fileno(), self._folder / NAME):
                    file.truncate(0)
                    text = f"`{self._command}`, process {os.getpid()} on {socket.gethostname()}"
                    file.write(text.encode())
                    file.flush()
                    return file
            except BlockingIOError:
                file.close()
                raise self._in_use() from None
            except OSError as error:
                file.close()
                option, fix = self._option, "copy it to another one"
                raise RunFolderError(
                    f"{self._folder} cannot be locked: {error.strerror}; its file system has no "
                    f"locks: {f'choose another folder with {option}' if option else fix}"
                ) from None
            file.close()  # it was deleted as we took it

    def _in_use(self) -> RunFolderError:
        by = _text(self._folder) or "another process"
        return RunFolderError(f"{self._folder} is in use by {by}; wait for it, or stop it first")

    def _release(self) -> None:
        self._release_file()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _release_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def owner(folder: Path) -> str | None:
    """Return what the lock says of the process that holds a run folder; None: nobody does."""
    held = False
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            held = _is_held(descriptor)
        finally:
            os.close(descriptor)
    with suppress(OSError, RunFolderError), open_inside(folder, NAME) as file:
        held = held or _is_held(file.fileno())
    return _text(folder) if held else None


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _take(descriptor: int) -> None:
    """Lock a file; who only asks whether it is locked holds it for a moment, and is waited for."""
    until = monotonic() + ASKING_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                raise
        sleep(0.01)


def _is_at(descriptor: int, path: Path) -> bool:
    """Tell whether a path still leads to what was opened there."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _text(folder: Path) -> str:
    try:
        with open_inside(folder, NAME) as file:
            return file.read(LONGEST_OWNER).decode(errors="replace").strip()
    except (OSError, RunFolderError):
        return ""
