"""Simulated studies: how often the words and intervals of the report are wrong.

The figures held against are those of statistics that hold exactly (5 % and 95 %), with the room
that 2,000 studies need; each seed of the generator is fixed.
"""

import numpy as np
import pytest
from scipy import stats

from nnclr_study.report.blocks import (
    best_set,
    compare,
    dunnett_critical,
    fit,
    largest_of,
    sufficient,
    verdict,
)
from nnclr_study.report.trend import trend

STUDIES = 2000
SD = 0.003
MARGIN = 0.005
DOSES = [8192, 16384, 32768, 65536, 98304]
EXAMPLE = np.array([0.881, 0.889, 0.898, 0.900, 0.9005])
"""True means of a study of the queue's size, at 5 seeds and SD 0.3 points."""


def studies(means, seed, sd=SD, count=STUDIES, seeds=5):
    return np.random.default_rng(seed).normal(means, sd, (count, seeds, len(means)))


@pytest.fixture(scope="module")
def null():
    tables = studies(np.full(5, 0.9), 11)
    return [(fit(table).method, compare(table)) for table in tables]


def claimed(method, comparisons):
    return any(verdict(each, MARGIN, method) in ("better", "worse") for each in comparisons)


def holds(interval, truth):
    return interval[0] <= truth <= interval[1]


def test_equal_arms_are_called_different_in_5_per_cent_of_studies(null):
    assert 0.035 < np.mean([claimed(*each) for each in null]) < 0.065


def test_simultaneous_intervals_all_hold_the_truth_in_95_per_cent_of_studies(null):
    all_hold = [all(holds(each.simultaneous, 0) for each in found) for _, found in null]
    assert 0.935 < np.mean(all_hold) < 0.965


def test_paired_intervals_hold_the_truth_in_95_per_cent_and_claim_too_much_together(null):
    hits = np.array([[holds(each.interval, 0) for each in found] for _, found in null])
    assert 0.94 < hits.mean() < 0.96
    assert 0.14 < np.mean(~hits.all(axis=1)) < 0.20


def test_an_uneven_baseline_fools_the_block_model_and_not_the_verdict():
    tables = studies(np.full(5, 0.9), 12, sd=SD * np.array([3, 1, 1, 1, 1]), count=600)
    found = [(fit(table).method, compare(table)) for table in tables]
    assert np.mean([any(each.p_dunnett < 0.05 for each in arms) for _, arms in found]) > 0.11
    assert np.mean([claimed(*each) for each in found]) < 0.1


def test_blocks_resolve_what_paired_tests_do_not():
    # An effect of 2 SDs among four comparisons: 0.69 against 0.32.
    found = [compare(table)[0] for table in studies(0.9 + 2 * SD * np.eye(5)[1], 13, count=600)]
    assert np.mean([each.p_dunnett < 0.05 for each in found]) == pytest.approx(0.69, abs=0.05)
    half = stats.t.isf(0.05 / 2 / 4, 4) / np.sqrt(5)
    bonferroni = [abs(each.mean) > half * each.sd for each in found]
    assert np.mean(bonferroni) == pytest.approx(0.32, abs=0.05)


@pytest.mark.parametrize("truth", [EXAMPLE, 0.9 + 0.002 * np.eye(5)[4]])
def test_the_best_set_holds_the_best_arm_in_95_per_cent_of_studies(truth):
    tables = studies(truth, 14)
    assert np.mean([best_set(table)[4].in_set for table in tables]) >= 0.95


def test_the_largest_mean_alone_names_the_best_arm_of_the_example_in_58_per_cent():
    tables = studies(EXAMPLE, 15)
    assert np.mean(tables.mean(axis=1).argmax(axis=1) == 4) == pytest.approx(0.58, abs=0.03)
    sizes = [sum(each.in_set for each in best_set(table)) for table in tables]
    assert 2 < np.mean(sizes) < 3.5


def test_the_worked_example():
    tables = studies(EXAMPLE, 16, count=300)
    large = [compare(table)[1] for table in tables]
    halves = [(each.simultaneous[1] - each.simultaneous[0]) / 2 for each in large]
    assert np.mean(halves) == pytest.approx(0.0051, abs=0.0002)
    assert np.mean([verdict(each, MARGIN, "dunnett") == "better" for each in large]) > 0.99
    # 98,304 against 32,768: 0.25 points apart, margin 0.5
    close = [compare(table[:, [2, 4]])[0] for table in tables]
    words = [verdict(each, MARGIN, "dunnett") for each in close]
    assert np.mean([word == "not resolved" for word in words]) > 0.5


@pytest.mark.parametrize(
    "truth",
    [0.9 - MARGIN * np.array([1, 0, 0, 0, 0]), 0.9 - MARGIN * np.array([0, 0, 0, 1, 0])],
    ids=["smallest", "next to the largest"],
)
def test_the_sufficient_arm_is_too_small_in_5_per_cent_of_studies(truth):
    # Stepping past the worse arm is the error, wherever the steps end.
    found = np.array([sufficient(table, MARGIN).arm for table in studies(truth, 17)])
    assert 0.03 < np.mean(found <= truth.argmin()) <= 0.06


def test_the_sufficient_arm_is_found():
    truth = np.array([0.87, 0.899, 0.9, 0.9, 0.9])
    found = [sufficient(table, 0.01).arm for table in studies(truth, 18)]
    assert np.mean(np.array(found) == 1) > 0.9


def test_the_best_of_five_equal_arms_looks_half_a_standard_deviation_too_good():
    tables = studies(np.full(5, 0.9), 19)
    bias = (tables.mean(axis=1).max(axis=1).mean() - 0.9) / SD
    assert bias == pytest.approx(largest_of(5) / np.sqrt(5), abs=0.03)
    assert bias == pytest.approx(0.52, abs=0.03)


@pytest.mark.parametrize(("until", "seeds"), [(30000, 5), (42000, 3), (60000, 5)])
def test_the_saturation_interval_holds_the_truth_in_95_per_cent_of_studies(until, seeds):
    truth = 0.88 + 0.01 * np.log2(np.minimum(DOSES, until) / DOSES[0])
    found = [trend(DOSES, table) for table in studies(truth, 20, count=1000, seeds=seeds)]
    assert np.mean([holds(each.saturation_interval, until) for each in found]) > 0.925


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_straight_line_is_called_saturated_in_at_most_5_per_cent_of_studies(seeds):
    truth = 0.88 + 0.005 * np.log2(np.divide(DOSES, DOSES[0]))
    found = [trend(DOSES, table) for table in studies(truth, 21, count=1000, seeds=seeds)]
    assert np.mean([each.saturated for each in found]) < 0.06


def test_critical_values_are_those_of_simulated_studies():
    largest = []
    for table in studies(np.full(5, 0.9), 22, count=4000):
        blocks = fit(table)
        largest.append((blocks.means_K[1:] - blocks.means_K[0]) / blocks.error)
    t = np.array(largest)
    for one_sided, worst in ((False, np.abs(t).max(axis=1)), (True, t.max(axis=1))):
        assert 0.04 < np.mean(worst > dunnett_critical(4, 16, one_sided)) < 0.06
