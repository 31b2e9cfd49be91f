import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from nnclr_study.report.factors import interaction


def crossed(seed=0, seeds=5, a=3, b=4, extra=0.0, sd=0.003):
    """Return a table whose factors add, but for the last levels of both."""
    random = np.random.default_rng(seed)
    values = random.normal(0.9, sd, (seeds, 1, 1)) + random.normal(0, sd, (seeds, a, b))
    values += np.linspace(0, 0.02, a)[:, None] + np.linspace(0, 0.01, b)
    values[:, -1, -1] += extra
    return values


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (2, 5)])
@pytest.mark.parametrize("extra", [0.0, 0.004])
@pytest.mark.parametrize("seeds", [2, 5])
def test_the_f_test_is_statsmodels(shape, extra, seeds):
    values = crossed(1, seeds, *shape, extra=extra)
    seed, a, b = (index.ravel() for index in np.indices(values.shape))
    table = pd.DataFrame({"acc": values.ravel(), "seed": seed, "a": a, "b": b})
    theirs = anova_lm(ols("acc ~ C(a) * C(b) + C(seed)", table).fit()).loc["C(a):C(b)", "PR(>F)"]
    assert interaction(values).p == pytest.approx(theirs)


def test_the_difference_of_differences_is_between_the_extreme_levels_seed_by_seed():
    values = crossed(extra=0.02)
    each = (values[:, 2, 3] - values[:, 2, 0]) - (values[:, 0, 3] - values[:, 0, 0])
    found = interaction(values)
    theirs = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert found.difference == pytest.approx(each.mean())
    assert found.interval == pytest.approx(tuple(theirs))
    assert found.interval[0] < 0.02 < found.interval[1]
    assert found.p < 0.001


def test_swapping_the_factors_changes_nothing():
    ours, swapped = interaction(crossed()), interaction(crossed().transpose(0, 2, 1))
    assert ours.p == pytest.approx(swapped.p)
    assert ours.difference == pytest.approx(swapped.difference)


def test_factors_that_add_have_an_interaction_in_5_per_cent_of_studies():
    found = np.mean([interaction(crossed(seed)).p < 0.05 for seed in range(1000)])
    assert 0.03 < found < 0.07


@pytest.mark.parametrize(
    "values",
    [crossed(seeds=1), crossed(a=1), crossed(b=1), crossed(sd=0), crossed()[:0]],
    ids=["one seed", "one level of a", "one level of b", "no spread", "no seed"],
)
def test_there_is_no_interaction_of_too_little(values):
    assert interaction(values) is None
