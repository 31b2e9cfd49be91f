"""What a study has spent, and when that is all it may."""

from datetime import timedelta

import pytest

from nnclr_study.study.budget import spent, spent_by
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import BudgetTable, parse_study
from tests.study.test_run_folder import ended, epoch, session
from tests.study.test_spec import GOOD


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "good").keep(parse_study(GOOD, "good.toml"))


def test_hours_are_those_of_each_call_until_its_last_trial_ended(folder):
    trials = plan_trials(folder.study())
    first, second, idle = session(), session(), session()
    for each in (first, second, idle):
        folder.append_session(each)
    rows = []
    for number, hours, trial in ((0, 1, trials[0]), (0, 3, trials[1]), (1, 2, trials[2])):
        end = folder.sessions()[number].started_at + timedelta(hours=hours)
        known = {"session": number, "ended_at": end, "gpu_seconds": 1800.0}
        rows.append(ended(trial).model_copy(update=known))
    found = spent(4, rows, folder.sessions())
    assert found.hours == pytest.approx(3 + 2)
    assert found.gpu_hours == pytest.approx(1.5)
    assert found.trials == 4


def test_calls_that_were_killed_before_a_trial_ended_count_by_their_epochs(folder):
    trials = plan_trials(folder.study())
    for _ in range(5):
        folder.append_session(session().model_copy(update={"max_concurrent": 2}))
    for trial in trials[:2]:
        for number in range(1, 10):
            row = epoch(number).model_copy(update={"seconds": 3600.0})
            folder.append_epoch(trial.id, row)
    found = spent_by(folder, folder.study())
    assert found.hours == pytest.approx(9), "two at a time"
    assert "9.0 of 2 hours" in found.exhausts(BudgetTable(hours=2.0))


def test_a_limit_is_reached_at_it_and_not_before(folder):
    trials = plan_trials(folder.study())
    for trial in trials[:3]:
        folder.append_trial(ended(trial))
    folder.append_epoch(trials[3].id, epoch(1))
    found = spent_by(folder, folder.study())
    assert found.trials == 4, "an interrupted trial has begun"
    assert found.exhausts(BudgetTable(trials=5)) is None
    assert found.exhausts(BudgetTable()) is None
    said = found.exhausts(BudgetTable(trials=4))
    assert said.startswith("budget reached: 4 of 4 trials; raise [budget] trials")
    row = ended(trials[4]).model_copy(update={"gpu_seconds": 7200.0})
    folder.append_trial(row)
    assert spent_by(folder, folder.study()).exhausts(BudgetTable(gpu_hours=2.1)) is None
    assert "2.0 of 2 gpu hours" in spent_by(folder, folder.study()).exhausts(
        BudgetTable(gpu_hours=2)
    )


def test_errors_are_the_same_whose_figures_alone_differ(folder):
    errors = ["needs 3.1 GB at 0x7f3a", "needs 12,044 GB at 0xff", "no file"]
    for trial, error in zip(plan_trials(folder.study()), errors, strict=False):
        folder.append_trial(ended(trial, "failed").model_copy(update={"error": error}))
    found = spent_by(folder, folder.study())
    assert "2 trials failed" in found.exhausts(BudgetTable(max_failures=2))
    assert "needs 3.1 GB at 0x7f3a; mend" in found.exhausts(BudgetTable(max_failures=2))
    assert found.exhausts(BudgetTable(max_failures=3)) is None


def test_the_same_error_often_enough_is_shown_once(folder):
    trials = plan_trials(folder.study())
    for trial, error in zip(trials, ["full", "full", "dead", "full"], strict=False):
        folder.append_trial(ended(trial, "failed").model_copy(update={"error": error}))
    found = spent_by(folder, folder.study())
    assert found.exhausts(BudgetTable(max_failures=4)) is None
    said = found.exhausts(BudgetTable(max_failures=3))
    assert said.startswith("3 trials failed with the same error")
    assert "full; mend it and use --retry-failed" in said
    again = spent_by(folder, folder.study(), again=True)
    assert again.exhausts(BudgetTable(max_failures=1)) is None, "those are to be run again"
