"""What features look like without labels: rank, spread and invariance, after five papers.

All in double precision; rows are (N, D) features, as the encoder returns them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

RANKME_EPSILON = 1e-7
UNIFORMITY_CHUNK = 128
"""Rows compared with all others at once: what that needs is to stay in the processor's cache."""


def rankme(features_ND: Tensor) -> Tensor:
    """Return the effective rank, 1 to min(N, D): RankMe (Garrido et al. 2023, arXiv 2210.02885).

    exp of the entropy of p = s / sum(s) + 1e-7 for the singular values s of the features,
    not centred. Features that are all 0 have rank 1.
    """
    values = torch.linalg.svdvals(features_ND.double())
    share = values / values.sum().clamp(min=torch.finfo(torch.double).tiny) + RANKME_EPSILON
    return torch.exp(-(share * share.log()).sum())


def alpha_req(features_ND: Tensor) -> float | None:
    """Return how fast the covariance spectrum decays: alpha-ReQ (Agrawal et al., NeurIPS 2022).

    alpha of eigenvalue_j ~ j**-alpha, by unweighted least squares of log eigenvalue on log j
    over all that are not zero: whose singular values pass `matrix_rank`'s bound, max(N, D)
    times the rounding error of the features' own precision (of the largest singular value or
    the largest feature). None for fewer than two.
    """
    features = features_ND.double()
    values = torch.linalg.svdvals(features - features.mean(0))
    rounding = max(features.shape) * torch.finfo(features_ND.dtype).eps
    # Of constant features only rounding is left, which must not be measured by itself.
    largest = torch.maximum(values.max(), features.abs().max())
    log_eigenvalue = 2 * values[values > rounding * largest].log()
    if len(log_eigenvalue) < 2:
        return None
    log_index = torch.arange(1, len(log_eigenvalue) + 1).to(log_eigenvalue).log()
    log_index -= log_index.mean()
    return float(-(log_index * log_eigenvalue).sum() / log_index.square().sum())


def alignment(features1_ND: Tensor, features2_ND: Tensor) -> Tensor:
    """Return how far two views lie apart, 0 to 4 (Wang & Isola 2020, arXiv 2005.10242).

    Mean of |x - y|**2 (alpha = 2) over pairs of views, normalised.
    """
    first, second = (F.normalize(features.double()) for features in (features1_ND, features2_ND))
    return (first - second).square().sum(1).mean()


def uniformity(features_ND: Tensor) -> Tensor:
    """Return how evenly rows fill the sphere, 0 on collapse (Wang & Isola 2020, 2005.10242).

    log of the mean of exp(-2 |x - y|**2) (t = 2) over pairs of different normalised rows.
    """
    rows = F.normalize(features_ND.double())
    square_N = rows.square().sum(1)
    total = torch.zeros_like(square_N[0])
    for start in range(0, len(rows), UNIFORMITY_CHUNK):
        own, later = slice(start, start + UNIFORMITY_CHUNK), slice(start, None)
        kernel = rows[own] @ rows[later].T
        kernel.mul_(4).sub_(2 * square_N[later]).sub_(2 * square_N[own, None]).exp_()
        # Pairs with later rows stand for both orders; those within the chunk are there in both.
        total += 2 * kernel.sum() - kernel[:, : len(rows[own])].sum()
    # Every row was compared with itself as well, at distance 0.
    return torch.log((total - len(rows)) / (len(rows) * (len(rows) - 1)))


def feature_std(features_ND: Tensor) -> Tensor:
    """Return the spread of the normalised rows (Chen & He 2021, arXiv 2011.10566, section 4.1).

    Mean over dimensions of the standard deviation over rows: 1 / sqrt(D) for rows spread
    over the whole sphere, 0 on collapse.
    """
    return F.normalize(features_ND.double()).std(0, correction=0).mean()
