import pytest

from nnclr_study.report.load import load
from nnclr_study.report.setup import HEALTH, health, setup
from nnclr_study.study.plan import plan_trials
from tests.report.helpers import made_session, make_run, run_of, study_text, write_trial
from tests.report.studies import STATES


def test_what_all_trials_share_is_not_told(tmp_path):
    found = setup(load(run_of(tmp_path, q0=[0.8, 0.81], q500=[0.9, "OOM"])))
    assert found["mixed"] == {}
    assert found["sessions"] == 1


def test_commit_machine_device_and_versions_are_told_where_they_differ(tmp_path):
    mixed = setup(load(STATES["mixed_commits"](tmp_path)))["mixed"]
    assert mixed == {
        "commit": ["0123456789abcdef0123456789abcdef01234567", "f" * 40],
        "machine": ["Linux 6.1 x86_64", "Linux 5.4 aarch64"],
        "torch": ["2.9.0", "2.10.0"],
        "images of digits, 32 px": ["0123456789abcdef", "f" * 16],
    }


def test_a_session_in_which_no_trial_ended_counts_for_nothing(tmp_path):
    folder = run_of(tmp_path, q0=[0.8], q500=[0.9])
    folder.append_session(made_session(commit="f" * 40))
    assert setup(load(folder))["mixed"] == {}
    assert setup(load(folder))["sessions"] == 1


def test_hosts_have_their_median_pace_over_finished_trials(tmp_path):
    folder = make_run(tmp_path, study_text("", seeds=range(1, 6)), lambda trial: None)
    *trials, failed, _ = plan_trials(folder.study())
    for trial, host in zip(trials, ("b", "a", "b"), strict=True):
        write_trial(folder, trial, 0.8, host=host)
    write_trial(folder, failed, "OOM", host="c")
    tables = load(folder)
    pace = tables.trials["images_per_second"]
    assert pace.notna().tolist() == [True] * 4 + [False]
    tables.trials.loc[[0, 2], "images_per_second"] = [100.0, 300.0]
    assert setup(tables)["hosts"] == [
        {"host": "a", "trials": 1, "images_per_second": pace[1]},
        {"host": "b", "trials": 2, "images_per_second": 200.0},
    ]


def test_images_a_second_count_training_steps_alone(tmp_path):
    folder = run_of(tmp_path, q0=[0.8])
    (trial,) = plan_trials(folder.study())
    (pace,) = load(folder).trials["images_per_second"]
    # Every epoch of helpers.epoch_row trains for 2 of its 2.5 seconds.
    assert pace == trial.config.steps_per_epoch * trial.config.global_batch / 2.0


def test_health_is_the_finished_trials_last_epoch(tmp_path):
    tables = load(run_of(tmp_path, q0=[0.8, 0.8], q500=[0.9, 2]))
    without, with_queue = (health(tables.epochs, arm) for arm in (0, 1))
    assert set(without) == set(HEALTH)
    assert [without[name] for name in ("nn_same_label", "nn_age", "queue_used")] == [None] * 3
    assert without["rankme"] == 14.0, "10 and the epochs"
    assert with_queue["nn_same_label"] == pytest.approx(0.79)
    assert with_queue["nn_age"] == pytest.approx(500 / 72 / 2)
    assert health(tables.epochs[:0], 0) == dict.fromkeys(HEALTH)
