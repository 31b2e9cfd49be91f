"""One trial where it runs: in this process, in Tune's, or in the workers of a TorchTrainer."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray import cloudpickle, tune
from ray.tune.integration.ray_train import TuneReportCallback

from nnclr_study.errors import ClusterError, RunFolderError, StudyError, chain
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.rows import EpochRow
from nnclr_study.study.run_folder import RunFolder, checkpoint_file
from nnclr_study.sweep.memory import lack
from nnclr_study.sweep.resources import Placement
from nnclr_study.sweep.store import Store
from nnclr_study.trainer import checkpoint
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.gallery import write_gallery
from nnclr_study.trainer.loop import Snapshot, train
from nnclr_study.trainer.runtime import forget_peak_memory, limit_gpu_memory, peak_memory_bytes
from nnclr_study.trainer.world import World, compute_device

RETRIES = 2
"""How often a trial whose process or node died goes on from its last epoch."""
PATIENCE_SECONDS = 300.0
"""How long a trial waits for its images."""


@dataclass(frozen=True)
class Job:
    """What every trial of a study needs to know beside its id and its config."""

    checkpoints: Path
    """Folder of one file a trial."""
    data: Path
    images: list[Path]
    """Prepared data sets, in `data`; one may still be on its way to a node that joined late."""
    placement: Placement
    ray_storage: str
    """Folder of Ray's own files, on each machine: there is nothing in them that another needs."""
    store: Store | None
    """Where checkpoints are kept as well; None: every node sees `checkpoints`."""
    nccl: bool
    """Whether the GPUs of the trials are real, and not just declared as in a test."""


def in_process(params: dict[str, Any], job: Job) -> None:
    """Run a trial in the process that Tune gave it."""
    world = World.alone(job.placement.gpus_per_worker)
    if job.nccl and world.device.type == "cpu":
        lost = (
            f"torch sees no GPU on {socket.gethostname()}, where Ray gave the trial one: install "
            "a torch that fits the driver (`nnclr-study doctor` there says what is wrong), or "
            "train on CPUs with --gpus-per-trial 0"
        )
        tune.report({"stops": ClusterError(lost)})
        return
    _run(params, job, world, tune.report)


def with_trainer(params: dict[str, Any], job: Job) -> None:
    """Run a trial as a TorchTrainer, whose driver this is."""
    placement = job.placement
    context = tune.get_context()
    try:
        ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config=params | {"job": job},
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if job.nccl else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=placement.workers,
                use_gpu=placement.gpus_per_worker > 0,
                resources_per_worker=_resources(placement),
            ),
            run_config=ray.train.RunConfig(
                # Stable, so that a retried driver finds the run of the one before.
                name=f"{context.get_experiment_name()}-{params['trial_id']}",
                storage_path=job.ray_storage,
                callbacks=[_Telling()],
                # Tune tries again. Train would as well where Tune ends a trial: its workers die
                # first, and GPUs that it asks for anew as it dies itself are lost to the cluster.
                failure_config=ray.train.FailureConfig(max_failures=0),
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        ).fit()
    except ray.train.WorkerGroupError as error:
        raise _root(next(iter(error.worker_failures.values()))) from None


class _Telling(TuneReportCallback):  # type: ignore[misc]
    """Tells Tune what workers report, and ends a trial that would lack memory again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Tell why, before Tune tries again."""
        for error in map(_root, worker_exceptions.values()):
            if isinstance(error, MemoryError | RuntimeError) and (lacked := lack(error)):
                self.after_report(run_context, [{"failed": lacked, "done": True}], None)
                return


def _worker(params: dict[str, Any]) -> None:
    job: Job = params["job"]
    gpus = job.placement.gpus_per_worker
    device = compute_device(gpus)
    if device.type == "cuda":
        device = ray.train.torch.get_device()  # which of the node's GPUs is this worker's
    _run(params, job, World.joined(device, gpus or 1.0), ray.train.report)


