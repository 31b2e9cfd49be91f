"""Wait until a Ray cluster has what a study needs, then run a command on it.

`nnclr-study run` takes the GPUs that are there and those that join later. It asks no autoscaler
for more. This does, until the command has ended:

    python deploy/when_ready.py --ask-gpus 4 --gpus 1 nnclr-study run FILE --address auto

Without a command it only waits. Exit codes: the command's own; 3 when the wait was in vain.
"""

import argparse
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

SECONDS_BETWEEN_LOOKS = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, wait, run the command, give back."""
    args = _arguments(argv)
    deadline = time.monotonic() + args.timeout
    try:
        if args.ask_gpus:
            _ask(args.address, args.ask_gpus, deadline)
        _wait(args.address, args.nodes, args.gpus, deadline)
        return _run(args.command) if args.command else 0
    except TimeoutError as error:
        sys.stderr.write(f"when_ready.py: after {args.timeout:g} s: {error}\n")
        return 3
    finally:
        if args.ask_gpus:
            _give_back(args.address)


def missing(
    nodes: Sequence[Mapping[str, Any]], nodes_wanted: int, gpus_wanted: float
) -> str | None:
    """Return what a cluster still lacks; None if nothing.

    Args:
        nodes: as `ray.nodes()` returns them.
        nodes_wanted: how many have to be alive, the head included.
        gpus_wanted: how many GPUs they have to have between them.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(resources.get("GPU", 0) for resources in alive)
    if len(alive) >= nodes_wanted and gpus >= gpus_wanted:
        return None
    return f"{len(alive)} of {nodes_wanted} nodes and {gpus:g} of {gpus_wanted:g} GPUs are there"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--address", default="auto", help="of the Ray cluster")
    parser.add_argument("--nodes", type=int, default=1, help="alive, the head included")
    parser.add_argument("--gpus", type=float, default=0, help="that have to be there")
    parser.add_argument("--ask-gpus", type=int, default=0, help="to ask the autoscaler for")
    parser.add_argument("--timeout", type=float, default=1800, help="of the wait, in seconds")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="to run then")
    return parser.parse_args(argv)


@contextmanager
def _joined(address: str, deadline: float) -> Iterator[Any]:
    """Join the cluster, trying until it is up; leave it."""
    import ray

    while True:
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
            break
        except (OSError, RuntimeError, ValueError) as error:
            ray.shutdown()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no Ray cluster at {address}: {error}") from error
            time.sleep(SECONDS_BETWEEN_LOOKS)
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try, and log, for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


def _wait(address: str, nodes: int, gpus: float, deadline: float) -> None:
    with _joined(address, deadline) as ray:
        while lacking := missing(ray.nodes(), nodes, gpus):
            if time.monotonic() > deadline:
                raise TimeoutError(lacking)
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _ask(address: str, gpus: int, deadline: float) -> None:
    """Ask for GPUs, each with a CPU. The autoscaler remembers it until it is asked anew."""
    from ray.autoscaler.sdk import request_resources

    with _joined(address, deadline):
        request_resources(bundles=[{"GPU": 1, "CPU": 1}] * gpus)


def _give_back(address: str) -> None:
    """Ask for nothing, so that idle nodes may go; a cluster that is gone keeps none."""
    try:
        _ask(address, 0, deadline=0)
    except TimeoutError as error:
        sys.stderr.write(f"when_ready.py: the GPUs could not be given back: {error}\n")


def _run(command: Sequence[str]) -> int:
    """Run a command to its end; return its exit code as a shell would."""
    # `ray job stop` and Ctrl-C reach the command too: it stops by itself, and is waited for.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    code = subprocess.call(command)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
