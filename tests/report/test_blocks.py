import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from nnclr_study.report.blocks import (
    best_set,
    clopper_pearson,
    compare,
    dunnett_critical,
    dunnett_p,
    fit,
    largest_of,
    seeds_for_margin,
    smallest_difference,
    sufficient,
    verdict,
)

MEANS = np.array([0.881, 0.889, 0.898, 0.900, 0.9005])
MARGIN = 0.005


def study(seed=0, seeds=5, means=MEANS, sd=0.003):
    """Return a table whose seeds are also worth something in every arm."""
    random = np.random.default_rng(seed)
    return means + random.normal(0, sd, (seeds, 1)) + random.normal(0, sd, (seeds, len(means)))


def unequal(seed=0):
    """Return a study of five seeds, one arm of which hardly varies."""
    values = study(seed)
    values[:, 1] = 0.889 + (values[:, 1] - 0.889) / 50
    return values


def long(values):
    seed, arm = np.indices(values.shape)
    return pd.DataFrame({"acc": values.ravel(), "seed": seed.ravel(), "arm": arm.ravel()})


def model(values):
    return ols("acc ~ C(arm) + C(seed)", long(values)).fit()


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_blocks_are_statsmodels(seeds):
    values = study(seeds, seeds)
    ours, theirs = fit(values), model(values)
    table = anova_lm(theirs)["sum_sq"]
    assert ours.residual_sd == pytest.approx(math.sqrt(theirs.mse_resid))
    assert ours.df == theirs.df_resid
    assert ours.seed_share == pytest.approx(table["C(seed)"] / table.sum())
    assert ours.means_K == pytest.approx(values.mean(axis=0))
    contrast = theirs.t_test("C(arm)[T.1] = 0")
    assert ours.error == pytest.approx(contrast.sd.item())


def test_the_correlation_is_pingouins():
    pingouin = pytest.importorskip("pingouin")
    table = pingouin.intraclass_corr(long(study()), "seed", "arm", "acc").set_index("Type")
    theirs = table.loc[[name for name in table.index if name in ("ICC3", "ICC(C,1)")], "ICC"]
    assert fit(study()).correlation == pytest.approx(theirs.item())


def test_unequal_spreads_ask_for_holm():
    values = study()
    sds = values.std(axis=0, ddof=1)
    assert fit(values).sd_ratio == pytest.approx(sds.max() / sds.min())
    assert (fit(values).method, fit(unequal()).method) == ("dunnett", "holm")
    values[:, 2] = 0.1
    assert (fit(values).sd_ratio, fit(values).method) == (math.inf, "holm")


ALIKE = np.array([0.8, 0.9, 0.85]) + np.array([[0.0], [0.01], [0.03]])


@pytest.mark.parametrize("values", [study()[:1], study()[:, :1], ALIKE, study()[:0]])
def test_nothing_is_said_where_nothing_is_left_to_chance(values):
    assert fit(values) is None
    assert best_set(values) is None
    assert sufficient(values, MARGIN) is None
    for comparison in compare(values):
        assert comparison.pairs == len(values)
        assert (comparison.simultaneous, comparison.p_dunnett) == (None, None)
        assert verdict(comparison, MARGIN, "dunnett") is None


@pytest.mark.parametrize(
    ("comparisons", "df", "one_sided", "published"),
    [
        (1, 10, False, 2.23),
        (2, 10, False, 2.57),
        (4, 10, False, 2.89),
        (2, 20, False, 2.38),
        (4, 20, False, 2.65),
        (1, 10, True, 1.81),
        (3, 10, True, 2.34),
        (4, 20, True, 2.30),
    ],
)
def test_critical_values_are_those_of_dunnetts_tables(comparisons, df, one_sided, published):
    assert dunnett_critical(comparisons, df, one_sided) == pytest.approx(published, abs=0.0051)


