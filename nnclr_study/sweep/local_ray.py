"""Why Ray could not start on this machine, found without starting it: for `run` and `doctor`."""

import errno
import os
import resource
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from nnclr_study.errors import ClusterError
from nnclr_study.study.folders import try_writing

USUAL = Path("/tmp/ray")
"""Where Ray keeps its files unless told otherwise."""
SHARED_MEMORY = Path("/dev/shm")
SOCKET = "/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
"""The longest path of a socket that Ray makes in its folder."""
PYTHON_SOCKET = b"/pymp-abcdefgh/listener-abcdefgh"
LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
"""Bytes that the system takes as the path of a Unix socket."""
DASHBOARD_NEEDS = ["aiohttp", "aiohttp_cors", "grpc", "opencensus", "opentelemetry"]
DASHBOARD_NEEDS += ["prometheus_client", "pydantic"]
LEAST_ROOM = 16_000_000
"""Bytes that have to be free for Ray's logs as it starts."""
LEAST_OPEN_FILES = 128
"""With 64 Ray (2.60) neither starts nor ends by itself."""
SHORTER = "set a folder with a short path that you may write to, as RAY_TMPDIR=/tmp"
DISABLED = "where nobody else reaches this machine do without (RAY_AUTH_MODE=disabled)"


class CannotStartError(ClusterError):
    """Ray cannot start on this machine.

    Args:
        said: the reason.
        way_out: what helps.
    """

    def __init__(self, said: str, way_out: str) -> None:
        super().__init__(f"Ray cannot start on this machine: {said}; {way_out}")
        self.said = said
        self.way_out = way_out


@dataclass(frozen=True)
class Place:
    """What Ray needs of this machine, all of it found."""

    folder: Path
    """Where Ray keeps its files."""
    environment: dict[str, str]
    """What has to be set for Ray."""
    instead: str
    """Why that is not in TMPDIR; empty where it is, or where TMPDIR is not set."""
    token: str
    """Where the token is that Ray asks of whoever connects to it."""


def find_place() -> Place:
    """Return what Ray needs of this machine.

    Raises:
        CannotStartError: something is missing.
    """
    if find_spec("ray") is None:
        raise CannotStartError("it is not installed", "pip install -e . in nnclr-study's clone")
    missing = [name for name in DASHBOARD_NEEDS if find_spec(name) is None]
    if missing:
        said = f"its dashboard needs {', '.join(missing)}, not installed here"
        raise CannotStartError(said, "pip install 'ray[default]'")
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most_files != resource.RLIM_INFINITY and most_files < LEAST_OPEN_FILES:
        said = f"a process may open {most_files} files here"
        raise CannotStartError(said, f"allow {LEAST_OPEN_FILES} or more: ulimit -Hn")
    if sys.platform == "linux":
        _try_shared_memory()
    folder, instead = _folder()
    home = str(folder.parent)
    environment = {"RAY_TMPDIR": home}
    # Ray's dashboard talks to its processes by sockets in Python's folder for temporary files.
    temporary = next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "")
    if len(os.fsencode(temporary) + PYTHON_SOCKET) > LONGEST_SOCKET:
        environment["TMPDIR"] = home
    return Place(folder, environment, instead, _token())


def _try_shared_memory() -> None:
    try:
        if not SHARED_MEMORY.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is not a folder", SHARED_MEMORY)
        try_writing(SHARED_MEMORY)
    except OSError as error:
        if error.errno != errno.ENOSPC:  # Ray does without it where it is full
            way_out = "make it a folder that you may write to: Ray shares memory there"
            raise CannotStartError(f"{SHARED_MEMORY} {error.strerror}", way_out) from None


def ray_folder() -> Path:
    """Return where Ray itself would keep its files."""
    named = os.environ.get("RAY_TMPDIR")
    if not named and sys.platform == "linux":
        named = os.environ.get("TMPDIR")
    return Path(named).expanduser().absolute() / "ray" if named else USUAL


def _folder() -> tuple[Path, str]:
    """Return where Ray is to keep its files, and why it is not in TMPDIR.

    RAY_TMPDIR says where Ray's files have to be. TMPDIR is where any files may be: clusters set
    it to a long path for each job, so that another folder does.
    """
    wanted = ray_folder()
    if os.environ.get("RAY_TMPDIR") or wanted == USUAL:
        _try_sockets(wanted)
        return wanted, ""
    try:
        _try_sockets(wanted)
    except CannotStartError as error:
        _try_sockets(USUAL)
        return USUAL, f"TMPDIR cannot hold Ray's files ({error.said}): they go to {USUAL}"
    return wanted, ""


def _try_sockets(folder: Path) -> None:
    """Raise CannotStartError where Ray could not make its files and its sockets in a folder."""
    longest = LONGEST_SOCKET - len(SOCKET.format(pid=os.getpid()))
    if len(os.fsencode(folder)) > longest:
        said = f"{folder} is too long: Ray's sockets there have paths of more than "
        raise CannotStartError(f"{said}{LONGEST_SOCKET} bytes", SHORTER)
    if (
        not str(folder).isascii()
        or not str(folder).isprintable()
        or set("'\"\\") & set(str(folder))
    ):
        said = f"{str(folder)!r} has characters that Ray does not take: use plain ASCII, no quotes"
        raise CannotStartError(said, SHORTER)
    there = _try(folder, SHORTER)
    if shutil.disk_usage(there).free < LEAST_ROOM:
        raise CannotStartError(f"{folder}: less than {LEAST_ROOM / 1e6:.0f} MB are free", SHORTER)
    try:
        with tempfile.TemporaryDirectory(dir=there) as made, socket.socket(socket.AF_UNIX) as one:
            one.bind(f"{made}/s")
    except OSError as error:
        said = f"{there} takes no sockets: {error.strerror or error}"
        raise CannotStartError(said, SHORTER) from None


def _try(folder: Path, way_out: str) -> Path:
    try:
        return try_writing(folder)
    except OSError as error:
        raise CannotStartError(f"{folder}: {error.filename} {error.strerror}", way_out) from None


def _token() -> str:
    """Return where Ray's token is, or may be kept."""
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token":
        return "no token: whoever reaches its ports can run code"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "its token as RAY_AUTH_TOKEN says"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        file = Path(named or Path("~/.ray/auth_token").expanduser())
    except RuntimeError:
        said = "there is no home folder to keep a token in"
        raise CannotStartError(said, f"set HOME, or {DISABLED}") from None
    try:
        held = file.read_text().strip()
    except (OSError, ValueError):
        held = ""
    if held:
        return f"its token in {file}"
    if named:  # Ray makes none there
        way_out = f"write one there, leave RAY_AUTH_TOKEN_PATH out, or {DISABLED}"
        raise CannotStartError(f"there is no token in {file}", way_out)
    try:
        if not file.exists():
            try_writing(file.parent)
        elif not (file.is_file() and os.access(file, os.W_OK)):
            raise OSError
    except OSError:
        way_out = "make it writable, name the file of a token with RAY_AUTH_TOKEN_PATH, or "
        raise CannotStartError(f"cannot keep a token in {file}", way_out + DISABLED) from None
    return f"its token in {file}"
