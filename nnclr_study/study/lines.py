"""Files of one JSON object a line: appended whole or not at all; what is no row is set aside."""

import errno
import json
import os
import warnings
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel

from nnclr_study.errors import RunFolderError, RunFolderWarning, reason, shown
from nnclr_study.study.files import open_inside, parse_json, replacing

Line = TypeVar("Line")
Row = TypeVar("Row")
Model = TypeVar("Model", bound=BaseModel)

LONGEST = 2**20
"""Bytes of a line that is read; ours have thousands."""
MOST_KEPT = 256 * 2**20
"""Bytes of a file that is kept in memory; ours have a few million."""
FAR_FROM_END = 64 * 2**20
"""Bytes without a line break after which no end of the line is looked for."""
ASIDE = "(set aside; the rest is used)"
CHECKED = 1_000
"""Rows of trials that are not planned and are checked all the same."""
NAMED = 3
"""Lines that were set aside and are named one by one."""


class Kept:
    """A file whose lines this process, its one writer, also keeps in memory.

    Where somebody deletes the file or cuts lines off, they are written again. A file of more than
    `MOST_KEPT` bytes is not kept in memory: lines are only added to it.

    Raises:
        RunFolderError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = _content(path)

    def append(self, row: dict[str, Any]) -> None:
        """Add one line, after those that are missing."""
        self.mend()
        line = append(self._path, row)
        if self._lines is not None:
            self._lines += line

    def mend(self) -> None:
        """Write lines again that are missing, with a RunFolderWarning; take in new ones."""
        if self._lines is None:
            return
        try:
            size = self._path.lstat().st_size
        except OSError:
            size = 0
        if size == len(self._lines):
            return
        there = _content(self._path)
        if there is None:
            self._lines = None
            return
        whole = merged(self._lines, there)
        if missing := whole.count(b"\n") - there.count(b"\n"):
            try:
                with replacing(self._path.parent, self._path.name) as file:
                    file.write(whole)
            except OSError as error:
                raise RunFolderError(
                    f"{self._path} was deleted or cut, and cannot be written: {error.strerror}"
                ) from None
            said = f"{self._path} was deleted or cut by somebody else: {missing:,} row(s) that "
            warnings.warn(RunFolderWarning(f"{said}were missing are written again"), stacklevel=2)
        self._lines = bytearray(whole) if len(whole) <= MOST_KEPT else None


def merged(ours: bytes | bytearray, theirs: bytes | bytearray) -> bytes:
    """Return the lines of two files: theirs in their order, ours each after what it followed.

    Of several rows of an epoch or a trial the last one counts. Where two machines went on from
    the same line, ours come first: what the other holds of a trial that ended there stays whole.
    The torn end of a killed writer is not a line.
    """
    there = _whole_lines(theirs)
    places = {line: place for place, line in enumerate(there)}
    found, last = list(enumerate(there)), -1
    for line in _whole_lines(ours):
        if line in places:
            last = places[line]
        else:
            found.append((last, line))
    return b"".join(line for _, line in sorted(found, key=itemgetter(0)))


def _whole_lines(text: bytes | bytearray) -> list[bytes]:
    return [line for line in BytesIO(text) if line.endswith(b"\n")]


def _content(path: Path) -> bytearray | None:
    """Return the whole lines of a file, none where there is no file; None: it is too large."""
    try:
        with open_inside(path.parent, path.name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_KEPT:
                return None
            text = bytearray(size)
            del text[file.readinto(text) :]  # type: ignore[attr-defined]
    except FileNotFoundError:
        return bytearray()
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from None
    del text[text.rfind(b"\n") + 1 :]
    return text


def append(path: Path, row: dict[str, Any]) -> bytes:
    """Add one line after cutting off what a killed writer may have left unfinished; return it.

    Raises:
        RunFolderError: it cannot be written, or is not a regular file; it is as it was.
    """
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    try:
        with open_inside(path.parent, path.name, "ab+", buffering=0) as file:
            whole = _cut(file)
            try:
                _write(file, line)
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # a torn line is none, and the next writer's to cut off
                    file.truncate(whole)
                raise
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written: {error.strerror}, with a row of {len(line):,} bytes to "
            "add; what was recorded before is kept: make room, or the folder writable, and the "
            "same command goes on"
        ) from None
    return line


def read(path: Path, kind: type[Model], planned: Container[str] | None = None) -> Iterator[Model]:
    """Yield the rows of a file; lines that are none are named in a warning, and set aside.

    Args:
        path: the file.
        kind: the model of a row.
        planned: ids of trials whose rows alone are wanted; None: those of all trials.

    Raises:
        RunFolderError: the file cannot be read.
    """
    return parsed(path, lambda line: known(kind, line), kind.model_fields, planned)


def parsed(
    path: Path,
    parse: Callable[[dict[str, Any]], Row],
    fields: Collection[str],
    planned: Container[str] | None = None,
) -> Iterator[Row]:
    """Yield what `parse` makes of every line, as `read`; it raises ValueError or KeyError.

    Other fields than these are named in the warning as well. Rows of trials that are not planned
    are counted and not kept; beyond the first `CHECKED` of them, they are not checked either.
    """
    unplanned = 0
    beyond: dict[str, None] = {}

    def checked(text: bytes) -> Row | None:
        nonlocal unplanned, beyond
        line = _object(text)
        if planned is not None and _trial_id(line) not in planned:
            if unplanned < CHECKED:
                parse(line)
            unplanned += 1
            return None
        row = parse(line)
        beyond |= dict.fromkeys(name for name in line if name not in fields)
        return row

    yield from usable(path, _lines(path), checked)
    if unplanned:
        rows = "row" if unplanned == 1 else "rows"
        said = f"{path} has {unplanned:,} {rows} of trials that are not part of the study"
        warnings.warn(RunFolderWarning(f"{said} {ASIDE}"), stacklevel=2)
    if beyond:
        more = f" and {len(beyond) - NAMED:,} more" if len(beyond) > NAMED else ""
        said = ", ".join(shown(name) for name in list(beyond)[:NAMED])
        said = f"{path} has fields of another version: {said}{more} {ASIDE}"
        warnings.warn(RunFolderWarning(said), stacklevel=2)


def usable(
    path: Path,
    numbered: Iterable[tuple[int, Line]],
    parse: Callable[[Line], Row | None],
    unit: str = "line",
) -> Iterator[Row]:
    """Yield what `parse` makes of every line of a file, unless that is None.

    Lines of which it raises ValueError or KeyError are named in a warning, and set aside.

    Args:
        path: the file.
        numbered: its lines with their numbers.
        parse: what turns a line into a row.
        unit: what a line is called in the warning.
    """
    foreign: list[str] = []
    count = 0
    for number, line in numbered:
        try:
            row = parse(line)
        except (ValueError, KeyError) as error:
            count += 1
            if count <= NAMED:
                why = _why(error)
                foreign.append(f"{path}, {unit} {number}, is no row of this version: {why}")
        else:
            if row is not None:
                yield row
    if count:
        if count > NAMED:
            foreign.append(f"and {count - NAMED:,} more lines of {path}")
        warnings.warn(RunFolderWarning(*foreign, ASIDE), stacklevel=2)


def count(path: Path) -> int:
    """Return how many complete lines a file has, rows or not."""
    return sum(1 for _ in _lines(path))


def known(kind: type[Model], line: dict[str, Any]) -> Model:
    """Return a line as a row, without what another version had to say beyond it."""
    fields = kind.model_fields
    return kind.model_validate({k: v for k, v in line.items() if k in fields})


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each complete line with its number; the torn end of a killed writer is no line.

    Stop with a RunFolderWarning at a line that does not end within `FAR_FROM_END` bytes.
    """
    try:
        with open_inside(path.parent, path.name) as file:
            number = 0
            while text := file.readline(LONGEST):
                number += 1
                rest, length = text, len(text)
                while not rest.endswith(b"\n"):
                    rest = file.readline(LONGEST)
                    length += len(rest)
                    if length > FAR_FROM_END:
                        said = f"{path}, line {number:,}, does not end within {FAR_FROM_END:,} "
                        said += "bytes: it and what follows are not read; the rest is used"
                        warnings.warn(RunFolderWarning(said), stacklevel=2)
                    if not rest or length > FAR_FROM_END:
                        return
                yield number, text
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from None


def _trial_id(line: dict[str, Any]) -> str:
    """Return the id of the trial that a line is about.

    Raises:
        ValueError: it has none.
    """
    trial_id = line.get("trial_id")
    if not isinstance(trial_id, str):
        raise ValueError(f"trial_id: {shown(trial_id)} is not a text")
    return trial_id


def _object(text: bytes) -> dict[str, Any]:
    try:
        line = parse_json(text)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        raise ValueError(shown(text))
    return line


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else reason(error)


def _cut(file: BinaryIO) -> int:
    """Cut a torn end off; return where the next line begins.

    Raises:
        OSError: the end is longer than a killed writer leaves.
    """
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    whole, found = size, -1
    while whole and found < 0:
        if size - whole >= FAR_FROM_END:
            raise OSError(errno.EFBIG, f"its last {FAR_FROM_END:,} bytes have no line break")
        start = max(0, whole - LONGEST)
        file.seek(start)
        found = file.read(whole - start).rfind(b"\n")
        whole = start + found + 1
    file.truncate(whole)
    return whole


def _write(file: BinaryIO, line: bytes) -> None:
    """Write all of a line; what is full may take a part of it first."""
    while line:
        written = file.write(line)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        line = line[written:]
