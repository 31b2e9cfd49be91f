"""A study from its plan to its last row, on whatever Ray has."""

import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

# Ray reads these when it is imported: no statistics sent home, no table and no signal handler
# of its own, and no five seconds of waiting after a TorchTrainer has ended.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*worker processes have been started on node",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

import ray
from ray import tune
from ray.util.state import list_nodes
from rich.console import Console

from nnclr_study.errors import ClusterError
from nnclr_study.study import provenance
from nnclr_study.study.plan import Trial
from nnclr_study.study.rows import Session
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import Study
from nnclr_study.sweep.recorder import Recorder
from nnclr_study.sweep.resources import Demand, Node, Placement, place
from nnclr_study.sweep.terminal import Progress
from nnclr_study.sweep.trial import RETRIES, Job, in_process, with_trainer
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.prepared import prepare


def run_trials(
    study: Study,
    trials: Sequence[Trial],
    folder: RunFolder,
    demand: Demand,
    data: Path,
    address: str | None,
    console: Console,
) -> None:
    """Run some trials of a study and record them in its run folder, locked by the caller.

    Raises:
        DataError: the images cannot be had; found before the first trial starts.
        ClusterError: the cluster cannot be reached or cannot hold a trial.
        UsageError: the demand contradicts itself.
    """
    _check_data(trials, data)
    todo = {trial.id: trial for trial in trials}
    with _cluster(address):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        placement = place(demand, nodes)
        if placement.runner == "train":
            _check_state_api()
        session = _session(placement, nodes)
        number = folder.append_session(session)
        console.print(_how(session), style="dim")
        with Progress(console, study, todo, folder) as progress:
            recorder = Recorder(folder, todo, number, progress)
            _tuner(todo, folder, placement, nodes, data, number, recorder).fit()


def _tuner(
    todo: Mapping[str, Trial],
    folder: RunFolder,
    placement: Placement,
    nodes: Sequence[Node],
    data: Path,
    session: int,
    recorder: Recorder,
) -> tune.Tuner:
    job = Job(
        configs={trial_id: trial.config for trial_id, trial in todo.items()},
        checkpoints={trial_id: folder.checkpoint(trial_id).resolve() for trial_id in todo},
        data=data.resolve(),
        placement=placement,
        ray_storage=folder.ray.resolve(),
        # A GPU that was only declared has no accelerator type; nccl would wait for it.
        nccl=placement.gpus_per_worker > 0
        and any(key.startswith("accelerator_type:") for node in nodes for key in node),
    )
    if placement.runner == "in-process":
        function, slot = in_process, {"cpu": 1.0, "gpu": placement.gpus_per_worker}
    else:
        function, slot = with_trainer, {"cpu": placement.driver_cpus}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(function, job=job), slot),
        param_space={"trial_id": tune.grid_search(list(todo))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=placement.max_concurrent,
            reuse_actors=placement.runner == "in-process",
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=f"session-{session}",
            storage_path=str(folder.ray.resolve()),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def _trial_id(trial: tune.experiment.Trial) -> str:
    return str(trial.config["trial_id"])


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Join a cluster, or start one on this machine; leave it (or end it) whatever happens."""
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    local = {} if address else {"include_dashboard": True}
    try:
        if address and ":" in address:
            _knock(address)
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **local,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster at {address or 'this machine'}: {error}; start one with "
            "`ray start --head`, name it with --address, or leave --address out to use this "
            "machine alone"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try, and log, for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def _check_data(trials: Sequence[Trial], data: Path) -> None:
    """Prepare the images, and load them once for every way in which trials differ in them."""
    for name, size in {(t.config.dataset, t.config.image_size) for t in trials}:
        prepare(name, size, data)
    knobs = {"dataset", "image_size", "val_fraction", "batch_size", "labelled_batch_size"}
    for config in {str(t.config.model_dump(include=knobs)): t.config for t in trials}.values():
        load_dataset(config, data)


def _check_state_api() -> None:
    """Without it Ray keeps the GPUs of a stopped TorchTrainer for as long as the study runs."""
    try:
        list_nodes(limit=1)
    except Exception as error:
        raise ClusterError(
            f"the cluster's state API does not answer ({error}), and without it the GPUs of a "
            "stopped trial stay taken; start the cluster with its dashboard "
            "(`pip install 'ray[default]'`, no --include-dashboard=false), or use "
            "--runner in-process"
        ) from error


def _session(placement: Placement, nodes: Sequence[Node]) -> Session:
    return Session(
        started_at=datetime.now(UTC),
        command=shlex.join(["nnclr-study", *sys.argv[1:]]),
        versions=provenance.versions(),
        commit=provenance.commit(),
        machine=provenance.machine(),
        cpus=sum(node.get("CPU", 0) for node in nodes),
        gpus=sum(node.get("GPU", 0) for node in nodes),
        nodes=len(nodes),
        runner=placement.runner,
        workers=placement.workers,
        gpus_per_trial=placement.gpus_per_worker * placement.workers,
        max_concurrent=placement.max_concurrent,
    )


def _how(session: Session) -> str:
    where = "a TorchTrainer each" if session.runner == "train" else "in Tune's processes"
    return (
        f"{session.nodes} node(s), {session.cpus:g} CPUs, {session.gpus:g} GPUs: "
        f"{session.max_concurrent} trials at a time, {where}"
    )
