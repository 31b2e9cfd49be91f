"""A run folder's twin in an object store, as `s3://bucket/studies`."""

import errno
import re
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from random import uniform
from time import monotonic, sleep
from typing import BinaryIO, TypeVar
from uuid import uuid4

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from nnclr_study.errors import ClusterError, RunFolderError, lines_of
from nnclr_study.study.files import open_inside, replacing, subfolder
from nnclr_study.study.lines import merged
from nnclr_study.study.plan import LONGEST_ID
from nnclr_study.study.provenance import masked

T = TypeVar("T")

LOCAL_ONLY = {"lock", "leases", "ray", "checkpoints"}
"""Of a run folder: what is not sent. Checkpoints are, by the trials themselves."""
PATIENCE_SECONDS = 120.0
"""How long a store that was there before is asked again; the last answer may take as long as the
store's client lets it, half a minute."""
FIRST_WAIT_SECONDS = 1.0
"""The next ones are twice as long each, less a random part: nodes do not ask all at once."""
_PICTURE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:+-]{{0,{LONGEST_ID - 1}}}\.(png|json)")
"""Names of the files of a gallery that trials write; others are not brought."""
_TEMPORARY_ERRNOS = {
    errno.EAGAIN,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ETIMEDOUT,
}
_TEMPORARY = re.compile(
    r"INTERNAL_(FAILURE|ERROR)|SERVICE_UNAVAILABLE|SLOW_?DOWN|THROTTL|NETWORK_CONNECTION"
    r"|TIME_?OUT|TOO_?MANY_?REQUESTS|NO_SUCH_(UPLOAD|KEY)|INCOMPLETE_?BODY|BAD_?DIGEST"
    r"|OPERATION_?ABORTED|CONDITIONAL_?REQUEST_?CONFLICT|RATE_?EXCEEDED",
    re.IGNORECASE,
)
"""Names of errors that pass by themselves, as the AWS client or the store itself spells them."""
_PERMANENT = re.compile(
    r"AWS Error (?!UNKNOWN)[A-Z_]{4,}"  # a name that the AWS client knows and that is not above
    r"|HTTP status (?:code )?(3\d\d|4(?!08|25|29)\d\d)|\b4(?!08|25|29)\d\d [A-Z]"
    r"|(BUCKET|CONTAINER)_?NOT_?FOUND|NO_?SUCH_?BUCKET|TOO_?SKEWED|EXPIRED_?TOKEN|ACCESS_?DENIED"
    r"|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT|FAILED_PRECONDITION|\bNOT_FOUND",
    re.IGNORECASE,
)
"""Answers of S3, Google Cloud Storage and Azure that are the same however often one asks."""
_CLOCK = re.compile(r"TOO_?SKEWED|REQUEST_?EXPIRED", re.IGNORECASE)
_NO_BUCKET = re.compile(r"NO_?SUCH_?BUCKET|(BUCKET|CONTAINER)_?NOT_?FOUND", re.IGNORECASE)


