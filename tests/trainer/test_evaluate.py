"""The fresh linear probe against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from nnclr_study.trainer.evaluate import CHUNK, LinearProbe, encode
from nnclr_study.trainer.world import World


def blobs(count, dim, classes, seed, spread=2.0):
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, dim))
    labels = generator.integers(0, classes, count)
    return centres[labels] + spread * generator.normal(size=(count, dim)) + 5, labels


@pytest.mark.parametrize("count, dim, classes", [(250, 32, 10), (60, 100, 3), (2_000, 20, 5)])
def test_it_is_scikit_learn_s_to_the_digit(count, dim, classes):
    features, labels = blobs(count, dim, classes, seed=1)
    features[:, 0] = 7  # a dead feature
    unseen, unseen_labels = blobs(1_000, dim, classes, seed=2)
    unseen[:, 0] = 7
    scaler = StandardScaler().fit(features)
    theirs = LogisticRegression(C=1, tol=1e-8, max_iter=10_000)
    theirs.fit(scaler.transform(features), labels)
    ours = LinearProbe(torch.tensor(features), torch.tensor(labels), classes)
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


def test_a_class_without_examples_does_no_harm():
    features, labels = (torch.tensor(array) for array in blobs(100, 8, 3, seed=3, spread=0.1))
    probe = LinearProbe(features, labels, num_classes=10)
    assert probe.top1(features, labels) == 1


def test_encode_goes_through_all_images_in_order():
    images = torch.randint(0, 256, (2 * CHUNK + 3, 3, 2, 2), dtype=torch.uint8)
    features = encode(nn.Flatten(), images, World())
    assert torch.equal(features, images.flatten(1).float() / 255)
    assert not features.requires_grad
