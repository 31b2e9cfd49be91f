"""What a cluster has, and how many trials at once that makes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nnclr_study.errors import ClusterError, UsageError

Runner = Literal["train", "in-process"]
Node = Mapping[str, float]
"""What one node has, as Ray counts it: `{"CPU": 8, "GPU": 2, ...}`."""

SMALLEST_SHARE = 1e-4
"""Of a GPU: Ray counts no finer."""
DRIVER_CPUS = 0.1
"""Of a TorchTrainer's driver, which only waits for its workers."""


@dataclass(frozen=True)
class Demand:
    """What a user asks of a cluster for each trial; None: what the cluster suggests."""

    runner: Literal["auto", "train", "in-process"] = "auto"
    workers: int | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None


@dataclass(frozen=True)
class Placement:
    """How every trial of a study runs on a cluster."""

    runner: Runner
    workers: int
    gpus_per_worker: float
    max_concurrent: int

    @property
    def driver_cpus(self) -> float:
        """What the driver of a trial takes, out of its workers' share."""
        return DRIVER_CPUS if self.runner == "train" else 0.0

    @property
    def cpus_per_worker(self) -> float:
        """A CPU, less what the driver takes: so drivers can never starve workers of theirs."""
        return 1.0 - self.driver_cpus


def place(demand: Demand, nodes: Sequence[Node]) -> Placement:
    """Return how trials run on the nodes of a cluster.

    A trial on a whole GPU or with several workers is a TorchTrainer; a smaller one runs in
    Tune's own process, which starts in a tenth of the time.

    Raises:
        UsageError: the demand contradicts itself.
        ClusterError: not a single trial fits.
    """
    gpus_there = sum(node.get("GPU", 0) for node in nodes)
    gpus = demand.gpus_per_trial
    if gpus is None:
        gpus = float(demand.workers or 1) if gpus_there else 0.0
    if not (gpus == 0 or SMALLEST_SHARE <= gpus < math.inf):
        raise UsageError(
            f"--gpus-per-trial {gpus:g}: use 0 for CPUs only, a share of a GPU from "
            f"{SMALLEST_SHARE:g} on, or a number of GPUs"
        )
    workers = demand.workers or max(1, math.ceil(gpus))
    per_worker = gpus / workers
    if per_worker > 1:
        whole_gpus = math.ceil(gpus)
        rounded = "" if gpus == whole_gpus else f" --gpus-per-trial {whole_gpus}"
        raise UsageError(
            f"--gpus-per-trial {gpus:g} with --workers {workers}: a worker uses one GPU; "
            f"use --workers {whole_gpus}{rounded}"
        )
    if workers > 1 and 0 < per_worker < 1:
        raise UsageError(
            f"--gpus-per-trial {gpus:g} with {workers} workers: several workers need a whole GPU "
            "each, since NCCL refuses two on one card; use "
            f"--gpus-per-trial {workers}, or --workers {max(1, math.floor(gpus))}"
            + (f" --gpus-per-trial {math.floor(gpus)}" if gpus > 1 else "")
        )
    whole = workers > 1 or per_worker == 1
    runner: Runner = (
        demand.runner if demand.runner != "auto" else ("train" if whole else "in-process")
    )
    if runner == "in-process" and workers > 1:
        raise UsageError(
            f"--runner in-process holds one worker, not {workers}; use --runner train"
        )
    slots = sum(_slots(node, per_worker) for node in nodes) // workers
    if slots == 0:
        there = f"{sum(node.get('CPU', 0) for node in nodes):g} CPUs, {gpus_there:g} GPUs"
        raise ClusterError(
            f"the cluster cannot hold one trial of {workers} worker(s) with a CPU and "
            f"{per_worker:g} GPU each: it has {there} on {len(nodes)} node(s); "
            "ask for less with --gpus-per-trial or --workers, or join another with --address"
        )
    return Placement(runner, workers, per_worker, min(slots, demand.max_concurrent or slots))


def _slots(node: Node, gpus_per_worker: float) -> int:
    """Return how many workers a node holds; a part of a GPU never spans two of them."""
    tolerance = 1e-9
    by_cpu = math.floor(node.get("CPU", 0) + tolerance)
    if gpus_per_worker == 0:
        return by_cpu
    on_each = math.floor(1 / gpus_per_worker + tolerance)
    return min(by_cpu, math.floor(node.get("GPU", 0)) * on_each)
