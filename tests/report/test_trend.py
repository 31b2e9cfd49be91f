from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from nnclr_study.report.trend import trend

DOSES = [8192, 16384, 32768, 65536, 98304]


def rising(seed=0, until=98304, seeds=5, doses=DOSES, sd=0.003, slope=0.01):
    """Return a table that rises by the slope per doubling until a dose."""
    random = np.random.default_rng(seed)
    means = 0.88 + slope * np.log2(np.minimum(doses, until) / doses[0])
    return means + random.normal(0, sd, (seeds, 1)) + random.normal(0, sd, (seeds, len(doses)))


def long(values, doses=DOSES):
    seed, arm = np.indices(values.shape)
    return pd.DataFrame(
        {"acc": values.ravel(), "seed": seed.ravel(), "x": np.log2(doses)[arm.ravel()]}
    )


def hinge(values, dose):
    table = long(values)
    return ols("acc ~ h + C(seed)", table.assign(h=np.minimum(table["x"], np.log2(dose)))).fit()


def squares_at(values, dose):
    """Return the hinge's sum of squares with a column for the hinge and one for each seed."""
    h = np.minimum(np.log2(DOSES), np.log2(dose))
    seed, arm = np.indices(values.shape)
    columns = np.column_stack([h[arm.ravel()], np.eye(len(values))[seed.ravel()]])
    return np.linalg.lstsq(columns, values.ravel())[1].item()


def aicc(fitted, nonlinear):
    count, parameters = fitted.nobs, fitted.df_model + 2 + nonlinear
    correction = 2 * parameters * (parameters + 1) / (count - parameters - 1)
    return -2 * fitted.llf + 2 * parameters + correction


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_slope_is_that_of_a_line_for_each_seed(seeds):
    values = rising(seeds=seeds)
    slopes = [np.polyfit(np.log2(DOSES), row, 1)[0] for row in values]
    theirs = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    ours = trend(DOSES, values)
    assert ours.slope == pytest.approx(np.mean(slopes))
    assert ours.slope_interval == pytest.approx(tuple(theirs))
    assert ours.n == seeds


def test_pages_p_is_the_share_of_orders_that_rise_as_much():
    values = np.array([[0.80, 0.82, 0.81], [0.80, 0.83, 0.84]])
    weights = np.arange(1, 4)
    seen = sum(weights @ stats.rankdata(row) for row in values)
    orders = list(product(permutations(weights), repeat=2))
    share = np.mean([sum(weights @ order for order in two) >= seen for two in orders])
    assert trend([1, 2, 4], values).page_p == pytest.approx(share)


def test_pages_p_is_small_where_accuracy_rises_and_near_1_where_it_falls():
    values = rising(seeds=3)
    assert trend(DOSES, values).page_p < 0.001
    assert trend(DOSES, -values).page_p > 0.99


@pytest.mark.parametrize("until", [98304, 32768])
def test_lack_of_fit_is_statsmodels(until):
    values = rising(until=until)
    line = ols("acc ~ x + C(seed)", long(values)).fit()
    free = ols("acc ~ C(x) + C(seed)", long(values)).fit()
    theirs = anova_lm(line, free)["Pr(>F)"].iloc[1]
    assert trend(DOSES, values).lack_of_fit_p == pytest.approx(theirs)


@pytest.mark.parametrize("until", [98304, 40000])
@pytest.mark.parametrize("seed", range(4))
def test_the_hinge_and_its_choice_are_those_of_least_squares(until, seed):
    values = rising(seed, until, seeds=3, slope=0.006)
    ours = trend(DOSES, values)
    doses = np.geomspace(16384, 98304, 400)
    squares = [squares_at(values, dose) for dose in doses]
    best = hinge(values, ours.saturation)
    assert best.ssr <= min(squares) * (1 + 1e-9)

    line, nonlinear = hinge(values, 98304), best.df_resid - 1
    assert (ours.model == "hinge") == (aicc(best, 1) < aicc(line, 0))
    limit = best.ssr * (1 + stats.f.isf(0.05, 1, nonlinear) / nonlinear)
    theirs = doses[np.array(squares) <= limit]
    low, high = ours.saturation_interval
    assert high == pytest.approx(theirs[-1], rel=0.01)
    assert low == pytest.approx(theirs[0], rel=0.01) or (low, theirs[0]) == (8192, 16384)


def test_a_rise_that_stops_is_a_hinge_and_saturated():
    found = trend(DOSES, rising(until=40000))
    low, high = found.saturation_interval
    assert (found.model, found.saturated) == ("hinge", True)
    assert low < 40000 < high < 98304
    assert found.lack_of_fit_p < 0.05


def test_a_line_is_not_saturated_and_its_interval_reaches_the_largest_dose():
    found = trend(DOSES, rising(seed=1))
    assert (found.model, found.saturated) == ("line", False)
    assert found.saturation_interval[1] == pytest.approx(98304)
    assert found.slope_interval[0] < 0.01 < found.slope_interval[1]


def test_a_rise_over_the_first_two_doses_alone_may_end_anywhere_between_them():
    found = trend(DOSES, rising(until=12000, slope=0.04))
    assert found.saturated
    assert found.saturation_interval[0] == pytest.approx(8192)


def test_equal_arms_are_not_saturated():
    found = trend(DOSES, rising(seed=3, slope=0))
    assert not found.saturated
    assert found.saturation_interval == pytest.approx((8192, 98304))


def test_the_order_of_the_arms_does_not_matter():
    values, order = rising(until=40000), [2, 0, 4, 1, 3]
    assert trend([DOSES[place] for place in order], values[:, order]) == trend(DOSES, values)


def test_three_doses_and_two_seeds_are_too_few_for_a_hinge():
    found = trend(DOSES[:3], rising(until=16384, seeds=2, doses=DOSES[:3], slope=0.1))
    assert (found.model, found.saturated) == ("line", False)


@pytest.mark.parametrize(
    ("doses", "values"),
    [
        (DOSES[:2], rising()[:, :2]),
        (DOSES, rising()[:1]),
        (DOSES, rising(sd=0)),
        (DOSES, rising()[:0]),
        ([0, *DOSES[1:]], rising()),
        ([float("nan"), *DOSES[1:]], rising()),
        ([8192, 8192, *DOSES[2:]], rising()),
    ],
    ids=["two doses", "one seed", "no spread", "no seed", "zero", "nan", "twice"],
)
def test_no_trend_is_drawn_through_too_little(doses, values):
    assert trend(doses, values) is None
