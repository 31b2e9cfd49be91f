import json

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from tests.report.helpers import analysis_of

BASE = [0.80, 0.81, 0.83]
MIDDLE = [0.82, 0.83, 0.84]
HIGH = [0.85, 0.87, 0.87]


def test_means_and_intervals_are_scipys(tmp_path):
    arm = analysis_of(tmp_path, q0=BASE, q500=MIDDLE)["arms"][1]["val_probe_top1"]
    theirs = stats.ttest_1samp(MIDDLE, 0).confidence_interval(0.95)
    assert arm["n"] == 3
    assert arm["mean"] == pytest.approx(np.mean(MIDDLE))
    assert arm["sd"] == pytest.approx(np.std(MIDDLE, ddof=1))
    assert arm["interval"] == pytest.approx(tuple(theirs))


def test_comparisons_are_paired_bonferroni_and_holm(tmp_path):
    analysis = analysis_of(tmp_path, q0=BASE, q500=MIDDLE, q1000=HIGH)
    ours = [arm["vs_baseline"] for arm in analysis["arms"][1:]]
    theirs = [stats.ttest_rel(values, BASE) for values in (MIDDLE, HIGH)]
    adjusted = multipletests([test.pvalue for test in theirs], method="holm")[1]
    for comparison, test, p in zip(ours, theirs, adjusted, strict=True):
        assert comparison["interval"] == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert comparison["simultaneous"] == pytest.approx(tuple(test.confidence_interval(0.975)))
        assert comparison["p_holm"] == pytest.approx(p)
    assert analysis["arms"][0]["vs_baseline"] is None
    assert analysis["comparisons"] == 2


def test_a_failed_trial_is_counted_and_in_no_number(tmp_path):
    analysis = analysis_of(tmp_path, q0=[*BASE, 0.1], q500=[*MIDDLE, "NaN loss"])
    baseline, arm = analysis["arms"]
    assert (arm["finished"], arm["failed"], arm["planned"]) == (3, 1, 4)
    assert arm["val_probe_top1"]["mean"] == pytest.approx(np.mean(MIDDLE))
    assert arm["vs_baseline"]["pairs"] == 3
    assert arm["vs_baseline"]["mean"] == pytest.approx(np.mean(np.subtract(MIDDLE, BASE)))
    assert baseline["val_probe_top1"]["n"] == 4


def test_the_best_arm_is_chosen_by_val_alone(tmp_path):
    analysis = analysis_of(tmp_path, q0=BASE, q500=HIGH, q1000=MIDDLE)
    on_test = [arm["test_probe_top1"]["mean"] for arm in analysis["arms"]]
    assert min(on_test) == on_test[1]
    assert analysis["best"] == {"arm": 1, "tied": [], "runner_up": 2}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.90, 0.911, 0.929], "better"),
        ([0.70, 0.711, 0.729], "worse"),
        ([0.83, 0.80, 0.84], "not resolved"),
    ],
)
def test_verdicts(tmp_path, values, verdict):
    arm = analysis_of(tmp_path, q0=BASE, q500=values)["arms"][1]
    assert arm["vs_baseline"]["verdict"] == verdict


def test_where_holm_and_the_interval_disagree_neither_is_believed(tmp_path):
    strong = [b + d for b, d in zip(BASE, (0.1, 0.101, 0.102), strict=True)]
    between = [b + d for b, d in zip(BASE, (0.02, 0.03, 0.037), strict=True)]
    arm = analysis_of(tmp_path, q0=BASE, q500=strong, q1000=between)["arms"][2]
    low, high = arm["vs_baseline"]["simultaneous"]
    assert low < 0 < high
    assert arm["vs_baseline"]["p_holm"] < 0.05
    assert arm["vs_baseline"]["verdict"] == "depends on method"


def test_two_pairs_have_an_interval_and_no_verdict(tmp_path):
    comparison = analysis_of(tmp_path, q0=BASE[:2], q500=[0.9, 0.911])["arms"][1]["vs_baseline"]
    assert comparison["simultaneous"][0] > 0
    assert (comparison["p_holm"], comparison["verdict"]) == (None, None)


def test_an_interim_study_has_no_p_and_no_verdict(tmp_path):
    values = {"q0": [*BASE, 0.8], "q500": [0.90, 0.911, 0.929, 1]}
    analysis = analysis_of(tmp_path / "interim", **values)
    comparison = analysis["arms"][1]["vs_baseline"]
    assert analysis["status"]["interim"]
    assert analysis["status"]["left"] == 1
    assert comparison["pairs"] == 3
    assert (comparison["p_holm"], comparison["verdict"]) == (None, None)
    ended = analysis_of(tmp_path / "ended", **values | {"q500": [0.90, 0.911, 0.929, "lost"]})
    assert ended["arms"][1]["vs_baseline"]["verdict"] == "better"


@pytest.mark.parametrize("outcome", [None, "failed", 2, 0.8])
def test_an_analysis_is_json_in_every_state(tmp_path, outcome):
    analysis = analysis_of(tmp_path, q0=[outcome] * 3, q500=[outcome] * 3)
    assert json.loads(json.dumps(analysis, allow_nan=False))["schema"] == 1


def test_learning_is_the_best_arms_change_over_its_last_quarter(tmp_path):
    learning = analysis_of(tmp_path, q0=[0.8], q500=[0.9])["learning"]
    assert (learning["arm"], learning["epochs"], learning["last"]) == (1, 4, 1)
    # Epoch 3 of helpers.epoch_row at seed 1.
    third = 0.9 - 0.8 * 0.8**3 / 4 + 0.01 * ((21 + 3) % 5 - 2) / 2
    assert learning["change"] == pytest.approx(0.9 - third)
