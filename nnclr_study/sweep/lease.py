"""One `run` at a time on a run folder in an object store: a lease that expires unless renewed.

Object stores have no locks, and the ones supported here share no conditional write. Each `run`
therefore writes an object of its own into the folder `leases` and goes on once a list made after
that shows no other one alive. Of two that start together each sees the other, so that they never
both go on; the one whose name sorts first waits until the other has given way. Ages are
differences of the times that the store itself gives to objects: no machine's clock counts.
"""

import hashlib
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Event, Lock, Thread
from time import sleep
from typing import NamedTuple
from uuid import getnode, uuid4

from pyarrow import ArrowException
from pyarrow.fs import FileSelector

from nnclr_study.errors import ClusterError, RunFolderError
from nnclr_study.sweep.store import Store

RENEW_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
"""After which a lease that was not renewed no longer counts: its `run` was killed."""
ASK_SECONDS = 2.0
"""How often a `run` that waits for a lease to expire looks again."""
LONGEST = 200
"""Characters of another lease's text that are shown."""


class _Found(NamedTuple):
    """The lease of another `run`, as the store holds it."""

    name: str
    renewed: int
    """Nanoseconds, by the store's clock."""
    by: str
    working_copy: str
    held: bool
    """False: its `run` waits as well."""


class Lease:
    """The right of this `run` to change a run folder in an object store.

    Args:
        store: the object store.
        folder: the working copy, which is locked when the lease is taken.

    Raises:
        ClusterError: from everything, where the store cannot be used, or the lease was lost.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._name = uuid4().hex
        self._leases = f"{store.path}/leases"
        self._wrote = self._lost = False
        self._over = Event()
        self._one = Lock()
        self._thread: Thread | None = None

    def take(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Become the only `run` on the folder; wait for the lease of a killed one to expire.

        Raises:
            RunFolderError: another `run` is at work on the folder.
        """
        seen: dict[str, int] = {}
        while True:
            now = self._store.tried(lambda: self._written(held=False))
            others = self._store.tried(self._others)
            alive = [other for other in others if self._counts(other, now)]
            if not alive:
                break
            for other in alive:
                is_new = other.name not in seen
                goes_on = other.renewed > seen.setdefault(other.name, other.renewed)
                if goes_on and (other.held or other.name < self._name):
                    self.release()
                    raise RunFolderError(
                        f"{self._store.place} is in use by {other.by}; wait for it to end, or "
                        "stop it first"
                    )
                if is_new:
                    age = (now - other.renewed) / 1e9
                    say(
                        f"waiting for up to {EXPIRY_SECONDS - age:.0f} s: {self._store.place} is "
                        f"in use by {other.by}, last heard of {max(age, 0):.0f} s ago"
                    )
            sleep(ASK_SECONDS)
        for other in others:
            self._remove(other.name)
        self._store.tried(self._renew)
        self._thread = Thread(target=self._keep, daemon=True)
        self._thread.start()

    def push(self) -> None:
        """Send what has changed in the working copy, if this `run` still holds the lease."""
        self._store.tried(self._renew)
        self._store.push(self._folder)

    def check(self) -> None:
        """Raise ClusterError if the lease was found lost."""
        if self._lost:
            raise ClusterError(
                f"this `run` no longer holds {self._store.place}: it could not renew its lease "
                f"for {EXPIRY_SECONDS:.0f} s and another `run` took over, or the folder `leases` "
                f"was deleted; every row is kept in {self._folder}, and the same command goes on "
                "once no other `run` is at work"
            )

    @property
    def is_held(self) -> bool:
        """Whether the lease was taken, and neither released nor found lost."""
        return self._thread is not None and not self._lost and not self._over.is_set()

    def release(self) -> None:
        """Let others in; a lease that cannot be removed expires."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._wrote and not self._lost:
            self._remove(self._name)

    def _keep(self) -> None:
        while not self._over.wait(RENEW_SECONDS) and not self._lost:
            # A store that does not answer is asked again in a moment; who sends reports it.
            with suppress(ClusterError, OSError, ArrowException):
                self._renew()

    def _renew(self) -> None:
        """Renew the lease, unless another `run` has taken over."""
        with self._one:
            self.check()
            before = self._times().get(self._name)
            if before is None:
                self._lost = True
            else:
                now = self._written(held=True)
                lapsed = now - before >= EXPIRY_SECONDS * 1e9
                if lapsed and any(self._counts(other, now) for other in self._others()):
                    self._lost = True
                    self._remove(self._name)
            self.check()

    def _written(self, held: bool) -> int:
        """Write our lease; return the time by the store's clock."""
        text = {
            "by": f"`run`, process {os.getpid()} on {socket.gethostname()}",
            "working_copy": _working_copy(self._folder),
            "held": held,
        }
        self._store.write(f"leases/{self._name}", BytesIO(json.dumps(text).encode()))
        self._wrote = True
        now = self._times().get(self._name)
        if now is None:
            raise OSError(f"the lease {self._name} was deleted as it was written")
        return now

    def _counts(self, other: _Found, now: int) -> bool:
        """Tell whether the `run` of another lease may be alive.

        One of our working copy is not: it would hold the lock that this process holds.
        """
        alive = now - other.renewed < EXPIRY_SECONDS * 1e9
        return alive and other.working_copy != _working_copy(self._folder)

    def _others(self) -> list[_Found]:
        found = []
        for name, renewed in self._times().items():
            if name != self._name:
                by, working_copy, held = self._read(name)
                found.append(_Found(name, renewed, by, working_copy, held))
        return found

    def _times(self) -> dict[str, int]:
        """Return when each lease was written, by the store's clock."""
        found = self._store.filesystem.get_file_info(
            FileSelector(self._leases, allow_not_found=True)
        )
        return {info.base_name: info.mtime_ns or 0 for info in found if info.extension != "part"}

    def _read(self, name: str) -> tuple[str, str, bool]:
        try:
            text = json.loads(self._store.read(f"leases/{name}"))
            return str(text["by"])[:LONGEST], str(text["working_copy"]), bool(text["held"])
        except (ValueError, KeyError, TypeError, RecursionError):  # half written, or not one
            return "another `run`", "", True

    def _remove(self, name: str) -> None:
        with suppress(OSError, ArrowException):
            self._store.filesystem.delete_file(f"{self._leases}/{name}")


def _working_copy(folder: Path) -> str:
    """Return a text that is the same for two processes only if they share a working copy."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = boot.read_text() if boot.is_file() else f"{socket.gethostname()} {getnode()}"
    there = folder.stat()
    text = f"{machine} {there.st_dev} {there.st_ino} {folder.resolve()}"
    return hashlib.sha256(text.encode()).hexdigest()
