"""The Ray cluster of a study: joined, or started on this machine, and what it has."""

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util.state import list_nodes

from nnclr_study.errors import ClusterError
from nnclr_study.interrupts import held
from nnclr_study.sweep.nodes import alive
from nnclr_study.sweep.resources import Node

CRASHED_IN_FORK = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
"""What a `ray://` address answers when the process that Ray forks there for a client dies in
gRPC's fork handlers (seen in Ray 2.60, `ev_epoll1_linux.cc`): a race, so another try is due."""


@contextmanager
def joined(address: str | None, log_to_driver: bool = False) -> Iterator[None]:
    """Join a cluster, or start one on this machine; leave it (or end it) whatever happens.

    Raises:
        ClusterError: there is none.
    """
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with held():
            _init(address, log_to_driver)
        yield
    finally:
        ray.shutdown()


def _init(address: str | None, log_to_driver: bool, tries: int = 3) -> None:
    local = {} if address else {"include_dashboard": True}
    try:
        if address and ":" in address:
            _knock(address)
        ray.init(
            address=address or "local",
            log_to_driver=log_to_driver,
            logging_level=logging.CRITICAL,
            **local,
        )
    except SystemExit:  # what Ray makes of SIGTERM as it starts
        raise KeyboardInterrupt from None
    except (OSError, RuntimeError, ValueError) as error:
        if tries > 1 and any(words in str(error) for words in CRASHED_IN_FORK):
            return _init(address, log_to_driver, tries - 1)
        raise ClusterError(_not_joined(address, error)) from error


def _not_joined(address: str | None, error: Exception) -> str:
    if address is None:
        return (
            f"Ray does not start on this machine: {error}; it keeps a token in ~/.ray and its "
            "files in /tmp/ray: make both writable, or, where nobody else reaches this machine, "
            "do without the token (RAY_AUTH_MODE=disabled)"
        )
    found = re.findall(r"Ray: (\S+)\s+Python: (\S+)", str(error))
    if len(found) == 2:
        (their_ray, their_python), (our_ray, our_python) = found
        return (
            f"the cluster at {address} has Ray {their_ray} and Python {their_python}, and this is "
            f"Ray {our_ray} and Python {our_python}; call nnclr-study from an environment with "
            "the cluster's versions, or start the cluster from this one"
        )
    return (
        f"no Ray cluster at {address}: {error}; start one with `ray start --head`, name it with "
        "--address, or leave --address out to use this machine alone. Where there is one, "
        "RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH must be as on its nodes"
    )


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try, and log, for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def check_state_api() -> None:
    """Without it Ray keeps the GPUs of a stopped TorchTrainer for as long as the study runs."""
    try:
        # By address: a machine may have other clusters, which are none of our business.
        list_nodes(address=ray.get_runtime_context().gcs_address, limit=1)
    except Exception as error:
        raise ClusterError(
            f"the cluster's state API does not answer ({error}), and without it the GPUs of a "
            "stopped trial stay taken; start the cluster with its dashboard "
            "(`pip install 'ray[default]'`, no --include-dashboard=false), or use "
            "--runner in-process"
        ) from error


def resources() -> list[Node]:
    """Return what each of its nodes has."""
    return [node["Resources"] for node in alive()]
