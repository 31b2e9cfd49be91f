"""The Ray cluster of a study: joined, or started on this machine, and what it has."""

import json
import logging
import os
import re
import signal
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from threading import Event
from typing import Any

import ray
from ray.util.state import list_nodes

from nnclr_study.errors import ClusterError, ClusterWarning, cut
from nnclr_study.interrupts import hangup_blocked, held
from nnclr_study.study.provenance import masked
from nnclr_study.sweep.local_ray import CannotStartError, find_place
from nnclr_study.sweep.nodes import alive
from nnclr_study.sweep.resources import Node
from nnclr_study.sweep.watchdog import watched

RESUMES = "run the same command again to resume"
CRASHED_IN_FORK = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
"""What a `ray://` address answers when the process that Ray forks there for a client dies in
gRPC's fork handlers (seen in Ray 2.60, `ev_epoll1_linux.cc`): a race, so another try is due."""

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Environment variables with settings of torch's GPU memory, the first as torch 2.9 names it."""


@contextmanager
def joined(address: str | None, log_to_driver: bool = False) -> Iterator[Event]:
    """Join a cluster, or start one on this machine; leave it (or end it) whatever happens.

    What is yielded is to be set once the work on the cluster is over, also by an error: from then
    on this process may take its time to end, though Ray has died.

    Raises:
        ClusterError: there is none.
    """
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with nullcontext(Event()) if address else watched() as over:
            # A terminal's Ctrl-C also ends Ray's dashboard, and its start then fails.
            with held():
                _init(address, log_to_driver)
            yield over
    finally:
        ray.shutdown()


def _init(address: str | None, log_to_driver: bool, tries: int = 3) -> None:
    wanted = environment()
    options: dict[str, Any] = {"include_dashboard": True}
    if address:
        # No trial belongs to a client's own job.
        is_client = address.startswith("ray://")
        unset = {name: value for name, value in wanted.items() if name not in _set_by_job()}
        options = {} if is_client else {"runtime_env": {"env_vars": unset}}
    try:
        if address and ":" in address:
            _knock(address)
        with hangup_blocked(), _inherited({} if address else wanted | _place()):
            ray.init(
                address=address or "local",
                log_to_driver=log_to_driver,
                logging_level=logging.CRITICAL,
                **options,
            )
    except CannotStartError:
        raise
    except SystemExit as error:
        if error.code == signal.SIGTERM:  # what Ray makes of it as it starts
            raise KeyboardInterrupt from None
        raise ClusterError(_not_joined(address, error)) from error
    except Exception as error:  # in several places Ray raises no other kind
        if tries > 1 and any(words in str(error) for words in CRASHED_IN_FORK):
            return _init(address, log_to_driver, tries - 1)
        raise ClusterError(_not_joined(address, error)) from error


def environment() -> dict[str, str]:
    """Return what processes of trials get in their environment, wherever they are started."""
    hides_gpus = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
    wanted = {hides_gpus: os.environ[hides_gpus]}
    if not any(name in os.environ for name in ALLOCATOR):
        # Trials that share a GPU cannot afford the gaps between segments of a fixed size.
        torch = tuple(map(int, version("torch").split(".")[:2]))
        wanted[ALLOCATOR[0 if torch >= (2, 9) else 1]] = "expandable_segments:True"
    return wanted


def _set_by_job() -> list[str]:
    """Return the environment variables of the Ray job that this process belongs to, if any.

    Ray refuses to set one of them again.
    """
    try:
        job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        return list(job["runtime_env"]["env_vars"])
    except (ValueError, KeyError, TypeError):  # no job, or one that sets none
        return []


def _place() -> dict[str, str]:
    """Return what has to be set for Ray to start on this machine, and say what is not as usual."""
    place = find_place()
    if place.instead:
        warnings.warn(ClusterWarning(place.instead), stacklevel=2)
    return place.environment


@contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _not_joined(address: str | None, error: BaseException) -> str:
    if address is None:
        why = f"{_line(error)}; {_way_out(str(error))}"
        return f"Ray does not start on this machine: {why}; {RESUMES}"
    found = re.findall(r"Ray: (\S+)\s+Python: (\S+)", str(error))
    if len(found) == 2:
        (their_ray, their_python), (our_ray, our_python) = found
        return (
            f"the cluster at {address} has Ray {their_ray} and Python {their_python}, and this is "
            f"Ray {our_ray} and Python {our_python}; call nnclr-study from an environment with "
            "the cluster's versions, or start the cluster from this one"
        )
    return (
        f"no Ray cluster at {address}: {_line(error)}; start one with `ray start --head`, name it "
        "with --address, or leave --address out to use this machine alone. Where there is one, "
        "RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH must be as on its nodes"
    )


def _line(error: BaseException) -> str:
    """Return what an error says in a line: Ray may append whole logs of its processes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return masked(cut(lines[0], 300)) if lines else type(error).__name__


def _way_out(said: str) -> str:
    if "timed out" in said or "Failed to start GCS" in said:
        return (
            "one of Ray's processes ended, or the machine is too busy: look at memory and load, "
            "and where it is slow give Ray more time (RAY_raylet_start_wait_time_s=300)"
        )
    if "missing packages" in said:
        return "install what is missing: pip install 'ray[default]'"
    return "`nnclr-study doctor` looks for a reason, and Ray's session_latest/logs holds more"


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
