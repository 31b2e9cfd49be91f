import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from nnclr_study.report.intervals import holm, t_interval, t_test

SAMPLES = [list(np.random.default_rng(n).normal(0.9, 0.01, n)) for n in (2, 3, 5, 10)]


@pytest.mark.parametrize("values", SAMPLES, ids=len)
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
def test_t_interval_agrees_with_scipy(values, alpha):
    theirs = stats.ttest_1samp(values, 0).confidence_interval(1 - alpha)
    assert t_interval(values, alpha) == pytest.approx(tuple(theirs))


@pytest.mark.parametrize("values", SAMPLES, ids=len)
def test_t_test_agrees_with_scipys_paired_test(values):
    others = np.random.default_rng(99).normal(0.9, 0.01, len(values))
    ours = t_test(list(np.array(values) - others))
    assert ours == pytest.approx(stats.ttest_rel(values, others).pvalue)


@pytest.mark.parametrize("values", [[0.9], [0.9, 0.9, 0.9], [0.3, 0.1 + 0.2]])
def test_one_seed_and_seeds_without_spread_have_neither_interval_nor_p(values):
    assert t_interval(values) is None
    assert t_test(values) is None


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.01, 0.03], [0.5, 0.9, 0.02, 0.02]])
def test_holm_agrees_with_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_counts_a_comparison_that_has_no_p():
    ours = holm([0.01, None, 0.02])
    theirs = multipletests([0.01, 1.0, 0.02], method="holm")[1]
    assert [ours[0], ours[2]] == pytest.approx([theirs[0], theirs[2]])
    assert ours[1] is None
