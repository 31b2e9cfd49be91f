"""What a study will take: from paces alone, and checked against other statistics."""

import pytest

from nnclr_study.errors import StudyFileError
from nnclr_study.study.forecast import Pace, extremes, forecast
from nnclr_study.study.spec import parse_study
from tests.study.test_search import SEARCH
from tests.study.test_spec import GOOD


def test_time_and_disk_span_from_the_fastest_pace_to_the_slowest():
    study = parse_study(GOOD.replace("= 8", "= 8\nepochs = 10\nsteps_per_epoch = 100"), "")
    found = forecast(study, [Pace(0.01, 1.0, 1_000), Pace(0.05, 0.0, 3_000)])
    assert found.trials == 12
    assert found.trial_hours == pytest.approx((12 * 20 / 3600, 12 * 50 / 3600))
    assert found.disk_bytes == (12_000, 36_000)
    assert found.queue_bytes == 4 * 100 * 128
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


def test_a_space_in_which_nothing_fits_is_told_why():
    text = SEARCH.replace("low = 40, high = 1_000", "low = 4, high = 30")
    with pytest.raises(StudyFileError, match="the study hunt has a problem") as told:
        extremes(parse_study(text, ""))
    assert "search.space = " in str(told.value)
    assert "use queue_size >= 40" in str(told.value)


def test_extremes_do_the_least_and_the_most_work():
    small, large = extremes(parse_study(GOOD, ""))
    assert (small.queue_size, large.queue_size) == (0, 100)
    small, large = extremes(parse_study(SEARCH.replace("low = 40", "low = 4"), ""))
    assert (small.queue_size, large.queue_size) == (1_000, 1_000), "4 holds no batch"
