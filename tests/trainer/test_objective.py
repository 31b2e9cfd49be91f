"""The loss and the metrics against the plainest code that says the same."""

import math

import pytest
import torch
import torch.nn.functional as F

from nnclr_study.trainer.objective import (
    contrastive_accuracy,
    contrastive_loss,
    correlation_accuracy,
    straight_through,
)


@pytest.fixture
def four():
    torch.manual_seed(1)
    return [F.normalize(torch.randn(6, 4, dtype=torch.double)) for _ in range(4)]


def test_the_loss_is_the_mean_over_four_blocks_of_the_batch(four):
    n1, n2, z1, z2 = four

    def naive(anchor, others):
        total = 0.0
        for i in range(len(anchor)):
            scores = [math.exp(float(anchor[i] @ other) / 0.2) for other in others]
            total -= math.log(scores[i] / sum(scores))
        return total

    blocks = [naive(n1, z2), naive(z2, n1), naive(n2, z1), naive(z1, n2)]
    assert contrastive_loss(n1, n2, z1, z2, 0.2, 4).item() == pytest.approx(sum(blocks) / 24)


def test_perfect_neighbours_of_a_cold_loss_cost_nothing():
    eye = torch.eye(5)
    assert contrastive_loss(eye, eye, eye, eye, 0.01, 4).item() == pytest.approx(0, abs=1e-6)
    flat = torch.ones(5, 5) / 5**0.5
    assert contrastive_loss(flat, flat, flat, flat, 0.1, 4).item() == pytest.approx(math.log(5))


def test_straight_through_has_the_neighbour_s_value_and_the_projection_s_gradient():
    z = torch.tensor([1.0, 2.0], requires_grad=True)
    n = torch.tensor([5.0, 7.0], requires_grad=True)
    out = straight_through(z, n)
    assert out.tolist() == [5.0, 7.0]
    (out * torch.tensor([3.0, 4.0])).sum().backward()
    assert z.grad.tolist() == [3.0, 4.0]
    assert n.grad is None


def test_contrastive_accuracy_counts_both_directions(four):
    f1, f2 = four[:2]
    similarity = torch.tensor([[F.cosine_similarity(a, b, dim=0) for b in f2] for a in f1])
    hits = sum(int(row.argmax() == i) for i, row in enumerate(similarity))
    hits += sum(int(column.argmax() == i) for i, column in enumerate(similarity.T))
    assert contrastive_accuracy(3 * f1, f2).item() == pytest.approx(hits / 12)
    assert contrastive_accuracy(f1, f1).item() == 1


def test_correlation_accuracy_is_of_features_not_of_images():
    torch.manual_seed(0)
    f = torch.randn(50, 7)
    assert correlation_accuracy(f, 2 * f + 3).item() == 1
    assert correlation_accuracy(f, f.roll(1, dims=1)).item() == 0
    noise = f + torch.randn_like(f) * 3
    correlation = torch.corrcoef(torch.cat([f, noise], 1).T)[:7, 7:]
    hits = (correlation.argmax(1) == torch.arange(7)).sum()
    hits += (correlation.argmax(0) == torch.arange(7)).sum()
    assert correlation_accuracy(f, noise).item() == pytest.approx(hits.item() / 14)


@pytest.mark.parametrize("dead", [0, 3])
def test_a_dead_feature_correlates_with_nothing(dead):
    torch.manual_seed(0)
    f = torch.randn(50, 7)
    f[:, dead] = 0
    assert correlation_accuracy(f, f).item() == pytest.approx(6 / 7)
    assert correlation_accuracy(torch.zeros(50, 7), torch.zeros(50, 7)).item() == 0
