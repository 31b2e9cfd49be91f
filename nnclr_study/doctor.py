"""What `doctor` looks at: whether a study can run here, what would be slow, and the way out.

It starts nothing and leaves nothing: a cluster is looked for by its address alone, and a folder is
tried with a file that is gone at once.
"""

import os
import shutil
import socket
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from nnclr_study.errors import PluginError, StudyError, lines_of
from nnclr_study.study import provenance
from nnclr_study.study.folders import try_writing
from nnclr_study.study.plugins import GROUPS, find, installed
from nnclr_study.study.provenance import masked
from nnclr_study.sweep.local_ray import SHORTER, CannotStartError, find_place, ray_folder

Level = Literal["ok", "slow", "bad"]

NEEDED = ("torch", "torchvision", "ray", "optuna", "numpy")
WIDTH = 80
FEW_CPUS = 2
"""Below as many, Ray and a trial share one."""
LITTLE_MEMORY, LITTLE_DISK = 4e9, 5e9
"""Bytes below which even small studies are in danger."""
MEMORY, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
KNOCK_SECONDS = 1.0
CLUSTER_FILE = "ray_current_cluster"
"""In Ray's folder: `ray start` writes the address of the machine's cluster there."""
ASKED = {"abfs", "abfss", "gcs", "gs", "hdfs", "s3", "viewfs"}
"""Schemes of object stores that are asked over the network as soon as they are named."""
CHROMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass(frozen=True)
class Check:
    """One thing looked at. Slow: `run` works, yet something is amiss. Bad: it cannot work."""

    name: str
    level: Level
    said: str
    way_out: str = ""


def examine(storage: str, data: Path) -> list[Check]:
    """Return everything that was looked at.

    Args:
        storage: as of `run`: folder of run folders, or an object store.
        data: folder of data sets.
    """
    return [
        _software(),
        _devices(),
        _cpus(),
        *_bf16(),
        _memory(),
        _storage(storage),
        _data(data),
        _ray(),
        _cluster(),
        _browser(),
        *_plugins(),
    ]


def lines(checks: Sequence[Check]) -> Iterator[str]:
    """Yield what is printed, at most 80 columns wide."""
    for check in checks:
        head = f"{check.level:<5}{check.name:<10}"
        yield from textwrap.wrap(
            check.said, WIDTH, initial_indent=head, subsequent_indent=" " * len(head)
        )
        arrow = " " * (len(head) - 3) + "-> "
        yield from textwrap.wrap(
            check.way_out, WIDTH, initial_indent=arrow, subsequent_indent=" " * len(head)
        )
    bad = [check.name for check in checks if check.level == "bad"]
    yield f"`run` cannot work here: {', '.join(bad)}" if bad else "`run` can work here"


def can_run(checks: Sequence[Check]) -> bool:
    """Tell whether nothing stands in the way of `run`."""
    return all(check.level != "bad" for check in checks)


def _software() -> Check:
    found = provenance.versions()
    said = ", ".join(f"{name} {version}" for name, version in found.items())
    missing = [name for name in NEEDED if name not in found]
    if missing:
        way_out = "install what nnclr-study needs: pip install -e . in its clone"
        return Check("software", "bad", f"{said}; not installed: {', '.join(missing)}", way_out)
    return Check("software", "ok", f"{said}; {provenance.machine()}")


def _devices() -> Check:
    try:
        import torch

        count = torch.cuda.device_count()
        gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    except (ImportError, OSError, RuntimeError) as error:
        reason = lines_of(error)[0]
        return Check("devices", "bad", f"torch does not load: {reason}", "install torch again")
    if gpus:
        said = ", ".join(f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB)" for gpu in gpus)
        return Check("devices", "ok", f"torch sees {len(gpus)} GPU(s): {said}")
    if shutil.which("nvidia-smi"):
        built = torch.version.cuda
        why = f"torch is built for CUDA {built}" if built else "torch is built without CUDA"
        way_out = "install a torch that fits the driver; `nvidia-smi` tells the driver's CUDA"
        return Check("devices", "slow", f"a GPU's driver, and torch sees no GPU: {why}", way_out)
    return Check(
        "devices",
        "slow",
        "no GPU that torch sees: trials compute on CPUs, one thread each",
        "quickstart and cifar10_queue_size are made for that; for larger studies join a cluster "
        "with GPUs (`run` --address)",
    )


def _cpus() -> Check:
    machine = os.cpu_count() or 1
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    said = f"{ours} of {machine} cores" if ours != machine else f"{ours} cores"
    if ours < FEW_CPUS:
        return Check("CPUs", "slow", said, "one trial at a time, and it waits for Ray: use more")
    return Check("CPUs", "ok", f"{said}: without a GPU, as many trials at a time as Ray counts")


def _bf16() -> Iterator[Check]:
    """Yield what bf16 gains on a CPU: some multiply it faster than float32, some slower."""
    try:
        import torch
    except (ImportError, OSError):
        return  # which `devices` tells of
    if torch.cuda.is_available():
        return
    from nnclr_study.trainer.pace import bf16_speed

    speed = bf16_speed()
    if speed < 1:
        said = f"a step takes {1 / speed:.1f} times as long as in float32 on this processor"
        yield Check("bf16", "ok", said, 'leave `precision` at "float32"')
    else:
        said = f"a step is {speed:.1f} times as fast as in float32 on this processor"
        yield Check("bf16", "ok", said, 'set precision = "bf16" in [trial] to have that')


