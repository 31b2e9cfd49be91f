"""What fits a cluster, without starting one."""

import pytest

from nnclr_study.errors import ClusterError, UsageError
from nnclr_study.sweep.resources import Demand, place

LAPTOP = [{"CPU": 2}]
STATION = [{"CPU": 16, "GPU": 1}]
CLUSTER = [{"CPU": 1}, {"CPU": 4, "GPU": 2}, {"CPU": 4, "GPU": 2}]


@pytest.mark.parametrize(
    "nodes, demand, runner, workers, gpus, at_a_time",
    [
        (LAPTOP, Demand(), "in-process", 1, 0, 2),
        (LAPTOP, Demand(runner="train"), "train", 1, 0, 2),
        (LAPTOP, Demand(workers=2), "train", 2, 0, 1),
        (LAPTOP, Demand(max_concurrent=1), "in-process", 1, 0, 1),
        (LAPTOP, Demand(max_concurrent=9), "in-process", 1, 0, 2),
        (STATION, Demand(), "train", 1, 1, 1),
        (STATION, Demand(runner="in-process"), "in-process", 1, 1, 1),
        (STATION, Demand(gpus_per_trial=0.25), "in-process", 1, 0.25, 4),
        (STATION, Demand(gpus_per_trial=0.1), "in-process", 1, 0.1, 10),
        (STATION, Demand(gpus_per_trial=0), "in-process", 1, 0, 16),
        (CLUSTER, Demand(), "train", 1, 1, 4),
        (CLUSTER, Demand(gpus_per_trial=0.5), "in-process", 1, 0.5, 8),
        (CLUSTER, Demand(gpus_per_trial=0.3), "in-process", 1, 0.3, 8),
        (CLUSTER, Demand(workers=2), "train", 2, 1, 2),
        (CLUSTER, Demand(gpus_per_trial=3), "train", 3, 1, 1),
        (CLUSTER, Demand(gpus_per_trial=0, workers=2), "train", 2, 0, 4),
        (CLUSTER, Demand(gpus_per_trial=0.5, runner="train"), "train", 1, 0.5, 8),
        (CLUSTER, Demand(gpus_per_trial=2, workers=2), "train", 2, 1, 2),
    ],
)
def test_trials_are_placed(nodes, demand, runner, workers, gpus, at_a_time):
    placed = place(demand, nodes)
    assert (placed.runner, placed.workers) == (runner, workers)
    assert placed.gpus_per_worker == pytest.approx(gpus)
    assert placed.max_concurrent == at_a_time


@pytest.mark.parametrize("runner", ["train", "in-process"])
@pytest.mark.parametrize("nodes", [LAPTOP, STATION, CLUSTER])
def test_drivers_and_workers_together_never_ask_for_more_than_there_is(nodes, runner):
    placed = place(Demand(runner=runner, gpus_per_trial=0), nodes)
    trial = placed.driver_cpus + placed.workers * placed.cpus_per_worker
    assert placed.max_concurrent * trial <= sum(node["CPU"] for node in nodes) + 1e-9


def test_more_gpus_than_workers_is_a_usage_error():
    with pytest.raises(UsageError, match="use --workers 2"):
        place(Demand(gpus_per_trial=2, workers=1), CLUSTER)


@pytest.mark.parametrize("nodes", [STATION, CLUSTER])
@pytest.mark.parametrize("runner", ["auto", "train", "in-process"])
@pytest.mark.parametrize(
    "gpus, workers, fixes",
    [
        (1, 2, ["--gpus-per-trial 2", "--workers 1"]),
        (0.5, 2, ["--gpus-per-trial 2", "--workers 1"]),
        (3, 4, ["--gpus-per-trial 4", "--workers 3 --gpus-per-trial 3"]),
        (1.5, 2, ["--gpus-per-trial 2", "--workers 1 --gpus-per-trial 1"]),
        (1.5, None, ["--gpus-per-trial 2", "--workers 1 --gpus-per-trial 1"]),
        (1.5, 1, ["--workers 2 --gpus-per-trial 2"]),
        (0.0001, 3, ["--gpus-per-trial 3", "--workers 1"]),
    ],
)
def test_workers_that_would_share_a_gpu_are_refused_with_a_fix(
    nodes, runner, gpus, workers, fixes
):
    with pytest.raises(UsageError) as caught:
        place(Demand(runner=runner, gpus_per_trial=gpus, workers=workers), nodes)
    said = str(caught.value)
    assert f"--gpus-per-trial {gpus:g}" in said
    for fix in fixes:
        assert fix in said
        words = fix.split()
        told = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        fixed = Demand(
            gpus_per_trial=told.get("--gpus-per-trial", gpus),
            workers=told.get("--workers", workers),
        )
        assert place(fixed, [{"CPU": 8, "GPU": 4}]).workers in (1, 2, 3, 4)


@pytest.mark.parametrize("gpus", [-1, float("nan"), float("inf"), 1e-5])
def test_a_number_of_gpus_that_ray_cannot_give_is_refused(gpus):
    with pytest.raises(UsageError, match=f"--gpus-per-trial {gpus:g}: use 0"):
        place(Demand(gpus_per_trial=gpus), STATION)


def test_several_workers_do_not_fit_one_process():
    with pytest.raises(UsageError, match="use --runner train"):
        place(Demand(runner="in-process", workers=2), CLUSTER)


@pytest.mark.parametrize(
    "nodes, demand",
    [
        (LAPTOP, Demand(gpus_per_trial=1)),
        (LAPTOP, Demand(workers=3)),
        (STATION, Demand(workers=2, gpus_per_trial=2)),
        ([{"GPU": 8}], Demand()),
    ],
)
def test_a_cluster_that_holds_no_trial_is_refused_with_what_it_has(nodes, demand):
    with pytest.raises(ClusterError, match=r"it has \d+ CPUs, \d+ GPUs on 1 node") as caught:
        place(demand, nodes)
    assert "--gpus-per-trial" in str(caught.value)
    assert caught.value.exit_code == 3
