"""Any number of workers: the same trial. Real processes over gloo."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.world import CPU, World
from tests.trainer.test_loop import config

SCORES = ("val_probe_top1", "probe_C", "val_knn_top1", "rankme", "alpha_req")
SCORES += ("alignment", "uniformity", "feature_std")
OF_A_QUEUE = ("nn_same_label", "nn_age", "queue_used")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def work(rank, ports, folder, trials):
    """Train the trials with all workers, then again with one fewer, and keep what came of them."""
    torch.set_num_threads(1)
    for size, port in ports.items():
        if rank >= size:
            continue
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
        for name, trial in trials.items():
            *_, last = train(trial, load_dataset(trial, folder), World.joined(CPU))
            torch.save((last.rows, last.tensors), folder / f"{name}-{size}-{rank}.pt")
        torch.save(batch_norm_steps(World.joined(CPU)), folder / f"norm-{size}-{rank}.pt")
        dist.destroy_process_group()


def batch_norm_steps(world):
    """Take three steps with batch norm everywhere; return losses, gradients, weights, queue.

    In double precision: batch norm of nearly constant channels blows rounding up a thousandfold,
    so that in single precision no tolerance would tell a wrong sum from a rounded one.
    """
    norm = {"encoder": "resnet18", "width": 4, "head_batch_norm": True, "predictor_width": 6}
    trial = config(labelled_batch_size=7, **norm)
    learner = Learner(trial, 32, 10, world)
    for module in (learner.encoder, learner.head, learner.predictor):
        module.double()
    learner.support.bank_QD = learner.support.bank_QD.double()
    generator, losses = torch.Generator().manual_seed(0), []
    shape, own = (2, trial.global_batch, 3, 32, 32), world.rows(trial.global_batch)
    for _ in range(3):
        views = torch.rand(shape, generator=generator, dtype=torch.double)
        losses.append(learner.contrastive_step(*views[:, own])["c_loss"])
    gradients = [p.grad for p in learner.encoder.parameters()]
    state = learner.state_dict()
    weights = {name: state[name] for name in sorted(state) if not name.startswith("probe")}
    return [*losses, *gradients, *weights.values()]


@pytest.mark.parametrize("count", [7, 8, 525])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_rows_are_dealt_out_whole_and_evenly(count, size):
    worlds = [World(rank=rank, size=size) for rank in range(size)]
    dealt = [range(count)[world.rows(count)] for world in worlds]
    assert [i for rows in dealt for i in rows] == list(range(count))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert all(worlds[0].rows(count, rank) == worlds[rank].rows(count) for rank in range(size))


def test_1_2_and_3_workers_train_the_same_trial(tmp_path):
    # 24 + 7 images do not divide by 2 or 3, so uneven shares are gathered too.
    trials = {q: config(queue_size=q, labelled_batch_size=7, epochs=2) for q in (0, 50)}
    mp.spawn(work, ({3: free_port(), 2: free_port()}, tmp_path, trials), nprocs=3)
    for name, trial in trials.items():
        *_, alone = train(trial, load_dataset(trial, tmp_path), World())
        for size, rank in ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2)):
            saved = tmp_path / f"{name}-{size}-{rank}.pt"
            rows, tensors = torch.load(saved, weights_only=False)
            for ours, theirs in zip(rows, alone.rows, strict=True):
                for metric in ("c_loss", "c_acc", "r_acc", "p_loss", "p_acc", "val_p_loss"):
                    want = getattr(theirs, metric)
                    assert getattr(ours, metric) == pytest.approx(want, abs=1e-4), metric
                for metric in SCORES + OF_A_QUEUE:
                    want = getattr(theirs, metric)
                    assert getattr(ours, metric) == pytest.approx(want, abs=1e-3), metric
            assert tensors.keys() == alone.tensors.keys()
            for key, tensor in alone.tensors.items():
                assert torch.allclose(tensors[key], tensor, atol=1e-4), f"{key}: {rank} of {size}"
    alone = batch_norm_steps(World())
    for size, rank in ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2)):
        shared = torch.load(tmp_path / f"norm-{size}-{rank}.pt")
        assert len(shared) == len(alone) > 100
        for ours, theirs in zip(shared, alone, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-7), f"{rank} of {size}"