def _memory() -> Check:
    if not MEMORY.is_file():
        return Check("memory", "ok", "not known on this system")
    whole, free = _memory_bytes()
    said = f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB free"
    if free < LITTLE_MEMORY:
        way_out = "Ray ends processes when memory is short: `run` --max-concurrent 1, or free some"
        return Check("memory", "slow", said, way_out)
    return Check("memory", "ok", said)


def _memory_bytes() -> tuple[int, int]:
    """Return all memory and what is free of it, as the container limits it."""
    told = dict(
        line.split(":", 1) for line in MEMORY.read_text().splitlines() if line.startswith("Mem")
    )
    whole, free = (int(told[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    try:
        limit = int((CONTAINER / "memory.max").read_text())
        used = int((CONTAINER / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or no limit
        return whole, free
    return min(whole, limit), min(free, max(0, limit - used))


def _storage(storage: str) -> Check:
    if "://" not in storage:
        return _folder("storage", Path(storage), "--storage")
    scheme, _, bucket = storage.partition("://")
    if not bucket.strip("/"):
        way_out = "name one with --storage, as s3://BUCKET/FOLDER"
        return Check("storage", "bad", f"{storage} names no bucket", way_out)
    if scheme not in ASKED or bucket.startswith("/"):
        from nnclr_study.sweep.store import Store

        try:
            Store(storage, "doctor")
        except StudyError as error:
            return Check("storage", "bad", masked(storage), str(error))
    here = _folder("storage", Path("runs"), "--storage")
    said = f"an object store, which was not asked; its working copy here: {here.said}"
    return Check("storage", here.level, said, here.way_out)


def _data(data: Path) -> Check:
    check = _folder("data", data, "--data")
    known = sorted(about.parent.name for about in data.glob("prepared/*/about.json"))
    # A set's folder is its name and size, and a digest of its content.
    names = ", ".join(name.rpartition("-")[0] for name in known) or "nothing but digits"
    return Check("data", check.level, f"{check.said}; prepared: {names}", check.way_out)


def _folder(name: str, path: Path, flag: str, lock: bool = True) -> Check:
    """Look at a folder that `run` would write to, or make, and whether it can lock files there."""
    try:
        there = try_writing(path, lock)
    except OSError as error:
        way_out = f"name a folder that you may write to with {flag}"
        return Check(name, "bad", f"{path}: {error.filename} {error.strerror}", way_out)
    free = shutil.disk_usage(there).free
    said = f"{path}: {'writable' if there == path.absolute() else 'will be made'}"
    said += f", {free / 1e9:.1f} GB free"
    if free < LITTLE_DISK:
        return Check(name, "slow", said, f"free some, or name another folder with {flag}")
    return Check(name, "ok", said)


def _ray() -> Check:
    """Look at what `run` itself looks at before it starts Ray."""
    try:
        place = find_place()
    except CannotStartError as error:
        return Check("Ray", "bad", error.said, error.way_out)
    if place.instead:
        return Check("Ray", "slow", f"{place.instead}; {place.token}", SHORTER)
    files = _folder("Ray", place.folder, "the environment variable RAY_TMPDIR", lock=False)
    return Check("Ray", files.level, f"files in {files.said}; {place.token}", files.way_out)


def _cluster() -> Check:
    address, named = os.environ.get("RAY_ADDRESS", "auto"), "RAY_ADDRESS"
    join = address
    if address == "auto":
        file = ray_folder() / CLUSTER_FILE
        named = str(file)
        try:
            address = file.read_text().strip()
        except OSError:
            return Check("cluster", "ok", "none is running here: `run` starts one, and ends it")
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, ValueError):
        said = f"{named} names {address}, where none answers"
        return Check("cluster", "ok", f"{said}: `run` without --address starts one here")
    return Check("cluster", "ok", f"one answers at {address}: join it with `run` --address {join}")


def _browser() -> Check:
    """Look for what `report --static` needs, and nothing else does."""
    named = os.environ.get("BROWSER_PATH")
    path = named or next(filter(None, map(shutil.which, CHROMES)), None)
    for missing, way_out in (
        (find_spec("kaleido") is None and "kaleido", "pip install 'nnclr-study[static]'"),
        (path is None and "Chrome or Chromium", "apt install chromium, or name it: BROWSER_PATH"),
    ):
        if missing:
            said = f"no {missing}: all works but `report` --static"
            return Check("images", "ok", said, way_out)
    return Check("images", "ok", f"{path} draws PNG and SVG for `report` --static")


def _plugins() -> Iterator[Check]:
    for knob in GROUPS:
        for plugin in installed(knob):
            try:
                find(knob, plugin.value)
            except PluginError as error:  # two packages have the name
                yield Check("plug-in", "slow", str(plugin), str(error))
            else:
                yield Check("plug-in", "ok", str(plugin))
