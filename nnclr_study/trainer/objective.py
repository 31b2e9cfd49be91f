"""The contrastive loss of NNCLR and what is measured beside it."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def straight_through(projections_BD: Tensor, neighbours_BD: Tensor) -> Tensor:
    """Return the neighbours' values with the projections' gradient, as the Keras example does."""
    return projections_BD + (neighbours_BD - projections_BD).detach()


def contrastive_loss(
    positives1_BD: Tensor,
    positives2_BD: Tensor,
    projections1_BD: Tensor,
    projections2_BD: Tensor,
    temperature: float,
    blocks: Literal[2, 4],
) -> Tensor:
    """Return the mean of the cross entropies of neighbours against the other view.

    Two blocks: each view's neighbours against the other view's projections (arXiv
    2104.14548, eq. 4 and 5). Four: these and their transposes, as the Keras example has it;
    a product's transpose serves the second term, so two products make four blocks.
    """
    logits12_BB = positives1_BD @ projections2_BD.T / temperature
    logits21_BB = positives2_BD @ projections1_BD.T / temperature
    target_B = torch.arange(len(logits12_BB), device=logits12_BB.device)
    terms = [logits12_BB, logits21_BB]
    if blocks == 4:
        terms += [logits12_BB.T, logits21_BB.T]
    return torch.stack([F.cross_entropy(logits, target_B) for logits in terms]).mean()


def contrastive_accuracy(features1_BD: Tensor, features2_BD: Tensor) -> Tensor:
    """Return how often the other view of an image is nearest of all images, by cosine."""
    similarity_BB = F.normalize(features1_BD) @ F.normalize(features2_BD).T
    return _diagonal_wins(similarity_BB)


def correlation_accuracy(features1_BD: Tensor, features2_BD: Tensor) -> Tensor:
    """Return how often a feature correlates most with itself in the other view.

    A constant feature correlates with nothing, so it never counts as a hit.
    """
    correlation_DD = _standardise(features1_BD).T @ _standardise(features2_BD) / len(features1_BD)
    return _diagonal_wins(correlation_DD, floor=0.0)


def _diagonal_wins(scores_NN: Tensor, floor: float = -torch.inf) -> Tensor:
    target_N = torch.arange(len(scores_NN), device=scores_NN.device)
    above_N = scores_NN.diagonal() > floor
    hits = [(scores.max(1).indices == target_N) & above_N for scores in (scores_NN, scores_NN.T)]
    return torch.cat(hits).float().mean()


def _standardise(features_BD: Tensor) -> Tensor:
    std_D = features_BD.std(0, correction=0)
    return (features_BD - features_BD.mean(0)) / torch.where(std_D > 0, std_D, torch.inf)
