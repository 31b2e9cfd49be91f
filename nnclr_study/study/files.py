"""Open files of a folder that somebody else may have made, and nothing outside of that folder.

Run folders, published evidence and exports are copied from archives and shared disks, which can
hold symbolic links, named pipes and devices. The folder itself is named by the user and may be a
symbolic link; below it, only directories and regular files are followed, read or written.
"""

import codecs
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal
from uuid import uuid4

from pydantic_core import from_json

from nnclr_study.errors import RunFolderError, shown

MAX_TEXT_BYTES = 16_000_000
"""Bytes of a file that is read into memory as a whole, unless the caller gives another limit."""
_FLAGS = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "ab+": os.O_RDWR | os.O_APPEND | os.O_CREAT,
    "xb": os.O_WRONLY | os.O_EXCL | os.O_CREAT,
}
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Flags that follow no symbolic link, wait for no writer of a pipe and take no terminal."""
_DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_inside(
    folder: Path, name: str, mode: Literal["rb", "r+b", "ab+", "xb"] = "rb", buffering: int = -1
) -> BinaryIO:
    """Open a regular file of a folder in binary mode.

    Args:
        folder: the folder; it may itself be a symbolic link.
        name: the file's path below it, with `/` between its parts.
        mode: as of `open`. A file that is written in place must not have hard links.
        buffering: as of `open`.

    Raises:
        RunFolderError: a part of the path is a symbolic link, or the file is not a regular one.
        OSError: as `open` raises it, such as FileNotFoundError.
    """
    with _parent(folder, name) as (parent, last):
        with suppress(FileNotFoundError):
            # Asked before opening: opening a device may already do something.
            _check(os.stat(last, dir_fd=parent, follow_symlinks=False), folder, name, mode)
        descriptor = os.open(last, _FLAGS[mode] | _SAFELY, 0o666, dir_fd=parent)
        try:
            _check(os.fstat(descriptor), folder, name, mode)
            return os.fdopen(descriptor, mode, buffering)
        except BaseException:
            os.close(descriptor)
            raise


def read_bytes(folder: Path, name: str, at_most: int = MAX_TEXT_BYTES) -> bytes:
    """Return the content of a file of a folder.

    Raises:
        RunFolderError: as `open_inside`, or the file has more than `at_most` bytes.
        OSError: as `open` raises it.
    """
    with open_inside(folder, name) as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise RunFolderError(
            f"{folder / name} has more than {at_most:,} bytes, which no file of its kind needs; "
            "take it from the original folder again, or delete it"
        )
    return content


@contextmanager
def replacing(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of a file of a folder when the block succeeds.

    Whoever reads NAME sees the old content or the new one, never a part of it. What NAME was
    before, such as a symbolic link, is replaced and not followed.

    Raises:
        RunFolderError: as `open_inside`.
        OSError: the file cannot be written; the old one is as it was.
    """
    with _parent(folder, name) as (parent, last):
        part = f".{last}.{uuid4().hex}.part"  # another writer has its own
        try:
            flags = _FLAGS["xb"] | _SAFELY
            with os.fdopen(os.open(part, flags, 0o666, dir_fd=parent), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # before it takes the old one's place
            os.replace(part, last, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=parent)
            raise


def write_whole(folder: Path, name: str, text: str) -> None:
    """Write a text file of a folder, which is then either the old one or the new one.

    Raises:
        RunFolderError: as `open_inside`.
        OSError: as `replacing`.
    """
    content = text.encode()
    with replacing(folder, name) as file:
        file.write(content)


def subfolder(folder: Path, name: str) -> Path:
    """Return the path of a folder below another one, made where it is missing.

    Raises:
        RunFolderError: a part of its path is a symbolic link.
        OSError: it cannot be made, or a part of its path is a file.
    """
    parts = _parts(folder, name)
    for place, part in enumerate(parts):
        above = "/".join(parts[: place + 1])
        with suppress(FileExistsError), _parent(folder, above) as (parent, _):
            os.mkdir(part, dir_fd=parent)
    with _parent(folder, f"{name}/."):
        return folder / name


def check_subfolder(folder: Path, name: str) -> None:
    """Make sure that a folder below another one is a folder, if it is there.

    Raises:
        RunFolderError: a part of its path is a symbolic link, or it is a file.
    """
    try:
        with suppress(FileNotFoundError), _parent(folder, f"{name}/."):
            pass
    except OSError as error:
        raise RunFolderError(
            f"{folder / name} cannot be used as a folder: {error.strerror}; move it away"
        ) from None


def checked(folder: Path, name: str, mode: Literal["rb", "ab+"] = "rb") -> Path:
    """Return the path of a file of a folder, for a library that opens files by path itself.

    The file may be missing, or a folder, which the library reports.

    Raises:
        RunFolderError: as `open_inside`.
        OSError: the folder cannot be searched.
    """
    missing = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
    with suppress(*missing), _parent(folder, name) as (parent, last):
        _check(os.stat(last, dir_fd=parent, follow_symlinks=False), folder, name, mode)
    return folder / name


def new_part(folder: Path, name: str) -> Path:
    """Return the path of a new, empty file beside a file of a folder, for a library to fill.

    What an earlier writer that died has left there is deleted: there is only one writer at a
    time.

    Raises:
        RunFolderError: as `open_inside`.
        OSError: it cannot be made.
    """
    with _parent(folder, name) as (parent, last):
        part = f"{last}.part"
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=parent)
        os.close(os.open(part, _FLAGS["xb"] | _SAFELY, 0o666, dir_fd=parent))
    return (folder / name).with_name(part)


def parse_json(text: bytes | str) -> Any:
    """Return what a JSON text says.

    Numbers may be NaN or infinite: the models that check them refuse that by name.

    Raises:
        ValueError: it is not JSON, nests too deeply, or holds half a surrogate pair or a whole
            number of thousands of digits.
    """
    content = text.encode() if isinstance(text, str) else text
    return from_json(content.removeprefix(codecs.BOM_UTF8))


@contextmanager
def _parent(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    """Open the directory that holds NAME, part by part; yield its descriptor and the last part."""
    *above, last = _parts(folder, name)
    directory = os.open(folder, _DIRECTORY)
    try:
        for place, part in enumerate(above):
            found = os.stat(part, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                raise _refused(found, folder.joinpath(*above[: place + 1]), "a folder")
            inner = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = inner
        yield directory, last
    finally:
        os.close(directory)


def _parts(folder: Path, name: str) -> tuple[str, ...]:
    parts = tuple(name.split("/"))
    if any(part in ("", "..") or "\0" in part for part in parts):
        raise RunFolderError(
            f"{shown(name)} is not the name of a file below {folder}; a name has no empty parts, "
            "no '..' and no null bytes"
        )
    return parts


def _check(found: os.stat_result, folder: Path, name: str, mode: str) -> None:
    """Refuse what is not a regular file, or must not be written in place."""
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
    if not stat.S_ISREG(found.st_mode):
        raise _refused(found, folder / name, "a regular file")
    if mode in ("r+b", "ab+") and found.st_nlink > 1:
        raise RunFolderError(
            f"{folder / name} has {found.st_nlink} hard links: to write it would change a file of "
            f"another folder as well; copy it (cp -r copies a whole folder) and put the copy in "
            "its place"
        )


def _refused(found: os.stat_result, path: Path, wanted: str) -> RunFolderError:
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "of an unknown kind")
    return RunFolderError(
        f"{path} is {kind}, not {wanted}, and nothing else is opened in a run folder; delete it, "
        "or put a copy of what it stands for in its place"
    )