class Store:
    """Files of one run folder in an object store; goes with trials to their nodes.

    Temporary errors are tried again for a while, if the store was reached before. Errors that
    asking again does not change, such as a wrong address, are reported at once.

    Raises:
        ClusterError: from everything, where the store cannot be reached or refuses.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._patience = PATIENCE_SECONDS
        self._reached = False
        try:
            self.filesystem, base = FileSystem.from_uri(_in_one_request(uri))
        except (OSError, ArrowException) as error:
            raise self._error(error) from None  # the error itself may hold the keys
        self.path = f"{base.rstrip('/')}/{name}"
        self._sent: dict[str, tuple[int, int]] = {}

    @property
    def place(self) -> str:
        """The address of the run folder in the store, without keys."""
        return f"{masked(self._uri).partition('?')[0].rstrip('/')}/{self.path.rpartition('/')[2]}"

    def pull(self, folder: Path) -> None:
        """Bring what is missing here: rows line by line, of other files those that are shorter."""
        for found in self.tried(self._there):
            name = found.path.removeprefix(f"{self.path}/")
            if found.type != FileType.File:
                continue
            local = folder / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if local.parent != folder:
                    subfolder(folder, local.parent.name)
            except OSError as error:
                raise RunFolderError(
                    f"{local.parent} cannot be written: {error.strerror}; move it away"
                ) from None
            size = local.lstat().st_size if local.exists() else -1
            if local.suffix == ".jsonl" and size > 0:
                self.tried(partial(self._merge, name, local))
            elif found.size > size:
                self.get(name, local)

    def push(self, folder: Path) -> None:
        """Send every file that has changed since it was sent last.

        Rows are merged with those that the store holds: what another `run` has sent stays there.
        """
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if name.split("/")[0] in LOCAL_ONLY or path.suffix == ".part" or ".lock" in path.name:
                continue
            try:
                if path.is_symlink() or not path.is_file():
                    continue
                stat = path.stat()
                if self._sent.get(name) != (stat.st_size, stat.st_mtime_ns):
                    if path.suffix == ".jsonl":
                        self.tried(partial(self._put_rows, path, name))
                    else:
                        self.put(path, name)
                    self._sent[name] = (stat.st_size, stat.st_mtime_ns)
            except FileNotFoundError:
                continue  # another process took it away in this moment

    def get(self, name: str, path: Path) -> bool:
        """Bring a file; return whether there is one."""
        return self.tried(lambda: self._get(name, path))

    def put(self, path: Path, name: str) -> None:
        """Send a file, whole or not at all."""
        self.tried(lambda: self._put(path, name))

    def told(self, error: Exception) -> str:
        """Return what is wrong with the store and how to fix it in one line, without its keys."""
        place = masked(self._uri).partition("?")[0]
        reason = lines_of(error)[0]
        return (
            f"the object store {place} cannot be used: {masked(reason, self._uri)}; what was "
            f"recorded is kept here, and the same command goes on: {_fix(reason)}, or name a "
            "shared folder with --storage"
        )

    def _there(self) -> list[FileInfo]:
        kinds = ("suggestions", "sessions", "epochs", "trials", "evaluations")
        names = ["study.toml", *(f"{kind}.jsonl" for kind in kinds), "optuna.journal"]
        there = self.filesystem.get_file_info([f"{self.path}/{name}" for name in names])
        # Left there by trials on other nodes.
        pictures = FileSelector(f"{self.path}/gallery", allow_not_found=True)
        found = self.filesystem.get_file_info(pictures)
        return [*there, *(info for info in found if _PICTURE.fullmatch(info.base_name))]

    def _get(self, name: str, path: Path) -> bool:
        try:
            there = self.filesystem.open_input_stream(f"{self.path}/{name}")
        except FileNotFoundError:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with there, replacing(path.parent, path.name) as here:
            while data := there.read(2**24):
                here.write(data)
        return True

    def _merge(self, name: str, path: Path) -> None:
        """Bring the lines of a file that are missing in one that is here."""
        with open_inside(path.parent, path.name) as here:
            ours = here.read()
        whole = merged(ours, self.read(name))
        if whole != ours:
            with replacing(path.parent, path.name) as here:
                here.write(whole)

    def _put_rows(self, path: Path, name: str) -> None:
        """Send the lines of a file that the store lacks; its own stay."""
        with open_inside(path.parent, path.name) as here:
            ours = here.read()
        theirs = self.read(name)
        whole = merged(ours, theirs)
        if whole != theirs:
            self.write(name, BytesIO(whole))

    def _put(self, path: Path, name: str) -> None:
        with open_inside(path.parent, path.name) as here:
            self.write(name, here)

    def read(self, name: str) -> bytes:
        """Return the content of a file in the store, asked once; none where there is no file."""
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as there:
                return bytes(there.read())
        except FileNotFoundError:
            return b""

    def write(self, name: str, content: BinaryIO) -> None:
        """Write a file in the store, whole or not at all; tried once."""
        path = f"{self.path}/{name}"
        # Object stores show an object when it is complete, and ordinary files as they grow.
        grows = self.filesystem.type_name == "local"
        written = f"{path}.{uuid4().hex}.part" if grows else path
        if grows:
            self.filesystem.create_dir(path.rpartition("/")[0])
        with self.filesystem.open_output_stream(written) as there:
            while data := content.read(2**24):
                there.write(data)
        if grows:
            self.filesystem.move(written, path)

    def tried(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, tried again after longer and longer waits.

        Raises:
            ClusterError: the store cannot be reached or refuses.
        """
        deadline = monotonic() + self._patience
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                done = work()
            except (OSError, ArrowException) as error:
                left = deadline - monotonic()
                if left <= 0 or not self._reached or _is_final(error):
                    raise self._error(error) from None
            else:
                self._reached = True
                return done
            sleep(min(left, wait * uniform(0.5, 1)))
            wait *= 2

    def _error(self, error: Exception) -> ClusterError:
        return ClusterError(self.told(error))


def _in_one_request(uri: str) -> str:
    """Return an address with which S3 takes small files in one request instead of three."""
    if not uri.startswith("s3://") or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def _is_final(error: Exception) -> bool:
    """Tell whether asking again is of no use.

    Errors that are not known are taken for temporary ones: to ask for two minutes in vain costs
    less than to stop a study for a short fault.
    """
    if isinstance(error, ArrowException):
        return True
    number = getattr(error, "errno", None)
    if number is not None:  # of this machine's disk or network
        return number not in _TEMPORARY_ERRNOS
    text = str(error)
    text = text[max(text.find("AWS Error"), 0) :]  # not the names of keys and buckets before it
    return bool(_PERMANENT.search(text)) and not _TEMPORARY.search(text)


def _fix(reason: str) -> str:
    if _CLOCK.search(reason):
        return "set the clock of this machine, which differs too much from the store's"
    if _NO_BUCKET.search(reason):
        return "check the name of the bucket, or make it"
    return "check the bucket, the credentials (AWS_ACCESS_KEY_ID ..) and the region"
