"""Ends this process where the Ray that it started has died.

Without its raylet, or its GCS, Ray (2.60) ends the process after 15 or 60 seconds from C++ code,
with exit code 1, which here means that trials failed.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from nnclr_study.errors import ClusterError

WATCHED = {"gcs_server", "raylet"}
POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0
"""How long an error or an interrupt may take to end the block by itself."""


@contextmanager
def watched(grace: float = GRACE_SECONDS) -> Iterator[Event]:
    """End this process with the code of a ClusterError if Ray's processes die during the block.

    The event that is yielded ends the watch where it is set, before the block ends.

    Args:
        grace: seconds for the block to end by itself, with an error of Ray's or an interrupt.
    """
    over = Event()
    thread = Thread(target=_watch, args=(over, grace), name="watchdog", daemon=True)
    thread.start()
    try:
        yield over
    finally:
        over.set()
        thread.join()


def _watch(over: Event, grace: float) -> None:
    found: dict[str, int] = {}
    while not over.wait(POLL_SECONDS):
        dead = [name for name, pid in found.items() if not _lives(pid)]
        if dead:
            if not over.wait(grace):
                _end(dead[0])
            return
        if len(found) < len(WATCHED):
            found |= _children()


def _children() -> dict[str, int]:
    """Return the watched processes that this one has started, by name."""
    found = {}
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread, or the child, has ended
            for pid in listed.read_text().split():
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if name in WATCHED:
                    found[name] = int(pid)
    return found


def _lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "XZ"


def _end(name: str) -> None:
    with suppress(OSError):
        sys.stdout.flush()
    said = f"error: Ray's process {name} died, as by the system when memory is short; what was "
    said += "recorded is kept: run the same command again to resume\n"
    with suppress(OSError):
        os.write(2, said.encode())
    os._exit(ClusterError.exit_code)