@pytest.mark.parametrize(("comparisons", "df"), [(2, 2), (4, 16), (4, 20), (12, 40), (30, 120)])
@pytest.mark.parametrize("one_sided", [False, True])
def test_critical_values_agree_with_the_multivariate_t(comparisons, df, one_sided):
    shape = np.full((comparisons, comparisons), 0.5) + 0.5 * np.eye(comparisons)
    limit = np.full(comparisons, dunnett_critical(comparisons, df, one_sided))
    within = stats.multivariate_t(shape=shape, df=df, seed=1).cdf(
        limit, maxpts=100_000, lower_limit=None if one_sided else -limit
    )
    assert within == pytest.approx(0.95, abs=3e-5)


@pytest.mark.parametrize("comparisons", [1, 4, 30])
def test_p_is_5_per_cent_at_the_critical_value(comparisons):
    critical = dunnett_critical(comparisons, 16)
    assert dunnett_p(-critical, comparisons, 16) == pytest.approx(0.05, abs=1e-9)
    assert dunnett_p(0.0, comparisons, 16) == pytest.approx(1)
    assert 0 <= dunnett_p(40.0, comparisons, 16) < 1e-9


def test_p_is_scipys_for_independent_groups():
    # scipy's test has no blocks: same distribution, other residual and degrees of freedom.
    base, *groups = study(3, seeds=6, means=np.array([0.9, 0.9, 0.903, 0.907])).T
    theirs = stats.dunnett(*groups, control=base, random_state=1)
    df = 4 * (6 - 1)
    ours = [dunnett_p(t, 3, df) for t in theirs.statistic]
    assert ours == pytest.approx(theirs.pvalue, abs=2e-3)
    assert any(0.01 < p < 0.9 for p in ours)


@pytest.mark.parametrize("values", [study(), unequal()], ids=["equal", "unequal"])
def test_paired_numbers_are_scipys_and_statsmodels(values):
    theirs = [stats.ttest_rel(column, values[:, 0]) for column in values.T[1:]]
    adjusted = multipletests([test.pvalue for test in theirs], method="holm")[1]
    for place, (ours, test) in enumerate(zip(compare(values), theirs, strict=True), start=1):
        differences = values[:, place] - values[:, 0]
        assert ours.pairs == 5
        assert ours.mean == pytest.approx(differences.mean())
        assert ours.sd == pytest.approx(differences.std(ddof=1))
        assert ours.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert ours.p_holm == pytest.approx(adjusted[place - 1])


def test_p_values_are_scikit_posthocs_where_arms_share_no_seeds():
    """Its Dunnett is for independent groups, whose statistic differs in its error alone."""
    posthocs = pytest.importorskip("scikit_posthocs")
    values = study()
    values -= 0.85 * (values.mean(axis=0) - values.mean())  # so that p is not next to 0
    seeds, arms = values.shape
    table = pd.DataFrame(values).melt(var_name="arm", value_name="acc")
    theirs = posthocs.posthoc_dunnett(table, "acc", "arm", control=0)
    error = math.sqrt(values.var(axis=0, ddof=1).mean() * 2 / seeds)
    for arm in range(1, arms):
        t = (values[:, arm] - values[:, 0]).mean() / error
        ours = dunnett_p(t, arms - 1, arms * (seeds - 1))
        assert ours == pytest.approx(theirs.loc[arm, 0], abs=2e-4)


def test_block_intervals_are_statsmodels_with_dunnetts_critical_value():
    values = study()
    fitted = model(values)
    for place, ours in enumerate(compare(values), start=1):
        contrast = fitted.t_test(f"C(arm)[T.{place}] = 0")
        half = dunnett_critical(4, 16) * contrast.sd.item()
        effect = contrast.effect.item()
        assert ours.simultaneous == pytest.approx((effect - half, effect + half))
        assert ours.equivalence == pytest.approx(tuple(contrast.conf_int(alpha=0.1)[0]))


def test_with_unequal_spreads_equivalence_is_the_paired_tost():
    verdicts = []
    for seed in range(40):
        values = unequal(seed)
        values[:, 0] += 0.0065
        ours = compare(values)[0]
        theirs = ttost_paired(values[:, 1], values[:, 0], -MARGIN, MARGIN)[0]
        inside = ours.equivalence[0] > -MARGIN and ours.equivalence[1] < MARGIN
        assert inside == (theirs < 0.05)
        if (word := verdict(ours, MARGIN, "holm")) in ("equivalent", "not resolved"):
            assert (word == "equivalent") == inside
            verdicts.append(word)
    assert len(set(verdicts)) == 2


