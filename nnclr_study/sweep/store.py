"""A run folder's twin in an object store, as `s3://bucket/studies`."""

import re
from collections.abc import Callable
from functools import partial
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from random import uniform
from time import monotonic, sleep
from typing import TypeVar

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from nnclr_study.errors import ClusterError
from nnclr_study.study.provenance import masked

T = TypeVar("T")

LOCAL_ONLY = {"lock", "ray", "checkpoints"}
"""Of a run folder: what is not sent. Checkpoints are, by the trials themselves."""
PATIENCE_SECONDS = 120.0
"""How long a store that was there before is asked again; the last answer may take as long as the
store's client lets it, half a minute."""
FIRST_WAIT_SECONDS = 1.0
"""The next ones are twice as long each, less a random part: nodes do not ask all at once."""
_FINAL = re.compile(
    r"AWS Error (\w*(ACCESS|CREDENTIAL|INVALID|NO_SUCH|SIGNATURE|TOKEN)"
    r"|UNKNOWN \(HTTP status 4(?!08|29))"
)
"""What is answered alike however often one asks."""


class Store:
    """Files of one run folder in an object store; goes with trials to their nodes.

    What fails is tried again for a while, if the store was reached before: an address that is
    wrong is told at once.

    Raises:
        ClusterError: from everything, where the store cannot be reached or refuses.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._patience = PATIENCE_SECONDS
        self._reached = False
        try:
            self.filesystem, base = FileSystem.from_uri(uri)
        except (OSError, ArrowException) as error:
            raise self._error(error) from None  # the error itself may hold the keys
        self.path = f"{base.rstrip('/')}/{name}"
        self._sent: dict[str, tuple[int, int]] = {}

    def pull(self, folder: Path) -> None:
        """Bring what is missing here: rows line by line, of other files those that are shorter."""
        for found in self._tried(self._there):
            name = found.path.removeprefix(f"{self.path}/")
            local = folder / name
            size = local.stat().st_size if local.exists() else -1
            if found.type != FileType.File:
                continue
            if local.suffix == ".jsonl" and size > 0:
                self._tried(partial(self._merge, name, local))
            elif found.size > size:
                self.get(name, local)

    def push(self, folder: Path) -> None:
        """Send every file that has changed since it was sent last."""
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if name.split("/")[0] in LOCAL_ONLY or path.suffix == ".part" or ".lock" in path.name:
                continue
            try:
                if not path.is_file():
                    continue
                stat = path.stat()
                if self._sent.get(name) != (stat.st_size, stat.st_mtime_ns):
                    self.put(path, name)
                    self._sent[name] = (stat.st_size, stat.st_mtime_ns)
            except FileNotFoundError:
                continue  # another process took it away in this moment

    def get(self, name: str, path: Path) -> bool:
        """Bring a file; return whether there is one."""
        return self._tried(lambda: self._get(name, path))

    def put(self, path: Path, name: str) -> None:
        """Send a file, whole or not at all."""
        self._tried(lambda: self._put(path, name))

    def told(self, error: Exception) -> str:
        """Return what is wrong with the store in a line, without its keys, and the way out."""
        place = masked(self._uri).partition("?")[0]
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return (
            f"the object store {place} cannot be used: {masked(reason, self._uri)}; what was "
            "recorded is kept here, and the same command goes on: check the bucket, the "
            "credentials (AWS_ACCESS_KEY_ID ..) and the region, or name a shared folder with "
            "--storage"
        )

    def _there(self) -> list[FileInfo]:
        kinds = ("suggestions", "sessions", "epochs", "trials", "evaluations")
        names = ["study.toml", *(f"{kind}.jsonl" for kind in kinds), "optuna.journal"]
        there = self.filesystem.get_file_info([f"{self.path}/{name}" for name in names])
        # Left there by trials on other nodes.
        pictures = FileSelector(f"{self.path}/gallery", allow_not_found=True)
        return [*there, *self.filesystem.get_file_info(pictures)]

    def _get(self, name: str, path: Path) -> bool:
        if self.filesystem.get_file_info(f"{self.path}/{name}").type != FileType.File:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with (
            self.filesystem.open_input_stream(f"{self.path}/{name}") as there,
            part.open("wb") as here,
        ):
            while data := there.read(2**24):
                here.write(data)
        part.replace(path)
        return True

    def _merge(self, name: str, path: Path) -> None:
        """Bring the lines of a file that are missing in one that is here."""
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as there:
            theirs = there.read()
        ours = path.read_bytes()
        merged = _merged(ours, theirs)
        if merged != ours:
            part = path.with_name(f"{path.name}.part")
            part.write_bytes(merged)
            part.replace(path)

    def _put(self, path: Path, name: str) -> None:
        with (
            path.open("rb") as here,
            self.filesystem.open_output_stream(f"{self.path}/{name}") as there,
        ):
            while data := here.read(2**24):
                there.write(data)

    def _tried(self, work: Callable[[], T]) -> T:
        """Return what `work` does, tried again after longer and longer waits."""
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


def _merged(ours: bytes, theirs: bytes) -> bytes:
    """Return the lines of both: the store's in their order, ours each after what it followed.

    Of several rows of an epoch or a trial the last one counts. Where two machines went on from
    the same line, ours come first: what the store holds of a trial that ended there stays whole.
    """
    there = _whole_lines(theirs)
    places = {line: place for place, line in enumerate(there)}
    merged, last = list(enumerate(there)), -1
    for line in _whole_lines(ours):
        if line in places:
            last = places[line]
        else:
            merged.append((last, line))
    return b"".join(line for _, line in sorted(merged, key=itemgetter(0)))


def _whole_lines(text: bytes) -> list[bytes]:
    """Return lines; the torn end of a killed writer is none."""
    return [line for line in BytesIO(text) if line.endswith(b"\n")]


def _is_final(error: Exception) -> bool:
    """Tell whether asking again is of no use: an error of this machine's disk has a number."""
    on_disk = getattr(error, "errno", None) is not None
    return isinstance(error, ArrowException) or on_disk or bool(_FINAL.search(str(error)))
