"""What a user can cause. `cli.main` prints these and nothing else prints or exits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nnclr_study.printable import one_line

LONGEST_KEY = 120
"""Characters of a key that are shown."""


class _Message(Exception):  # noqa: N818, as a warning has it too
    """An error or warning whose arguments are its lines: a line break in one is escaped."""

    def __str__(self) -> str:
        return "\n".join(one_line(str(line)) for line in self.args)


class StudyError(_Message):
    """An error that a user can cause and mend; its text is all a user needs."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a study file: where, what was found, and how to mend it."""

    key: str
    value: Any
    rule: str

    @property
    def lines(self) -> tuple[str, str]:
        """What was found, and the rule that it breaks."""
        key = self.key if self.key.isprintable() else repr(self.key)
        return f"{cut(key, LONGEST_KEY)} = {shown(self.value)}", f"  {self.rule}"


class UsageError(StudyError):
    """Flags that do not fit each other."""


class StudyFileError(StudyError):
    """A study file that cannot be run; carries every problem found in it."""

    def __init__(self, path: Path | str, problems: Sequence[Problem | str]) -> None:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        body = (each.lines if isinstance(each, Problem) else (each,) for each in problems)
        lines = (f"  {line}" for lines in body for line in lines)
        super().__init__(f"{path} has {count}:", *lines)
        self.problems = list(problems)


class RunFolderError(StudyError):
    """A run folder that is missing, in use, or not one of ours."""


class StudyWarning(_Message, UserWarning):
    """What a user should know, though the command goes on; its text is all that is shown."""


class ClusterWarning(StudyWarning):
    """What of this machine or cluster is not as it was asked for."""


class RunFolderWarning(StudyWarning):
    """What in a run folder was set aside; the rest is used."""


class DataWarning(StudyWarning):
    """What a user should know of the images of a data set; they can be used."""


class DataError(StudyError):
    """A data set that is missing or not what it should be."""

    exit_code = 3


class PluginError(StudyError):
    """A plug-in of another package that is missing, fails, or is not what it should be."""


class ClusterError(StudyError):
    """A cluster that cannot be reached, has died, or cannot hold a single trial."""

    exit_code = 3


LINKS = ("cause", "__cause__", "__context__", "exceptions")
"""Attributes that hold what led to an error: Ray keeps what it wraps in `cause`, and an exception
group its members in `exceptions`."""


def chain(error: BaseException, links: Sequence[str] = LINKS) -> Iterator[BaseException]:
    """Yield an error and every error that led to it, each once, nearest first.

    A chain may have a cycle: `raise error from error` makes one, and Ray does so where its
    dashboard fails to start.

    Args:
        error: where the chain begins.
        links: the attributes to follow.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        linked: list[Any] = []
        for name in links:
            held = getattr(found, name, None)
            linked += held if isinstance(held, tuple | list) else [held]
        waiting += [cause for cause in reversed(linked) if isinstance(cause, BaseException)]


@contextmanager
def writing(
    path: Path, option: str | None = None, kind: type[StudyError] = RunFolderError
) -> Iterator[None]:
    """Raise what stands in the way of writing a file or folder as an error of a user.

    Args:
        path: of the file or folder.
        option: of the command, by which another folder can be named; None: it has none.
        kind: of the error.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) and "\0" not in str(path):
            raise  # no path with a null byte, which is a ValueError as well
        another = f", or choose another folder with {option}" if option else ""
        raise kind(
            f"{path} cannot be written: {reason(error)}; make room, or make it writable{another}"
        ) from None


def reason(error: BaseException) -> str:
    """Return in one line why something failed; of a model's errors the first one."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = cut(".".join(map(str, first["loc"])), LONGEST_KEY)
        said = str(first["msg"]).removeprefix("Value error, ")
        return f"{place}: {said}" if place else said
    said = getattr(error, "strerror", None) or str(error)
    return " ".join(said.split()) or type(error).__name__


def lines_of(error: BaseException) -> list[str]:
    """Return the lines of an error's text; of an error without text the name of its type."""
    return (str(error).strip() or type(error).__name__).splitlines()


def shown(value: Any) -> str:
    """Return a value in at most 60 characters, whatever it is."""
    try:
        return cut(repr(value), 60)
    except (RecursionError, ValueError):  # a number may have more digits than Python prints
        return "what is too deep or too long to show"


def cut(text: str, length: int) -> str:
    """Return a text in at most so many characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