def test_with_unequal_spreads_tost_is_pingouins_too():
    pingouin = pytest.importorskip("pingouin")
    values = unequal()
    low, high = compare(values)[1].equivalence
    farther = max(abs(low), abs(high))
    p = pingouin.tost(values[:, 2], values[:, 0], bound=farther, paired=True)
    assert p.filter(like="p").iloc[0, 0] == pytest.approx(0.05)


def test_dz_is_unbiased_where_the_plain_ratio_is_not():
    random = np.random.default_rng(4)
    tables = [
        np.column_stack([np.zeros(4), differences])
        for differences in random.normal(1, 1, (1500, 4))
    ]
    compared = [compare(table)[0] for table in tables]
    assert np.mean([each.dz for each in compared]) == pytest.approx(1, abs=0.06)
    assert np.mean([each.mean / each.sd for each in compared]) > 1.2


def test_the_interval_and_p_agree_to_the_last_bit():
    values = study(means=np.full(5, 0.9))
    low, high = 0.0, 0.1

    def moved(by):
        table = values.copy()
        table[:, 1] += by
        return compare(table)[0]

    assert moved(low).simultaneous[0] < 0 < moved(high).simultaneous[0]
    while low < (middle := (low + high) / 2) < high:
        comparison = moved(middle)
        excluded = comparison.simultaneous[0] > 0
        assert excluded == (comparison.p_dunnett < 0.05)
        low, high = (low, middle) if excluded else (middle, high)
    assert moved(high).p_dunnett == pytest.approx(0.05, abs=1e-6)


def test_verdicts_of_the_block_model():
    values = study(means=np.array([0.9, 0.92, 0.88, 0.9, 0.907]), sd=0.002, seed=2)
    words = [verdict(each, MARGIN, "dunnett") for each in compare(values)]
    assert words == ["better", "worse", "equivalent", "better"]
    words = [verdict(each, 0.0001, "dunnett") for each in compare(values)]
    assert words == ["better", "worse", "not resolved", "better"]


def test_where_holm_and_the_block_model_disagree_neither_is_believed():
    words = set()
    for seed in range(60):
        values = unequal(seed)
        for each in compare(values[:, [0, 1, 2]] + np.array([0.006, 0, 0])):
            word = verdict(each, MARGIN, "holm")
            disagree = (each.p_dunnett < 0.05) != (each.p_holm < 0.05)
            assert (word == "depends on method") == disagree
            words.add(word)
    assert {"depends on method", "better"} <= words


def test_two_pairs_have_intervals_and_neither_p_nor_verdict():
    comparison = compare(study(seeds=2))[3]
    assert comparison.simultaneous[0] > 0
    assert comparison.interval is not None
    assert (comparison.p_dunnett, comparison.p_holm, comparison.dz) == (None, None, None)
    assert verdict(comparison, MARGIN, "dunnett") is None
    assert best_set(study(seeds=2)) is None
    assert sufficient(study(seeds=2), MARGIN) is None


def test_an_arm_that_changes_nothing_is_compared_all_the_same():
    values = study(means=np.full(4, 0.9), sd=0.001)
    values[:, 2] = values[:, 0]
    comparison = compare(values)[1]
    assert (comparison.mean, comparison.interval, comparison.p_holm) == (0, None, None)
    assert comparison.p_dunnett == pytest.approx(1)
    assert verdict(comparison, MARGIN, "dunnett") == "equivalent"


def test_of_two_arms_the_best_is_a_one_sided_paired_test():
    for shift in (0.0, 0.002, 0.01):
        values = study(means=np.array([0.9, 0.9 + shift]))
        lower, upper = best_set(values)
        low, high = stats.ttest_rel(values[:, 1], values[:, 0]).confidence_interval(0.9)
        assert upper.interval == pytest.approx((min(0, low), max(0, high)))
        assert lower.interval == pytest.approx((min(0, -high), max(0, -low)))
        assert (lower.in_set, upper.in_set) == (low < 0, high > 0)


