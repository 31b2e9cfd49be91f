"""Any number of workers: the same trial. Real processes over gloo."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from nnclr_study.trainer import checkpoint
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
    """Train the trials with all workers, then again with one fewer, and keep what came of them.

    The fewer also go on from where the more were after an epoch.
    """
    torch.set_num_threads(1)
    for size, port in ports.items():
        if rank >= size:
            continue
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
        world = World.joined(CPU)
        for name, trial in trials.items():
            data, saved = load_dataset(trial, folder), folder / f"{name}-{size}.safetensors"
            *_, last = kept_first(train(trial, data, world), saved, rank)
            torch.save((last.rows, last.tensors), folder / f"{name}-{size}-{rank}.pt")
            more = checkpoint.load(folder / f"{name}-{size + 1}.safetensors")
            if more is not None:
                *_, last = train(trial, data, world, more)
                torch.save((last.rows, last.tensors), folder / f"{name}-{size}-{rank}-on.pt")
        torch.save([steps(world, **kind) for kind in KINDS], folder / f"steps-{size}-{rank}.pt")
        dist.destroy_process_group()


def kept_first(snapshots, path, rank):
    """Yield snapshots; the first is saved."""
    for snapshot in snapshots:
        if rank == 0 and len(snapshot.rows) == 1:
            checkpoint.save(snapshot, path)
        yield snapshot


PLAIN = {"count": 20, "dtype": torch.float32, "knobs": {"predictor_width": 6}}
# In double precision: batch norm of nearly constant channels blows rounding up a thousandfold,
# so that in single precision no tolerance would tell a wrong sum from a rounded one.
NORMED = {
    "count": 20,
    "dtype": torch.float64,
    "knobs": {"encoder": "resnet18", "width": 4, "head_batch_norm": True, "predictor_width": 6},
}
KINDS = (PLAIN, NORMED)


def steps(world, count, dtype, knobs):
    """Take some steps; return what there was after the first, and after the last.

    Losses, metrics, gradients, weights, moments and queue, by name.
    """
    trial = config(labelled_batch_size=7, **knobs)
    learner = Learner(trial, 32, 10, world)
    learner.network.to(dtype)
    learner.support.bank_QD = learner.support.bank_QD.to(dtype)
    generator, seen = torch.Generator().manual_seed(0), []
    shape, own = (2, trial.global_batch, 3, 32, 32), world.rows(trial.global_batch)
    for step in range(count):
        views = torch.rand(shape, generator=generator, dtype=torch.double).to(dtype)
        metrics = learner.contrastive_step(*views[:, own], torch.arange(7))
        if step in (0, count - 1):
            grads = {f"grad {n}": p.grad for n, p in learner.network.named_parameters()}
            state = {name: t.clone() for name, t in learner.state_dict().items()}
            seen.append(metrics | {n: g.clone() for n, g in grads.items()} | state)
    return seen


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
    everything = {
        "neighbours": 3,
        "pushed_views": 2,
        "encoder_momentum": 0.9,
        "micro_batches": 3,
        "predictor_width": 6,
        "aug_recipe": "simclr",
    }
    knobs = {"simclr": {"queue_size": 0}, "queue": {}, "everything": everything}
    trials = {
        name: config(labelled_batch_size=7, epochs=2, **changed) for name, changed in knobs.items()
    }
    mp.spawn(work, ({3: free_port(), 2: free_port()}, tmp_path, trials), nprocs=3)
    ranks = ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
    for name, trial in trials.items():
        data = load_dataset(trial, tmp_path)
        *_, alone = train(trial, data, World())
        runs = [tmp_path / f"{name}-{size}-{rank}.pt" for size, rank in ranks]
        went_on = [tmp_path / f"{name}-2-{rank}-on.pt" for rank in (0, 1)]
        seen = [torch.load(path, weights_only=False) for path in runs + went_on]
        *_, last = train(trial, data, World(), checkpoint.load(tmp_path / f"{name}-2.safetensors"))
        for rows, tensors in [*seen, (last.rows, last.tensors)]:
            same_rows(rows, alone.rows)
            same_tensors(tensors, alone.tensors, 1e-4)
    for kind, want in enumerate(steps(World(), **kind) for kind in KINDS):
        for size, rank in ranks:
            got = torch.load(tmp_path / f"steps-{size}-{rank}.pt")[kind]
            for ours, theirs, tolerance in zip(got, want, (1e-5, 1e-4), strict=True):
                assert len(theirs) > 30
                same_tensors(ours, theirs, tolerance)


def same_rows(ours, theirs):
    for mine, row in zip(ours, theirs, strict=True):
        for metric in ("c_loss", "c_acc", "r_acc", "p_loss", "p_acc", "val_p_loss"):
            assert getattr(mine, metric) == pytest.approx(getattr(row, metric), abs=1e-4), metric
        for metric in SCORES + OF_A_QUEUE:
            assert getattr(mine, metric) == pytest.approx(getattr(row, metric), abs=1e-3), metric


def same_tensors(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        largest = max(1.0, float(tensor.abs().max()))
        assert torch.allclose(ours[key], tensor, rtol=0, atol=tolerance * largest), key
