import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.multitest import multipletests

from nnclr_study.report.analyse import analyse
from nnclr_study.report.load import load
from tests.report.helpers import analysis_of, by_queue, make_run, study_text

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


def test_comparisons_are_dunnetts_with_seeds_as_blocks_and_holm_beside_them(tmp_path):
    analysis = analysis_of(tmp_path, q0=BASE, q500=MIDDLE, q1000=HIGH)
    ours = [arm["vs_baseline"] for arm in analysis["arms"][1:]]
    theirs = [stats.ttest_rel(values, BASE) for values in (MIDDLE, HIGH)]
    adjusted = multipletests([test.pvalue for test in theirs], method="holm")[1]
    long = [
        {"arm": arm, "seed": seed, "top1": top1}
        for arm, values in enumerate((BASE, MIDDLE, HIGH))
        for seed, top1 in enumerate(values)
    ]
    model = ols("top1 ~ C(arm) + C(seed)", pd.DataFrame(long)).fit()
    error = math.sqrt(model.mse_resid * 2 / 3)
    for comparison, test, p in zip(ours, theirs, adjusted, strict=True):
        assert comparison["interval"] == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert comparison["p_holm"] == pytest.approx(p)
        low, high = comparison["simultaneous"]
        assert (low + high) / 2 == pytest.approx(comparison["mean"])
        critical = (high - low) / 2 / error
        both = stats.multivariate_t(shape=[[1, 0.5], [0.5, 1]], df=model.df_resid, seed=0)
        assert both.cdf([critical] * 2, lower_limit=[-critical] * 2) == pytest.approx(
            0.95, abs=5e-4
        )
    assert analysis["blocks"]["residual_sd"] == pytest.approx(math.sqrt(model.mse_resid))
    assert analysis["blocks"]["df"] == model.df_resid == 4
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
        ([0.8001, 0.8099, 0.8301], "equivalent"),
    ],
)
def test_verdicts(tmp_path, values, verdict):
    arm = analysis_of(tmp_path, q0=BASE, q500=values)["arms"][1]
    assert arm["vs_baseline"]["verdict"] == verdict


def test_where_spreads_are_unequal_and_the_methods_disagree_neither_is_believed(tmp_path):
    steady = [b + d for b, d in zip(BASE, (0.02, 0.021, 0.022), strict=True)]
    analysis = analysis_of(tmp_path, q0=BASE, q500=[0.70, 0.85, 0.80], q1000=steady)
    assert analysis["blocks"]["sd_ratio"] > 3
    assert analysis["blocks"]["method"] == "holm"
    versus = analysis["arms"][2]["vs_baseline"]
    assert versus["simultaneous"][0] < 0 < versus["simultaneous"][1]
    assert versus["p_holm"] < 0.05 < versus["p_dunnett"]
    assert versus["verdict"] == "depends on method"


def test_two_pairs_have_an_interval_and_no_verdict(tmp_path):
    comparison = analysis_of(tmp_path, q0=BASE[:2], q500=[0.9, 0.911])["arms"][1]["vs_baseline"]
    assert comparison["simultaneous"][0] > 0
    assert [comparison[name] for name in ("p_dunnett", "p_holm", "verdict")] == [None] * 3


def test_an_interim_study_has_no_p_and_no_verdict(tmp_path):
    values = {"q0": [*BASE, 0.8], "q500": [0.90, 0.911, 0.929, 1]}
    analysis = analysis_of(tmp_path / "interim", **values)
    comparison = analysis["arms"][1]["vs_baseline"]
    assert analysis["status"]["interim"]
    assert analysis["status"]["left"] == 1
    assert comparison["pairs"] == 3
    assert [comparison[name] for name in ("p_dunnett", "p_holm", "verdict")] == [None] * 3
    assert comparison["simultaneous"] is not None
    for what in ("sufficient", "trend", "interaction"):
        assert analysis[what] is None
    ended = analysis_of(tmp_path / "ended", **values | {"q500": [0.90, 0.911, 0.929, "lost"]})
    assert ended["arms"][1]["vs_baseline"]["verdict"] == "better"


@pytest.mark.parametrize("outcome", [None, "failed", 2, 0.8])
def test_an_analysis_is_json_in_every_state(tmp_path, outcome):
    analysis = analysis_of(tmp_path, q0=[outcome] * 3, q500=[outcome] * 3)
    assert json.loads(json.dumps(analysis, allow_nan=False))["schema"] == 2


def test_learning_is_the_best_arms_change_over_its_last_quarter(tmp_path):
    learning = analysis_of(tmp_path, q0=[0.8], q500=[0.9])["learning"]
    assert (learning["arm"], learning["epochs"], learning["last"]) == (1, 4, 1)
    # Epoch 3 of helpers.epoch_row at seed 1.
    third = 0.9 - 0.8 * 0.8**3 / 4 + 0.01 * ((21 + 3) % 5 - 2) / 2
    assert learning["change"] == pytest.approx(0.9 - third)


def test_a_failure_has_a_rate_and_its_arm_a_mean_with_chance_in_it(tmp_path):
    baseline, arm = analysis_of(tmp_path, q0=[*BASE, 0.8], q500=[*MIDDLE, "NaN loss"])["arms"]
    test = stats.binomtest(1, 4).proportion_ci(0.95, method="exact")
    assert arm["failure_rate"] == pytest.approx((test.low, test.high))
    assert arm["mean_with_failed_at_chance"] == pytest.approx(np.mean([*MIDDLE, 0.1]))
    assert baseline["failure_rate"] is None
    assert baseline["mean_with_failed_at_chance"] is None


def test_gpu_hours_are_those_held_and_a_budget_stands_beside_them(tmp_path):
    text = "[budget]\ngpu_hours = 3\n" + study_text("queue_size = [0, 500]")
    analysis = analyse(load(make_run(tmp_path, text, lambda trial: 0.8, gpus=2)))
    assert analysis["status"]["gpu_hours"] == pytest.approx(2 * analysis["status"]["hours"])
    assert analysis["status"]["gpu_hours_budget"] == 3
    assert analysis["arms"][1]["mean_gpu_seconds"] == pytest.approx(20.0)


def test_the_margin_is_the_study_files(tmp_path):
    """The same rows: alike by half a point, and not by a hundredth of one."""
    values = {"q0": BASE, "q500": [0.8003, 0.8098, 0.8301]}
    words = []
    for points in (0.5, 0.01):
        text = study_text("queue_size = [0, 500]").replace(
            "seeds", f"margin_points = {points}\nseeds"
        )
        analysis = analyse(load(make_run(tmp_path / str(points), text, by_queue(**values))))
        assert analysis["study"]["margin"] == pytest.approx(points / 100)
        words.append(analysis["arms"][1]["vs_baseline"]["verdict"])
    assert words == ["equivalent", "not resolved"]
