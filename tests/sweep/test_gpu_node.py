"""Trials on nodes with GPUs, as far as a machine without one shows it."""

import os

import pytest
import ray
import torch

from nnclr_study.cli import main
from nnclr_study.errors import ClusterError
from nnclr_study.study.forecast import Pace
from nnclr_study.sweep import cluster, trial
from nnclr_study.sweep.memory import lack
from nnclr_study.sweep.resources import Demand, Placement
from nnclr_study.sweep.room import Room
from nnclr_study.sweep.trial import Job
from nnclr_study.trainer import pace, runtime
from nnclr_study.trainer.world import CPU, World
from tests.sweep.test_cluster import cluster as made_cluster
from tests.test_cli import QUICKSTART
from tests.trainer.test_loop import config

CARD = torch.device("cuda", 3)
LIMITED = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 59.69 GiB is free. Including non-PyTorch memory, this process has 19.41 GiB memory in "
    "use. {} allowed; Of the allocated memory 18.80 GiB is allocated by PyTorch."
)


@pytest.fixture
def node(monkeypatch):
    """Have torch see GPUs, as on any node with some."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def job(folder, gpus, runner="in-process", nccl=False):
    placement = Placement(runner, 1, gpus, 1)
    return Job(folder / "checkpoints", folder, [], placement, "", None, nccl)


@pytest.fixture
def worlds(monkeypatch):
    """Return the worlds in which trials run, which do nothing there."""
    seen = []
    monkeypatch.setattr(trial, "_run", lambda params, job, world, report: seen.append(world))
    monkeypatch.setattr(
        World, "joined", classmethod(lambda cls, *args: cls(args[0], 0, 2, args[1]))
    )
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: CARD)
    return seen


@pytest.mark.parametrize(
    "gpus, alone, joined, share",
    [
        (0, CPU, CPU, 1.0),
        (0.25, torch.device("cuda"), CARD, 0.25),
        (1.0, torch.device("cuda"), CARD, 1.0),
    ],
)
def test_the_placement_decides_the_device(node, worlds, tmp_path, gpus, alone, joined, share):
    trial.in_process({}, job(tmp_path, gpus))
    trial._worker({"job": job(tmp_path, gpus, "train")})
    assert [world.device for world in worlds] == [alone, joined]
    assert [world.gpu_share for world in worlds] == [share, share]


def test_a_gpu_that_is_only_declared_leaves_trials_on_the_cpu(worlds, tmp_path):
    trial.in_process({}, job(tmp_path, 0.5))
    trial._worker({"job": job(tmp_path, 0.5, "train")})
    assert {world.device for world in worlds} == {CPU}


def test_a_trial_without_a_gpu_trains_to_its_end_beside_one(node, monkeypatch, tmp_path):
    def touched(*_):
        raise AssertionError("CUDA was initialized")

    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    # torch's optimizers ask any GPU that they see for its stream; Ray hides it from the process.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: None)
    reports = []
    monkeypatch.setattr(trial.tune, "report", reports.append)
    params = {"trial_id": "one", "config": config(epochs=2).model_dump_json()}
    trial.in_process(params, job(tmp_path, 0))
    assert [report["device"] for report in reports] == ["CPU", "CPU"]
    assert "failed" not in reports[-1]
    assert pace.pace(config(), tmp_path, gpus=0).step_seconds > 0


@pytest.mark.parametrize(
    "flags, gpus",
    [
        ([], None),
        (["--node-cpus", "2"], 0.0),
        (["--node-cpus", "2", "--node-gpus", "1"], 1.0),
        (["--node-cpus", "2", "--node-gpus", "1", "--gpus-per-trial", "0"], 0.0),
        (["--node-cpus", "2", "--node-gpus", "1", "--gpus-per-trial", "0.25"], 0.25),
    ],
)
def test_a_forecast_is_measured_on_what_a_trial_will_have(monkeypatch, tmp_path, flags, gpus):
    asked = []

    def fake(config, data, gpus=None):
        asked.append(gpus)
        return Pace(0.1, 0.1, 1)

    monkeypatch.setattr(pace, "pace", fake)
    words = ["plan", str(QUICKSTART), "--measure", "--data", str(tmp_path)]
    assert main([*words, *flags]) == 0
    assert set(asked) == {gpus}


def test_a_real_gpu_that_torch_does_not_see_stops_the_study(monkeypatch, tmp_path):
    reports = []
    monkeypatch.setattr(trial.tune, "report", reports.append)
    params = {"trial_id": "one", "config": config().model_dump_json()}
    trial.in_process(params, job(tmp_path, 1.0, nccl=True))
    (told,) = reports
    assert isinstance(told["stops"], ClusterError)
    assert "torch sees no GPU" in str(told["stops"])


@pytest.mark.parametrize("device", [torch.device("cuda"), CARD])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_trial_takes_its_share_of_the_memory_and_leaves_nothing(monkeypatch, device, share):
    calls = []
    for name in ("set_per_process_memory_fraction", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *args, name=name: calls.append((name, *args)))
    runtime.limit_gpu_memory(device, share)
    # By index: torch refuses a device without one.
    limit = ("set_per_process_memory_fraction", share, device.index)
    assert calls == [limit, ("empty_cache",)]


def test_no_memory_is_limited_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *_: 1 / 0)
    runtime.limit_gpu_memory(CPU, 1.0)


def test_out_of_memory_tells_the_trial_s_share():
    assert "and the trial's share is 19.78 GiB" in lack(LIMITED.format("19.78 GiB"))
    assert "share" not in lack(LIMITED.format("79.11 GiB")), "the whole GPU is no share"


def test_nodes_that_come_and_go_do_not_change_what_a_trial_takes(monkeypatch):
    nodes = [{"CPU": 8}]
    monkeypatch.setattr("nnclr_study.sweep.room.resources", lambda: nodes)
    monkeypatch.setattr("nnclr_study.sweep.room.alive", lambda: [])
    monkeypatch.setattr("nnclr_study.sweep.room.ASK_AGAIN_SECONDS", -1)

    class Ready:
        def make(self, _):
            pass

    room = Room(Demand(), Placement("in-process", 1, 0.0, 8), Ready(), None)
    assert room() == 8
    nodes.append({"CPU": 2, "GPU": 1})
    assert room() == 10, "trials on CPUs do not wait for the GPU"
    room = Room(Demand(), Placement("train", 1, 1.0, 1), Ready(), None)
    assert room() == 1
    del nodes[1]
    assert room() == 0, "trials on GPUs do not go to nodes without"


@pytest.fixture
def no_settings(monkeypatch):
    for name in cluster.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("torch_version, name", [("2.8.1", 1), ("2.9.0", 0), ("2.14.1+cu130", 0)])
def test_the_allocator_of_trials_grows_its_segments(no_settings, monkeypatch, torch_version, name):
    monkeypatch.setattr(cluster, "version", lambda _: torch_version)
    given = cluster.environment()
    assert given.pop("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO") == "1"
    assert given == {cluster.ALLOCATOR[name]: "expandable_segments:True"}


@pytest.mark.parametrize("name", cluster.ALLOCATOR)
def test_what_the_user_has_set_stays(no_settings, monkeypatch, name):
    monkeypatch.setenv(name, "theirs")
    assert not set(cluster.ALLOCATOR) & set(cluster.environment())


def _seen():
    return {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", cluster.ALLOCATOR[0])}


@pytest.mark.ray
def test_processes_of_trials_see_their_own_gpus_and_no_others(no_settings, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    look = ray.remote(max_retries=0)(_seen)
    grows = {cluster.ALLOCATOR[0]: "expandable_segments:True"}
    with cluster.joined(None):
        assert ray.get(look.options(num_gpus=0).remote()) == {"CUDA_VISIBLE_DEVICES": ""} | grows
    assert not set(cluster.ALLOCATOR) & set(os.environ), "this process stays as it was"
    with made_cluster({"num_cpus": 1, "num_gpus": 2}) as made, cluster.joined(made.address):
        for gpus, shown in ((0, {""}), (0.5, {"0", "1"}), (1, {"0", "1"})):
            seen = ray.get(look.options(num_gpus=gpus).remote())
            assert seen["CUDA_VISIBLE_DEVICES"] in shown
            assert seen[cluster.ALLOCATOR[0]] == "expandable_segments:True"
