"""The fresh linear probe and the nearest neighbours against scikit-learn's."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from nnclr_study.trainer import augment, encoder, evaluate
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.evaluate import (
    PROBE_CS,
    LinearProbe,
    encode,
    images_at_once,
    knn_top1,
)
from nnclr_study.trainer.gallery import retrieve
from nnclr_study.trainer.images import Images
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.network import embed
from nnclr_study.trainer.protocols import Subject, score
from nnclr_study.trainer.world import CPU, World
from tests.trainer.test_loop import config


def blobs(count, dim, classes, seed, spread=2.0):
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, dim))
    labels = generator.integers(0, classes, count)
    return centres[labels] + spread * generator.normal(size=(count, dim)) + 5, labels


@pytest.mark.parametrize("C", [1, 0.01])
@pytest.mark.parametrize("count, dim, classes", [(250, 32, 10), (60, 100, 3), (2_000, 20, 5)])
def test_it_is_scikit_learn_s_to_the_digit(count, dim, classes, C):
    features, labels = blobs(count, dim, classes, seed=1)
    features[:, 0] = 7  # a dead feature
    unseen, unseen_labels = blobs(1_000, dim, classes, seed=2)
    unseen[:, 0] = 7
    scaler = StandardScaler().fit(features)
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=10_000)
    theirs.fit(scaler.transform(features), labels)
    ours = LinearProbe(torch.tensor(features), torch.tensor(labels), classes, C)
    weight = ours._weight.detach().numpy()
    # Softmax knows weights up to a constant over the classes.
    centred = [w - w.mean(0) for w in (weight, theirs.coef_)]
    assert np.abs(centred[0] - centred[1]).max() < 1e-3
    score = theirs.score(scaler.transform(unseen), unseen_labels)
    assert ours.top1(torch.tensor(unseen), torch.tensor(unseen_labels)) == pytest.approx(
        score, abs=0.002
    )


def test_the_same_features_give_the_same_probe():
    features, labels = (torch.tensor(array) for array in blobs(100, 8, 4, seed=3))
    one, other = (LinearProbe(features, labels, 4) for _ in range(2))
    assert torch.equal(one._weight, other._weight)


def test_where_a_fit_starts_is_not_where_it_ends():
    features, labels = (torch.tensor(array) for array in blobs(100, 8, 4, seed=3))
    near = LinearProbe(features, labels, 4, C=0.1)
    cold, warm = (LinearProbe(features, labels, 4, C=1, start=start) for start in (None, near))
    assert not torch.allclose(near._weight, cold._weight, atol=1e-2)
    assert torch.allclose(warm._weight, cold._weight, atol=1e-3)
    assert torch.equal(near._weight, LinearProbe(features, labels, 4, C=0.1)._weight)


def split_in_two(features, labels):
    features, labels = torch.tensor(features), torch.tensor(labels)
    half = len(labels) // 2
    return features[:half], labels[:half], features[half:], labels[half:]


def test_the_grid_goes_from_strong_to_weak_and_holds_scikit_learn_s_default():
    assert all(strong < weak for strong, weak in pairwise(PROBE_CS))
    assert 1 in PROBE_CS


def mostly_noise():
    """Few rows, many features that mean nothing: weights must be kept small."""
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    features = generator.normal(size=(400, 300))
    features[:, :20] += 0.5 * labels[:, None]
    return *split_in_two(features[100:], labels[100:]), 2


def hidden_in_a_small_difference():
    """The class is a small difference of two loud features: weights must be large."""
    generator = np.random.default_rng(0)
    labels = np.arange(4_000) % 2
    loud = generator.normal(size=4_000)
    features = np.stack(
        [loud, loud + 0.01 * (labels - 0.5) + 0.001 * generator.normal(size=4_000)]
    )
    return *split_in_two(features.T, labels), 2


@pytest.mark.parametrize(
    "data, good", [(mostly_noise, (0.001, 0.01)), (hidden_in_a_small_difference, (10,))]
)
def test_the_regularisation_that_suits_val_is_chosen(data, good):
    train, train_labels, val, val_labels, classes = data()
    cold = {C: LinearProbe(train, train_labels, classes, C) for C in PROBE_CS}
    top1 = {C: probe.top1(val, val_labels) for C, probe in cold.items()}
    chosen = LinearProbe.chosen(train, train_labels, val, val_labels, classes)
    assert chosen.C in good
    assert top1[chosen.C] == max(top1.values())
    assert chosen.top1(val, val_labels) == top1[chosen.C] > top1[1]


def test_of_equally_good_probes_the_most_regularised_is_chosen():
    train, train_labels, val, val_labels = split_in_two(*blobs(100, 8, 3, seed=3, spread=0.1))
    tops = [LinearProbe(train, train_labels, 3, C).top1(val, val_labels) for C in PROBE_CS]
    assert tops[0] < 1, "the strongest is too strong"
    assert tops[1:] == [1, 1, 1, 1]
    assert PROBE_CS[1] == LinearProbe.chosen(train, train_labels, val, val_labels, 3).C


def test_a_class_without_examples_does_no_harm():
    features, labels = (torch.tensor(array) for array in blobs(100, 8, 3, seed=3, spread=0.1))
    probe = LinearProbe(features, labels, num_classes=10)
    assert probe.top1(features, labels) == 1


def test_encode_goes_through_all_images_in_order(monkeypatch):
    monkeypatch.setitem(evaluate.CHUNK_VALUES, "cpu", 5 * 3 * 2 * 2)
    pixels = torch.randint(0, 256, (2 * 5 + 3, 3, 2, 2), dtype=torch.uint8)
    features = encode(nn.Flatten(), Images(pixels, torch.arange(13)), World())
    assert torch.equal(features, pixels.flatten(1).float() / 255)
    assert not features.requires_grad


@pytest.mark.parametrize("size", [2, 3])
def test_encode_goes_through_a_view_of_each_image_in_order(size, monkeypatch):
    monkeypatch.setitem(evaluate.CHUNK_VALUES, "cpu", 4 * 3 * 8 * 8)
    pixels = torch.randint(0, 256, (21, 3, 8, 8), dtype=torch.uint8)
    images = Images(pixels, torch.arange(21))
    recipe = augment.Recipe(crop_min_area=0.2, crop_max_aspect=1.3, brightness_shift=0.3)
    view = augment.draw(recipe, len(images), torch.Generator().manual_seed(0))
    want = augment.apply(pixels, view).flatten(1)
    assert torch.allclose(encode(nn.Flatten(), images, World(), view), want, atol=1e-6)
    # Each worker sees its own part of the same views.
    for rank in range(size):
        world = World(rank=rank, size=size)
        monkeypatch.setattr(World, "gather", lambda self, own, count: own)
        own = encode(nn.Flatten(), images, world, view)
        assert torch.allclose(own, want[world.rows(len(images))], atol=1e-6)


@pytest.mark.parametrize("count, dim, classes", [(400, 6, 5), (20, 3, 3), (7, 3, 2)])
def test_the_neighbours_vote_as_scikit_learn_s_do(count, dim, classes, monkeypatch):
    monkeypatch.setattr(evaluate, "KNN_CHUNK", 64)  # which 300 queries do not divide by
    features, labels = blobs(count, dim, classes, seed=1, spread=3.0)
    unseen, unseen_labels = blobs(300, dim, classes, seed=2, spread=3.0)
    theirs = KNeighborsClassifier(
        n_neighbors=min(20, count),
        metric="cosine",
        weights=lambda distance: np.exp((1 - distance) / 0.07),
    ).fit(features - 5, labels)
    want = theirs.score(unseen - 5, unseen_labels)
    arrays = (features - 5, labels, unseen - 5, unseen_labels)
    assert knn_top1(*map(torch.tensor, arrays), classes) == pytest.approx(want, abs=1e-9)
    assert 1 / classes < want < 1


def test_near_neighbours_outvote_many_far_ones():
    features = torch.tensor([[1.0, 0.0]] + [[0.0, 1.0]] * 19)
    labels = torch.tensor([1] + [0] * 19)
    query = torch.tensor([[5.0, 1.0]])
    assert knn_top1(features, labels, query, torch.tensor([1]), 2) == 1


def test_the_twentieth_neighbour_has_the_last_vote():
    angle = torch.tensor([0.0] * 9 + [0.1] * 10 + [0.11] + [0.12] * 5).double()
    labels = torch.tensor([1] * 9 + [0] * 10 + [1] + [0] * 5)
    features = torch.stack([angle.cos(), angle.sin()], 1)
    assert knn_top1(features, labels, features[:1], labels[:1], 2) == 1


@pytest.mark.parametrize("most, sizes", [(None, [11]), (4, [4, 4, 3]), (100, [11])])
def test_no_more_images_are_encoded_at_once_than_fit(most, sizes):
    seen = []

    class Watched(nn.Flatten):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images)

    pixels = torch.randint(0, 256, (11, 3, 2, 2), dtype=torch.uint8)
    features = encode(Watched(), Images(pixels, torch.arange(11)), World(), most=most)
    assert seen == sizes
    assert torch.equal(features, pixels.flatten(1).float() / 255)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("micro_batches", [1, 3, 16])
def test_what_fits_is_what_a_training_step_encodes_at_once(workers, micro_batches):
    knobs = {"encoder": "resnet18", "width": 4, "micro_batches": micro_batches}
    trial = config(batch_size=24, labelled_batch_size=8, **knobs)
    learner, seen = Learner(trial, side=32, num_classes=10, world=World()), []
    learner.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    views = torch.rand(2, 32, 3, 32, 32)[:, World(size=workers).rows(32)]
    with torch.no_grad():
        embed(learner.network.eval(), *views, micro_batches)
    assert images_at_once(trial, workers) == min(seen)


def test_evaluation_and_protocols_encode_no_more_at_once_than_training_did(tmp_path, monkeypatch):
    trial = config(epochs=1, batch_size=12, labelled_batch_size=4, micro_batches=2, queue_size=20)
    digits, seen = load_dataset(trial, tmp_path), []
    build = encoder.conv4

    def watched(*args):
        made = build(*args)
        made.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        return made

    monkeypatch.setattr(encoder, "conv4", watched)
    snapshot = next(train(trial, digits, World()))
    score("knn", Subject.of(snapshot), digits, World())
    retrieve(snapshot, digits, CPU)
    assert len(seen) > 3 * len(digits.val.labels) // 16
    assert max(seen) == 16
