"""What a study will take: from paces alone, and checked against other statistics."""

import pytest
from statsmodels.stats.power import TTestPower

from nnclr_study.study.forecast import (
    Pace,
    extremes,
    forecast,
    recorded,
    smallest_difference,
)
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.study.test_run_folder import epoch
from tests.study.test_search import SEARCH
from tests.study.test_spec import GOOD


@pytest.mark.parametrize("pairs", [2, 3, 5, 10])
@pytest.mark.parametrize("comparisons", [1, 4])
def test_the_smallest_difference_is_the_one_with_four_fifths_power(pairs, comparisons):
    effect = smallest_difference(pairs, comparisons)
    power = TTestPower().power(effect, pairs, 0.05 / comparisons)
    assert power == pytest.approx(0.8, abs=2e-3)


def test_one_seed_or_one_condition_resolves_nothing():
    assert smallest_difference(1, 3) is None
    assert smallest_difference(5, 0) is None


def test_time_and_disk_span_from_the_fastest_pace_to_the_slowest():
    study = parse_study(GOOD.replace("= 8", "= 8\nepochs = 10\nsteps_per_epoch = 100"), "")
    found = forecast(study, [Pace(0.01, 1.0, 1_000), Pace(0.05, 0.0, 3_000)])
    assert found.trials == 12
    assert found.trial_hours == pytest.approx((12 * 20 / 3600, 12 * 50 / 3600))
    assert found.disk_bytes == (12_000, 36_000)
    assert found.queue_bytes == 4 * 100 * 128
    assert found.smallest_difference == smallest_difference(2, 5)
    unknown = forecast(study)
    assert (unknown.trial_hours, unknown.disk_bytes) == (None, None)


def test_a_budget_cuts_a_grid_and_bounds_a_search():
    cut = parse_study(GOOD + "[budget]\ntrials = 3\n", "")
    assert forecast(cut, [Pace(1.0, 0.0)]).trials == 3
    found = forecast(parse_study(SEARCH, ""), [Pace(0.0, 2.0)])
    assert found.trials == 12
    assert found.trial_hours == pytest.approx((12 * 18 * 2 / 3600,) * 2)
    endless = SEARCH.replace("trials = 12", "hours = 3")
    assert forecast(parse_study(endless, ""), [Pace(1.0, 1.0)]).trial_hours is None


def test_extremes_do_the_least_and_the_most_work():
    small, large = extremes(parse_study(GOOD, ""))
    assert (small.queue_size, large.queue_size) == (0, 100)
    small, large = extremes(parse_study(SEARCH.replace("low = 40", "low = 4"), ""))
    assert (small.queue_size, large.queue_size) == (1_000, 1_000), "4 holds no batch"


def test_a_run_s_pace_is_that_of_its_epochs(tmp_path):
    study = parse_study(GOOD, "")
    folder = RunFolder.create(tmp_path / "good").keep(study)
    trial = plan_trials(study)[0]
    assert recorded(folder) == []
    for number in (1, 2):
        folder.append_epoch(trial.id, epoch(number))
    assert recorded(folder) == [Pace(1.0 / 200, 0.5, None)]
    folder.checkpoints.mkdir()
    folder.checkpoint(trial.id).write_bytes(b"12345")
    assert recorded(folder) == [Pace(1.0 / 200, 0.5, 5)]
