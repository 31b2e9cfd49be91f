"""What every node must have before the first trial: this package, the run folder, the images."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import nnclr_study
from nnclr_study.errors import ClusterError, lines_of
from nnclr_study.study import plugins

CHUNK_BYTES = 64 * 2**20
"""Of a file that is sent to a node, at a time."""
TIMEOUT_SECONDS = 120.0

Facts = Mapping[str, Any]
"""Of a node, as `ray.nodes()` tells them."""


def alive() -> list[Facts]:
    """Return the nodes that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


def check(nodes: Sequence[Facts], run: Path | None, named: Sequence[plugins.Named] = ()) -> None:
    """Make sure that a study's trials could run on every node, and keep their checkpoints.

    Raises:
        ClusterError: a node has another version of this package or none, or of one whose plug-ins
            the study names, or does not see the run folder, if there is one that it should see.
    """
    mark = (run or Path(tempfile.gettempdir())) / f".seen-{uuid4().hex}"
    mark.touch()
    try:
        found = _on_each(nodes, _look, mark, named)
    finally:
        mark.unlink()
    ours, _ = _look(mark, named)
    for node, (theirs, sees) in zip(map(_name, nodes), found, strict=True):
        for package, version in ours.items():
            if theirs.get(package) != version:
                raise ClusterError(
                    f"node {node} has {package} {theirs.get(package, 'not at all')}, and this is "
                    f"{version}; install the same version on every node"
                )
        if run is not None and not sees:
            raise ClusterError(
                f"node {node} does not see {run}, where trials keep their checkpoints; give a "
                "folder that all nodes share, or an object store, with --storage"
            )


def bring(nodes: Sequence[Facts], folder: Path) -> int:
    """Send a folder of files to every node that lacks it; return to how many.

    It arrives at the same path, or not at all.

    Raises:
        ClusterError: a node cannot take it.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    sizes = {path.name: path.stat().st_size for path in files}
    found = _on_each(nodes, _lacks, folder, sizes)
    lacking = [node for node, lacks in zip(nodes, found, strict=True) if lacks]
    if not lacking:
        return 0
    half = folder.with_name(f"{folder.name}.{uuid4().hex}.half")
    for path in files:
        for offset, data in _chunks(path):
            _on_each(lacking, _write, half / path.name, offset, ray.put(data))
    _on_each(lacking, _finish, half, folder)
    return len(lacking)


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        while True:
            offset = file.tell()
            data = file.read(CHUNK_BYTES)
            if data or offset == 0:
                yield offset, data
            if len(data) < CHUNK_BYTES:
                return


def _on_each(nodes: Iterable[Facts], work: Any, *args: Any) -> list[Any]:
    """Return what a function says on each node, all of them at once."""
    there = list(nodes)
    task = ray.remote(num_cpus=0, max_retries=0)(work)
    said = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*args)
        for node in there
    ]
    results = []
    for node, reference in zip(there, said, strict=True):
        try:
            results.append(ray.get(reference, timeout=TIMEOUT_SECONDS))
        except Exception as error:
            reason = lines_of(getattr(error, "cause", None) or error)[-1]
            raise ClusterError(
                f"node {_name(node)} cannot be prepared: {reason}; install nnclr-study there, "
                "and make its folders writable"
            ) from error
    return results


def _name(node: Facts) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _look(mark: Path, named: Sequence[plugins.Named]) -> tuple[dict[str, str], bool]:
    return {"nnclr-study": nnclr_study.__version__} | plugins.versions(named), mark.exists()


def _lacks(folder: Path, sizes: Mapping[str, int]) -> bool:
    return any(
        not (folder / name).is_file() or (folder / name).stat().st_size != size
        for name, size in sizes.items()
    )


def _write(path: Path, offset: int, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(data)


def _finish(half: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    half.rename(folder)
