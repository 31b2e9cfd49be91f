"""Scores without labels: plain NumPy twins, and cases whose answer is known."""

import numpy as np
import pytest
import torch

from nnclr_study.trainer import scores


def naive_rankme(z):
    s = np.linalg.svd(z, compute_uv=False)
    p = s / np.abs(s).sum() + 1e-7
    return np.exp(-np.sum(p * np.log(p)))


def naive_alpha_req(z):
    eigenvalues = np.linalg.eigvalsh(np.cov(z.T))[::-1]
    eigenvalues = eigenvalues[eigenvalues > 1e-12 * eigenvalues[0]]
    return -np.polyfit(np.log(np.arange(len(eigenvalues)) + 1), np.log(eigenvalues), 1)[0]


def on_sphere(z):
    return z / np.sqrt((z**2).sum(1, keepdims=True))


def naive_uniformity(z):
    z = on_sphere(z)
    pairs = [(i, j) for i in range(len(z)) for j in range(i)]
    return np.log(np.mean([np.exp(-2 * ((z[i] - z[j]) ** 2).sum()) for i, j in pairs]))


def naive_feature_std(z):
    return np.mean([np.sqrt(np.mean((d - d.mean()) ** 2)) for d in on_sphere(z).T])


TWINS = [
    (scores.rankme, naive_rankme),
    (scores.alpha_req, naive_alpha_req),
    (scores.uniformity, naive_uniformity),
    (scores.feature_std, naive_feature_std),
]


@pytest.mark.parametrize("score, twin", TWINS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("count, dim", [(90, 8), (30, 50), (70, 70)])
def test_each_is_its_numpy_twin(score, twin, count, dim, monkeypatch):
    monkeypatch.setattr(scores, "UNIFORMITY_CHUNK", 32)  # which no count divides by
    scale = 3.0 ** -np.arange(dim) if dim < 10 else 1.0
    z = 0.5 + scale * np.random.default_rng(dim).normal(size=(count, dim))
    assert float(score(torch.tensor(z))) == pytest.approx(twin(z), rel=1e-6)


def test_alignment_is_its_numpy_twin():
    one, other = np.random.default_rng(0).normal(size=(2, 50, 7))
    want = np.mean([((x - y) ** 2).sum() for x, y in zip(*map(on_sphere, (one, other)))])  # noqa: B905
    assert float(scores.alignment(torch.tensor(one), torch.tensor(other))) == pytest.approx(want)


def test_float32_features_lose_nothing():
    z = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    for score, _ in TWINS:
        assert float(score(z)) == pytest.approx(float(score(z.double())), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 7e5])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_collapsed_features(value, dtype):
    row = torch.rand(1, 20, generator=torch.Generator().manual_seed(1), dtype=dtype)
    z = value * row.expand(300, 20)
    assert float(scores.rankme(z)) == pytest.approx(1, abs=1e-4)
    assert float(scores.feature_std(z)) == pytest.approx(0, abs=1e-9)
    assert float(scores.uniformity(z)) == pytest.approx(0, abs=1e-9)
    assert scores.alpha_req(z) is None


def test_features_of_one_dimension_have_rank_1_and_no_exponent():
    z = torch.zeros(50, 6)
    z[:, 2] = torch.arange(50)
    assert float(scores.rankme(z)) == pytest.approx(1, abs=1e-4)
    assert scores.alpha_req(z) is None


def test_rows_spread_over_the_whole_sphere():
    z = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0))
    assert 31.9 < float(scores.rankme(z)) <= 32.001
    assert float(scores.alpha_req(z)) == pytest.approx(0, abs=0.1)
    assert float(scores.feature_std(z)) == pytest.approx(32**-0.5, rel=1e-3)
    z = z[:3_000]
    # Of independent rows |x - y|**2 is 2 - 2 cos, and cos has variance 1 / D: nearly Gaussian.
    assert float(scores.uniformity(z)) == pytest.approx(-4 + 16 / 2 / 32, abs=0.02)


def test_orthonormal_rows_have_full_rank():
    assert float(scores.rankme(torch.eye(24))) == pytest.approx(24, rel=1e-4)


def test_alignment_of_equal_opposite_and_orthogonal_views():
    z = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    assert float(scores.alignment(z, 3 * z)) == pytest.approx(0, abs=1e-12)
    assert float(scores.alignment(z, -z)) == pytest.approx(4)
    assert float(scores.alignment(torch.eye(8), torch.eye(8).roll(1, 0))) == pytest.approx(2)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("dead", [0, 5])
def test_an_exact_power_law_gives_its_exponent(exponent, dead):
    generator = torch.Generator().manual_seed(0)
    # Orthonormal columns without a mean: those of QR that are orthogonal to a column of ones.
    columns = torch.cat(
        [torch.ones(60, 1).double(), torch.randn(60, 20, generator=generator).double()], 1
    )
    basis = torch.linalg.qr(columns).Q[:, 1:]
    deviations = torch.arange(1, 21).double() ** (-exponent / 2)
    rotation = torch.linalg.qr(torch.randn(20, 20, generator=generator).double()).Q
    z = 10 + (basis * deviations) @ rotation
    z = torch.cat([z, torch.full((60, dead), 3.0).double()], 1)
    assert scores.alpha_req(z) == pytest.approx(exponent, abs=1e-9)
    assert scores.alpha_req(z.float()) == pytest.approx(exponent, abs=1e-3)


def test_rounding_has_no_spectrum():
    generator = torch.Generator().manual_seed(0)
    row, noise = torch.rand(20, generator=generator), torch.randn(300, 20, generator=generator)
    assert scores.alpha_req(row * (1 + 1e-7 * noise)) is None
    assert scores.alpha_req(row * (1 + 1e-2 * noise)) is not None
