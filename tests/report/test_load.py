import math

import pytest

from nnclr_study.report.load import load
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.report.helpers import make_run, study_text, tables_of

STATES = {"q0": [0.8, 0.81], "q500": ["OutOfMemoryError: 2 GiB", 2], "q1000": [None, 0.82]}


def test_a_row_a_planned_trial_in_plan_order(tmp_path):
    tables = tables_of(tmp_path, **STATES)
    trials = tables.trials
    assert trials["status"].tolist() == [
        *("finished", "failed", "waiting"),
        *("finished", "interrupted", "finished"),
    ]
    assert trials["queue_size"].tolist() == [0, 500, 1000] * 2
    assert trials["seed"].tolist() == [1] * 3 + [2] * 3
    assert trials["epochs_done"].tolist() == [4, 1, 0, 4, 2, 4]
    assert trials["trial_id"].tolist() == [t.id for t in plan_trials(tables.study)]
    assert trials["error"].dropna().tolist() == ["OutOfMemoryError: 2 GiB"]


def test_only_a_finished_trial_has_accuracies(tmp_path):
    trials = tables_of(tmp_path, **STATES).trials
    assert trials["val_probe_top1"].dropna().tolist() == [0.8, 0.81, 0.82]
    assert trials["test_probe_top1"].dropna().tolist() == pytest.approx([0.820, 0.819, 0.818])


def test_seconds_count_the_epochs_of_a_trial_that_is_not_over(tmp_path):
    seconds = tables_of(tmp_path, **STATES).trials["seconds"].tolist()
    assert seconds[4] == 5.0
    assert math.isnan(seconds[2])


def test_a_begun_trial_runs_while_the_folder_is_running(tmp_path):
    folder = make_run(tmp_path, study_text("", seeds=[1]), lambda trial: 2)
    assert load(folder).trials["status"].tolist() == ["interrupted"]
    with folder.lock():
        assert load(folder).trials["status"].tolist() == ["running"]


def test_rows_of_trials_no_longer_planned_are_left_out(tmp_path):
    make_run(tmp_path, study_text("queue_size = [0, 500]"), lambda trial: 0.8)
    smaller = parse_study(study_text("queue_size = [500]"), "made.toml")
    tables = load(RunFolder.create(tmp_path).keep(smaller))
    assert tables.trials["queue_size"].tolist() == [500] * 3
    assert set(tables.epochs["trial_id"]) == set(tables.trials["trial_id"])


def test_a_varied_number_of_epochs_is_not_the_number_done(tmp_path):
    trials = load(make_run(tmp_path, study_text("learning_rate = [0.1, 0.2]"), lambda t: 3)).trials
    assert trials["epochs_done"].tolist() == [3] * 6
    text = study_text("epochs = [2, 4]").replace("epochs = 4\nbatch", "batch")
    trials = load(make_run(tmp_path / "epochs", text, lambda t: 1)).trials
    assert trials["epochs"].tolist() == [2, 4] * 3
    assert trials["epochs_done"].tolist() == [1] * 6