def _run(
    params: dict[str, Any], job: Job, world: World, report: Callable[[dict[str, Any]], None]
) -> None:
    """Train one trial from its last epoch on, saving and reporting every epoch.

    What the queue retrieves at the end is there before the last epoch is reported. The rows of
    the epochs already done are reported again: whoever records them may have been killed before
    they came through, and skips those that did.
    """
    config = TrialConfig.model_validate_json(params["config"])
    saved = checkpoint_file(job.checkpoints, params["trial_id"])
    facts = {"host": socket.gethostname(), "device": _device_name(world.device)}

    def tell(row: EpochRow, snapshot: Snapshot) -> None:
        peak = peak_memory_bytes(world.device)
        # As text: of every number Tune would keep statistics, trial after trial.
        told = {"row": row.model_dump_json(), "ran": snapshot.config.model_dump_json()}
        report(told | facts | {"peak_memory_bytes": peak})

    def show(snapshot: Snapshot) -> None:
        ended = len(snapshot.rows) == snapshot.config.epochs
        if world.rank == 0 and snapshot.config.queue_size and ended:
            folder = RunFolder(job.checkpoints.parent).gallery
            for file in write_gallery(snapshot, data, world.device, folder, params["trial_id"]):
                if job.store:
                    job.store.put(file, f"{folder.name}/{file.name}")

    for path in job.images:
        _await(path)
    limit_gpu_memory(world.device, world.gpu_share)
    forget_peak_memory(world.device)
    try:
        if job.store:
            job.store.get(f"checkpoints/{saved.name}", saved)
        resume = checkpoint.resume(saved, config)
        data = load_dataset(config, job.data, job.images)
        if resume is not None:
            show(resume)
            for row in resume.rows:
                tell(row, resume)
        for snapshot in train(config, data, world, resume):
            if world.rank == 0:
                checkpoint.save(snapshot, saved)
                if job.store:
                    job.store.put(saved, f"checkpoints/{saved.name}")
            show(snapshot)
            tell(snapshot.rows[-1], snapshot)
    except (RunFolderError, ClusterError) as error:
        # No room for a checkpoint, or no store: the study stops, and no trial has failed.
        report({"stops": error} | facts)
    except StudyError as error:
        # Every worker comes to it alike, and would again: reported, so that nobody retries.
        report({"failed": reason(error)} | facts)
    except (MemoryError, RuntimeError) as error:
        # The same for memory, but one of several workers may lack it alone: raised, it ends all.
        if world.size > 1 or lack(error) is None:
            raise
        report({"failed": reason(error)} | facts)


def _await(path: Path) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while not path.exists() and monotonic() < deadline:
        sleep(0.5)


def reason(error: BaseException | None) -> str:
    """Return the root cause of what Ray raised for a trial, in a line."""
    if error is None:
        return "ended without saying why"
    error = _root(error)
    if lacked := lack(error):
        return lacked
    name, lines = type(error).__name__, str(error).strip().splitlines()
    if not lines:
        return name
    said = lines[-1]
    if type(error).__module__.startswith("torch"):  # ends with advice to its developers
        said = next((line for line in lines if not line.endswith(":")), said)
    return f"{name}: {said.strip()}"


def _root(error: BaseException) -> BaseException:
    """Return what Ray wrapped."""
    *_, root = chain(error, ["cause"])
    return root


def gave_up(trial: tune.experiment.Trial) -> str:
    """Return why Tune gave a trial up, in a line."""
    # Read where they are written: Tune's own reader knows only of what it has copied from there.
    # The error itself it keeps if Ray raised it for an actor or a task, and of others the text.
    said = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    last = said.rpartition("Failure # ")[2]
    if lacked := lack(last):
        return lacked
    if trial.pickled_error_file:
        return reason(cloudpickle.loads(Path(trial.pickled_error_file).read_bytes()))
    return reason(RuntimeError(last) if last else None)


def _resources(placement: Placement) -> dict[str, float]:
    needs = {"CPU": placement.cpus_per_worker, "GPU": placement.gpus_per_worker}
    return {kind: amount for kind, amount in needs.items() if amount}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
