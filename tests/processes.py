"""The processes of this machine, as /proc tells them."""

import os
import time
from pathlib import Path


def line_of(pid: int) -> str:
    """Return the command line of a process; '' where there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def working_in(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in a folder, without this one."""
    lines = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            at_home = (proc / "cwd").readlink() == folder
        except OSError:
            continue
        line = line_of(int(proc.name))
        if at_home and line and int(proc.name) != os.getpid():
            lines.append(line)
    return lines


def survivors(folder: Path, seconds: float = 10.0) -> list[str]:
    """Return the processes that still work in a folder, after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while (alive := working_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive
