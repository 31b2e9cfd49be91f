"""The gallery against a plain list of what was pushed, and on its way to the run folder."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from nnclr_study.sweep import trial as running
from nnclr_study.trainer import augment, checkpoint, gallery
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.support_set import SupportSet
from nnclr_study.trainer.world import CPU, World
from tests.trainer.test_loop import config, rows
from tests.trainer.test_loop import digits as digits
from tests.trainer.test_world import free_port


def last(trial, data, resume=None):
    *_, snapshot = train(trial, data, World(), resume)
    return snapshot


@pytest.fixture
def pushed(monkeypatch):
    """Return a list to which a trial adds each row that it queues, with image and label."""
    seen, kept = [], []
    apply, push = augment.apply, SupportSet.push

    def looking(images, view, *precision):
        seen.append(images.clone())
        return apply(images, view, *precision)

    def listing(self, rows, labels):
        # The step's views are the only ones since the last probe's.
        images = torch.cat(seen[-2:])[: len(rows)]
        kept[:0] = list(zip(rows.detach().clone(), images, labels.tolist(), strict=True))
        del kept[len(self.bank_QD) :]
        push(self, rows, labels)

    monkeypatch.setattr(augment, "apply", looking)
    monkeypatch.setattr(SupportSet, "push", listing)
    return kept


TRIALS = {
    "pushed over and over": {"queue_size": 70, "epochs": 2},
    "both views": {"queue_size": 150, "epochs": 3, "pushed_views": 2},
    "no multiple of the batch": {"queue_size": 77, "batch_size": 23, "labelled_batch_size": 6},
    "larger than what was pushed": {"queue_size": 300, "epochs": 2},
    "larger, both views": {"queue_size": 500, "epochs": 2, "pushed_views": 2},
    "just full": {"queue_size": 192, "epochs": 2},
    "many passes": {"epochs": 2, "steps_per_epoch": 20, "batch_size": 100, "queue_size": 1_111},
    "a slower network's": {"queue_size": 100, "epochs": 2, "encoder_momentum": 0.7},
}


@pytest.mark.parametrize("knobs", TRIALS.values(), ids=TRIALS)
def test_behind_each_row_stands_the_image_that_was_pushed(digits, pushed, knobs):
    trial = config(**knobs)
    tensors = last(trial, digits).tensors
    bank, head = tensors["support/bank_QD"], int(tensors["support/head"])
    pushes = int(tensors["support/pushes"])
    assert len(pushed) == min(trial.queue_size, pushes * trial.pushed_views * trial.global_batch)
    behind = gallery.queued(torch.arange(len(pushed)), pushes, trial, digits)
    images, labels = gallery._look_at(behind, digits)
    for place, (row, image, label) in enumerate(pushed):
        assert torch.equal(bank[(head + place) % len(bank)], row)
        assert torch.equal(images[place], image)
        assert labels[place] == (None if label < 0 else label)
    assert {None} < set(labels)


@pytest.mark.parametrize("knobs", TRIALS.values(), ids=TRIALS)
def test_the_nearest_are_those_of_a_plain_list(digits, pushed, knobs):
    trial = config(**knobs)
    snapshot = last(trial, digits)
    learner = Learner(trial, digits.side, digits.num_classes, World())
    learner.load_state_dict(snapshot.tensors)
    network = (learner.slow or learner.network).eval()
    found = gallery.retrieve(snapshot, digits, CPU)
    assert len(found) == gallery.QUERIES
    for retrieved in found:
        query, *neighbours = retrieved.images
        with torch.no_grad():
            (projection,), _ = network(*query.expand(2, 1, 3, 32, 32) / 255).projections
        entries = sorted(pushed, key=lambda entry: -float(projection @ entry[0]))[:5]
        cosines = [float(projection @ row) for row, _, _ in entries]
        assert retrieved.similarities == pytest.approx(cosines, abs=1e-5)
        for neighbour, label, (_, image, known) in zip(
            neighbours, retrieved.neighbours, entries, strict=True
        ):
            assert torch.equal(neighbour, image)
            assert label == (None if known < 0 else known)


@pytest.mark.parametrize(
    "knobs",
    [
        {"precision": "bf16"},
        {"encoder": "resnet18", "width": 4, "head_batch_norm": True, "predictor_width": 6},
        {"encoder": "resnet18", "width": 4, "head_batch_norm": True, "encoder_momentum": 0.9},
    ],
    ids=str,
)
def test_queries_are_projected_by_the_network_whose_projections_are_queued(digits, knobs):
    trial = config(epochs=1, **knobs)
    snapshot = last(trial, digits)
    learner = Learner(trial, digits.side, digits.num_classes, World())
    learner.load_state_dict(snapshot.tensors)
    network = (learner.slow or learner.network).eval()
    images = digits.val.images[:9]
    with torch.no_grad():
        want = network(*(2 * [images.float() / 255])).projections[0]
        got = gallery._project(snapshot, images)
    tolerance = 0.02 if trial.precision == "bf16" else 1e-5
    assert torch.allclose(got, want, rtol=0, atol=tolerance)
    assert not torch.allclose(got[:-1], want[1:], rtol=0, atol=tolerance)


def test_queries_are_spread_over_the_classes_and_the_same_in_every_trial(digits):
    first, second = (
        gallery.retrieve(last(config(epochs=1, **knobs), digits), digits, CPU)
        for knobs in ({}, {"seed": 6, "queue_size": 200, "width": 4})
    )
    labels = [retrieved.label for retrieved in first]
    assert labels == sorted(labels)
    assert len(set(labels)) == 8
    images = digits.val.images[:]
    for ours, theirs in zip(first, second, strict=True):
        query = ours.images[0]
        assert torch.equal(query, theirs.images[0])
        shown = [n for n in range(len(images)) if torch.equal(images[n], query)]
        assert ours.label in digits.val.labels[shown].tolist()
    few = gallery._spread(torch.tensor([1, 0, 1]))
    assert few.tolist() == [1, 0, 2], "no more than there are"


def test_an_unlabelled_image_that_is_a_train_image_has_its_label(digits):
    data = replace(digits, unlabelled=digits.train.images)
    trial = config(epochs=2)
    found = gallery.retrieve(last(trial, data), data, CPU)
    images = digits.train.images[:]
    for retrieved in found:
        for image, label in zip(retrieved.images[1:], retrieved.neighbours, strict=True):
            shown = [n for n in range(len(images)) if torch.equal(images[n], image)]
            assert label in digits.train.labels[shown].tolist()


@pytest.mark.parametrize("side, shown", [(32, 32), (48, 48), (80, 48)])
def test_the_files_hold_the_images_and_what_is_known_of_them(tmp_path, side, shown):
    trial = config(image_size=side, epochs=1)
    data = load_dataset(trial, tmp_path)
    snapshot = last(trial, data)
    png, about = gallery.write_gallery(snapshot, data, CPU, tmp_path / "gallery", "trial")
    assert sorted(p.name for p in png.parent.iterdir()) == ["trial.json", "trial.png"]
    found = gallery.retrieve(snapshot, data, CPU)
    told = json.loads(about.read_text())
    assert told["side"] == shown
    sprite = np.asarray(Image.open(png))
    assert sprite.shape == (8 * shown, 6 * shown, 3)
    for row, (retrieved, line) in enumerate(zip(found, told["rows"], strict=True)):
        assert line["label"] == retrieved.label
        assert line["neighbours"] == retrieved.neighbours
        assert line["similarities"] == pytest.approx(retrieved.similarities, abs=1e-4)
        assert line["similarities"] == sorted(line["similarities"], reverse=True)
        for column, image in enumerate(retrieved.images):
            picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            cell = sprite[row * shown : (row + 1) * shown, column * shown : (column + 1) * shown]
            assert np.array_equal(cell, np.asarray(picture.resize((shown, shown))))
            if side == shown:
                assert np.array_equal(cell, image.permute(1, 2, 0).numpy())


def test_a_queue_with_fewer_rows_than_places_leaves_them_white(digits, tmp_path):
    trial = config(batch_size=2, labelled_batch_size=1, queue_size=3, epochs=1)
    png, about = gallery.write_gallery(last(trial, digits), digits, CPU, tmp_path, "few")
    sprite = np.asarray(Image.open(png))
    assert sprite.shape == (256, 192, 3)
    assert (sprite[:, 128:] == 255).all()
    assert sprite[:, 96:128].min() < 255
    assert [len(row["similarities"]) for row in json.loads(about.read_text())["rows"]] == [3] * 8


def test_looking_changes_no_row_of_the_training(digits):
    trial = config(neighbours=3, encoder="resnet18", width=4, encoder_momentum=0.9)
    undisturbed = rows(train(trial, digits, World()))

    def looked_at():
        for snapshot in train(trial, digits, World()):
            assert gallery.retrieve(snapshot, digits, CPU)
            yield snapshot

    assert rows(looked_at()) == undisturbed


class Twin:
    """A store that keeps what it is given."""

    def __init__(self):
        self.files = {}

    def get(self, name, path):
        return path.exists()

    def put(self, path, name):
        self.files[name] = path.read_bytes()


def run(trial, base, world=None, store=None):
    """Run a trial as Tune would; return which files there were when an epoch was reported."""
    job = SimpleNamespace(
        checkpoints=base / "checkpoints", data=base, images=[], store=store, placement=None
    )
    there = []

    def report(told):
        assert "failed" not in told
        files = sorted(p.name for p in (base / "gallery").glob("*"))
        there.append((json.loads(told["row"])["epoch"], files))

    running._run(
        {"trial_id": "t", "config": trial.model_dump_json()}, job, world or World(), report
    )
    return there


BOTH = ["t.json", "t.png"]


def test_a_trial_has_its_gallery_before_its_last_epoch_is_reported(tmp_path):
    store = Twin()
    told = run(config(epochs=3), tmp_path, store=store)
    assert told == [(1, []), (2, []), (3, BOTH)]
    files = {name: (tmp_path / "gallery" / name).read_bytes() for name in BOTH}
    sent = {n: content for n, content in store.files.items() if n.startswith("gallery/")}
    assert sent == {f"gallery/{name}": content for name, content in files.items()}


def test_resumed_after_its_last_epoch_it_has_the_same_gallery(tmp_path):
    trial = config(epochs=2, encoder="resnet18", width=4, encoder_momentum=0.9)
    run(trial, tmp_path)
    files = [tmp_path / "gallery" / name for name in BOTH]
    content = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert run(trial, tmp_path) == [(1, BOTH), (2, BOTH)]
    assert [file.read_bytes() for file in files] == content


def test_resumed_before_its_last_epoch_it_has_the_same_gallery(tmp_path):
    trial = config(epochs=3)
    run(trial, tmp_path)
    content = [(tmp_path / "gallery" / name).read_bytes() for name in BOTH]
    killed = tmp_path / "killed"
    first = next(train(trial, load_dataset(trial, tmp_path), World()))
    checkpoint.save(first, killed / "checkpoints" / "t.safetensors")
    assert run(trial, killed) == [(1, []), (2, []), (3, BOTH)]
    assert [(killed / "gallery" / name).read_bytes() for name in BOTH] == content


def test_one_worker_writes_and_without_a_queue_none(tmp_path):
    run(config(epochs=1, queue_size=0), tmp_path / "simclr")
    assert not (tmp_path / "simclr" / "gallery").exists()
    trial = config(epochs=1)
    run(trial, tmp_path)
    for name in BOTH:
        (tmp_path / "gallery" / name).unlink()
    assert run(trial, tmp_path, World(rank=1, size=2)) == [(1, [])]


def joined(rank, port, trial, base):
    """Run a trial as one of two workers."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    run(trial, base, World.joined(CPU))
    dist.destroy_process_group()


def test_two_workers_retrieve_what_one_retrieves(tmp_path):
    # 24 + 7 images do not divide by 2.
    trial = config(labelled_batch_size=7, epochs=2, pushed_views=2, encoder_momentum=0.9)
    run(trial, tmp_path / "alone")
    mp.spawn(joined, (free_port(), trial, tmp_path / "both"), nprocs=2)
    alone, both = (tmp_path / name / "gallery" for name in ("alone", "both"))
    assert (alone / "t.png").read_bytes() == (both / "t.png").read_bytes()
    ours, theirs = (json.loads((f / "t.json").read_text())["rows"] for f in (both, alone))
    for mine, row in zip(ours, theirs, strict=True):
        assert mine["neighbours"] == row["neighbours"]
        assert mine["similarities"] == pytest.approx(row["similarities"], abs=1e-3)