def test_the_best_set_is_against_the_best_of_the_others():
    values = study(sd=0.002)
    means = values.mean(axis=0)
    half = dunnett_critical(4, 16, one_sided=True) * fit(values).error
    found = best_set(values)
    best = int(means.argmax())
    second = np.delete(means, best).max()
    for arm, each in enumerate(found):
        assert each.mean == pytest.approx(means[arm] - (second if arm == best else means[best]))
        assert each.in_set == (each.mean + half > 0)
        assert each.interval[0] <= 0 <= each.interval[1]
    assert found[best].in_set
    assert [each.in_set for each in found[:2]] == [False, False]


def test_one_clear_winner_is_a_set_of_one():
    values = study(means=np.array([0.9, 0.95, 0.9]))
    found = best_set(values)
    assert [each.in_set for each in found] == [False, True, False]
    assert found[1].interval[0] == 0


def test_the_smallest_sufficient_arm_stops_at_the_first_that_may_be_worse():
    values = study(means=np.array([0.905, 0.880, 0.9, 0.9, 0.9]), sd=0.001)
    found = sufficient(values, MARGIN)
    assert found.arm == 2
    contrast = model(values).t_test("C(arm)[T.2] - C(arm)[T.4] = 0")
    assert found.lower == pytest.approx(contrast.conf_int(alpha=0.1)[0][0])
    assert -MARGIN < found.lower < 0
    assert sufficient(values, 0.1).arm == 0
    assert sufficient(values, 1e-6).arm == 4
    assert sufficient(values, 1e-6).lower == 0


@pytest.mark.parametrize("sds", [0.6, 1.2, 2.5])
def test_seeds_for_two_arms_are_those_of_a_paired_t_test(sds):
    theirs = TTestPower().solve_power(effect_size=sds / math.sqrt(2), alpha=0.05, power=0.8)
    assert seeds_for_margin(0.003, 2, sds * 0.003) == max(3, math.ceil(theirs))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_of_two_arms_the_smallest_difference_is_that_of_a_paired_t_test(seeds):
    effect = smallest_difference(2, seeds) / math.sqrt(2)
    assert TTestPower().power(effect, seeds, 0.05) == pytest.approx(0.8, abs=2e-3)


def test_one_arm_or_too_few_seeds_for_a_verdict_resolve_nothing():
    assert smallest_difference(1, 5) is None
    assert smallest_difference(5, 2) is None
    assert smallest_difference(5, 3) is not None


def test_seeds_for_five_arms_resolve_the_margin_in_80_per_cent_of_studies():
    random, sd, margin = np.random.default_rng(1), 0.004, 0.005
    needed = seeds_for_margin(sd, 5, margin)

    def power(seeds):
        df = 4 * (seeds - 1)
        shift = margin / (sd * math.sqrt(2 / seeds))
        t = random.normal(shift, 1, 200_000) / np.sqrt(random.chisquare(df, 200_000) / df)
        return np.mean(t > dunnett_critical(4, df))

    assert power(needed - 1) < 0.8 < power(needed)
    assert smallest_difference(5, needed) * sd <= margin < smallest_difference(5, needed - 1) * sd


def test_a_margin_far_below_the_noise_has_no_number_of_seeds():
    assert seeds_for_margin(0.01, 5, 0.0001) is None
    assert seeds_for_margin(0.01, 5, 0.1) == 3


@pytest.mark.parametrize(("failed", "planned"), [(0, 5), (1, 5), (5, 5), (3, 40)])
def test_failure_rates_are_statsmodels(failed, planned):
    theirs = proportion_confint(failed, planned, method="beta")
    assert clopper_pearson(failed, planned) == pytest.approx(theirs)


def test_one_failure_of_five_is_between_half_a_per_cent_and_72():
    assert clopper_pearson(1, 5) == pytest.approx((0.005, 0.72), abs=0.005)


@pytest.mark.parametrize(
    ("count", "known"), [(1, 0), (2, 1 / math.sqrt(math.pi)), (5, 1.163), (100, 2.508)]
)
def test_the_largest_of_some_normals(count, known):
    assert largest_of(count) == pytest.approx(known, abs=0.0005)
