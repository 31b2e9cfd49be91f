"""A study run through a Ray client (`ray://`): on the cluster, and told of here."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import ray
from ray.exceptions import RayError

from nnclr_study.errors import ClusterError, lines_of
from nnclr_study.study.provenance import masked
from nnclr_study.sweep.cluster import joined

STUDY = """
import json, sys
sys.argv = ["nnclr-study", *json.load(sys.stdin)]
from nnclr_study.cli import main
sys.exit(main())
"""
"""Takes its words from stdin: they may hold passwords, and everybody reads command lines."""


def run_there(address: str, text: str, flags: Sequence[str]) -> int:
    """Run `nnclr-study run` in a process of the cluster; return its exit code.

    A client is no node of its cluster: it could neither write the run folder where the trials
    see it nor outlive its connection. Paths in `flags` are the cluster's.

    Args:
        address: of the Ray client server, `ray://HOST:10001`.
        text: the study file.
        flags: further words of the command, without file and address.

    Raises:
        ClusterError: nobody answers there, or what ran the study died.
    """
    with joined(address, log_to_driver=True):
        task = ray.remote(num_cpus=0, max_retries=0)(_run)
        reference = task.remote(text, list(flags))
        try:
            code: int = ray.get(reference)
        except KeyboardInterrupt:
            ray.cancel(reference)
            with suppress(RayError):  # it ends as cancelled, once the study has been put down
                ray.get(reference)
            code = 130
        except (RayError, ConnectionError) as error:
            said = lines_of(error)[-1]
            raise ClusterError(
                f"the cluster at {address} ended the study, or is gone: {masked(said)}; what was "
                "recorded there is kept: run the same command again to resume"
            ) from error
        if code < 0:
            raise ClusterError(
                f"the study's process on the cluster was ended by signal {-code}, as by the "
                "system when memory is short; what was recorded there is kept: run the same "
                "command again to resume"
            )
        return code


def _run(text: str, flags: list[str]) -> int:
    address = ray.get_runtime_context().gcs_address
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.toml"
        file.write_text(text, encoding="utf-8")
        words = ["run", str(file), *flags, "--address", address]
        study = subprocess.Popen([sys.executable, "-c", STUDY], stdin=subprocess.PIPE, text=True)
        try:
            assert study.stdin is not None
            with study.stdin as said:
                json.dump(words, said)
            return study.wait()
        except KeyboardInterrupt:
            study.send_signal(signal.SIGINT)
            return study.wait()
