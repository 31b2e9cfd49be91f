"""A run folder's twin in an object store, as `s3://bucket/studies`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import ArrowException
from pyarrow.fs import FileSelector, FileSystem, FileType

from nnclr_study.errors import ClusterError
from nnclr_study.study.provenance import masked

LOCAL_ONLY = {"lock", "ray", "checkpoints"}
"""Of a run folder: what is not sent. Checkpoints are, by the trials themselves."""


class Store:
    """Files of one run folder in an object store; goes with trials to their nodes.

    Raises:
        ClusterError: from everything, where the store cannot be reached or refuses.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        with self._told():
            self.filesystem, base = FileSystem.from_uri(uri)
        self.path = f"{base.rstrip('/')}/{name}"
        self._sent: dict[str, tuple[int, int]] = {}

    def pull(self, folder: Path) -> None:
        """Bring every file that is shorter here, or missing: rows are only ever added to."""
        with self._told():
            there = self.filesystem.get_file_info([f"{self.path}/study.toml"])
            rows = [
                f"{self.path}/{name}"
                for name in ("suggestions", "sessions", "epochs", "trials", "evaluations")
            ]
            there += self.filesystem.get_file_info([f"{row}.jsonl" for row in rows])
            there += self.filesystem.get_file_info([f"{self.path}/optuna.journal"])
            # Left there by trials on other nodes.
            pictures = FileSelector(f"{self.path}/gallery", allow_not_found=True)
            there += self.filesystem.get_file_info(pictures)
        for found in there:
            name = found.path.removeprefix(f"{self.path}/")
            local = folder / name
            size = local.stat().st_size if local.exists() else -1
            if found.type == FileType.File and found.size > size:
                self.get(name, local)

    def push(self, folder: Path) -> None:
        """Send every file that has changed since it was sent last."""
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if name.split("/")[0] in LOCAL_ONLY or path.suffix == ".part" or not path.is_file():
                continue
            stat = path.stat()
            if self._sent.get(name) != (stat.st_size, stat.st_mtime_ns):
                self.put(path, name)
                self._sent[name] = (stat.st_size, stat.st_mtime_ns)

    def get(self, name: str, path: Path) -> bool:
        """Bring a file; return whether there is one."""
        with self._told():
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

    def put(self, path: Path, name: str) -> None:
        """Send a file, whole or not at all."""
        with (
            self._told(),
            path.open("rb") as here,
            self.filesystem.open_output_stream(f"{self.path}/{name}") as there,
        ):
            while data := here.read(2**24):
                there.write(data)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ArrowException) as error:
            place = masked(self._uri).partition("?")[0]
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ClusterError(
                f"the object store {place} cannot be used: {masked(reason, self._uri)}; check the "
                "bucket, the credentials (AWS_ACCESS_KEY_ID ..) and the region, or name a "
                "shared folder with --storage"
            ) from None  # the error itself may hold the keys
