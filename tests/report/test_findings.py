import re

import numpy as np
import pandas as pd
import pytest

from nnclr_study.report.analyse import analyse
from nnclr_study.report.findings import find
from nnclr_study.report.load import Tables
from nnclr_study.study.spec import parse_study
from tests.report.helpers import analysis_of, study_text

BASE = [0.80, 0.81, 0.83]
BETTER = [0.90, 0.911, 0.929]
NOISY = [0.83, 0.80, 0.84]
OOM = "OutOfMemoryError: 2 GiB"


def answer(tmp_path, **values):
    return find(analysis_of(tmp_path, **values))["answer"]


def test_resolved(tmp_path):
    found = answer(tmp_path, q0=BASE, q500=NOISY, q1000=BETTER)
    assert found.level == "claim"
    assert found.text == (
        "queue_size 1,000 has the highest mean val_probe_top1: 91.3 % (95 % CI 87.7 to 95.0; "
        "n = 3), and beats queue_size 0 by 10.00 points (95 % CI 9.64 to 10.36 after Bonferroni "
        "over 2 comparisons; 3 paired seeds)."
    )
    assert found.numbers["pairs"] == 3


def test_unresolved(tmp_path):
    found = answer(tmp_path, q0=BASE, q500=NOISY)
    assert found.level == "hint"
    assert found.text == (
        "queue_size 500 has the highest mean val_probe_top1: 82.3 % (95 % CI 77.2 to 87.5; "
        "n = 3), 1.0 points above queue_size 0 (95 % CI -4.0 to 6.0; 3 paired seeds): "
        "not resolved."
    )


def test_the_baseline_is_best(tmp_path):
    found = answer(tmp_path, q0=BETTER, q500=BASE, q1000=[0.5, 0.6, 0.4])
    assert found.level == "claim"
    assert "queue_size 0, the baseline, has the highest mean" in found.text
    assert "and beats the runner-up queue_size 500 by 10.00 points" in found.text
    assert "(95 % CI 9.64 to 10.36 after" in found.text


def test_one_seed(tmp_path):
    found = answer(tmp_path, q0=[0.8], q500=[0.9])
    assert found.level == "none"
    assert found.text == (
        "queue_size 500 has the highest val_probe_top1: 90.0 % (one seed: no uncertainty "
        "estimate), 10.0 points above queue_size 0 (1 paired seed: no interval)."
    )


def test_two_seeds_have_an_interval_and_no_verdict(tmp_path):
    found = answer(tmp_path, q0=BASE[:2], q500=BETTER[:2])
    assert found.level == "hint"
    assert "10.05 points above queue_size 0 (95 % CI 9.41 to 10.69; 2 paired seeds)" in found.text
    assert found.text.endswith(": too few seeds for a verdict.")


def test_one_condition(tmp_path):
    assert answer(tmp_path, q0=BASE).text == (
        "The mean val_probe_top1 is 81.3 % (95 % CI 77.5 to 85.1; n = 3). "
        "One condition: nothing to compare."
    )


def test_a_failed_cell_shows_in_n_and_in_a_sentence_of_its_own(tmp_path):
    findings = find(analysis_of(tmp_path, q0=BASE, q500=[OOM, *BETTER[1:]]))
    assert "n = 2 of 3)" in findings["answer"].text
    assert findings["answer"].text.endswith("2 paired seeds): too few seeds for a verdict.")
    assert findings["failed"].text == "1 of 6 trials failed; a failed trial is in no mean."
    assert findings["status"].text == "5 of 6 trials finished, 1 failed; 52 s of trial time."


def test_arms_that_share_no_seed_are_not_compared(tmp_path):
    found = answer(tmp_path, q0=[0.8, OOM], q500=[OOM, 0.9])
    assert found.text.endswith("no seed finished both there and in queue_size 0: no comparison.")


def test_a_lost_baseline_is_named(tmp_path):
    found = answer(tmp_path, q0=[OOM] * 3, q500=BASE)
    assert found.text.endswith("no seed finished both there and in queue_size 0: no comparison.")


def test_only_the_baseline_finished(tmp_path):
    found = answer(tmp_path, q0=BASE, q500=[OOM] * 3)
    assert found.text.endswith("n = 3); no other condition has a finished trial.")


def test_all_failed(tmp_path):
    findings = find(analysis_of(tmp_path, q0=[OOM], q500=[OOM]))
    assert findings["answer"].text == "All 2 trials failed: there is no answer."
    assert findings["test"].text == ""


def test_none_finished(tmp_path):
    findings = find(analysis_of(tmp_path, q0=[None, 2], q500=[OOM, None]))
    assert findings["answer"].text == "None of 4 trials has finished yet: no answer yet."
    assert findings["dose_response"].text == "Appears with the first finished trial."


def test_interim_claims_nothing(tmp_path):
    found = answer(tmp_path, q0=[*BASE, 0.8], q500=[*BETTER, None])
    assert found.level == "hint"
    assert found.text.startswith("Interim, 7 of 8 trials finished: queue_size 500 has the highest")
    assert found.text.endswith("3 paired seeds).")
    assert not re.search("beats|better|resolved|p =", found.text)


def test_seeds_without_spread_carry_no_interval(tmp_path):
    found = answer(tmp_path, q0=[0.8] * 3, q500=[0.9] * 3)
    assert found.level == "none"
    assert "90.0 % (n = 3, all alike: no interval)" in found.text
    assert "(3 paired seeds, all alike: no interval)" in found.text


def test_arms_level_at_the_top_are_all_named(tmp_path):
    found = answer(tmp_path, q0=[0.7], q500=[0.9], q1000=[0.9])
    assert "queue_size 500 has the highest" in found.text
    assert ", level with queue_size 1,000" in found.text


def test_test_accuracy_is_that_of_the_arm_best_by_val(tmp_path):
    findings = find(analysis_of(tmp_path, q0=[0.8], q500=[0.9]))
    assert findings["test"].text.startswith("Its test_probe_top1 is 81.0 % (one seed")


def test_learning_says_which_way(tmp_path):
    findings = find(analysis_of(tmp_path, q0=[0.8], q500=[0.9]))
    assert findings["learning"].text == (
        "In the last epoch of 4, mean val_probe_top1 of queue_size 500 rose by 9.2 points."
    )


STUDY = parse_study(study_text("queue_size = [0, 500, 1_000]"), "made.toml")
PRINTED = re.compile(r"95 % CI (-?[\d.]+) to (-?[\d.]+)(?: after [^;]+)?; 3 paired")


@pytest.mark.parametrize("chance", range(60))
def test_printed_words_numbers_and_intervals_agree(chance):
    """Whatever the numbers, wording and printed interval say the same."""
    random = np.random.default_rng(chance)
    shift = random.choice([0.0, 0.002, 0.01, 0.03], 3)
    values = random.normal(0.85, 0.004, (3, 3)) + shift[:, None]
    rows = [
        {
            "trial_id": f"{arm}-{seed}",
            "status": "finished",
            "seed": seed,
            "arm": arm,
            "val_probe_top1": values[arm, seed],
            "test_probe_top1": values[arm, seed],
            "seconds": 1.0,
        }
        for arm in range(3)
        for seed in range(3)
    ]
    epochs = pd.DataFrame(columns=["arm", "status", "epoch", "val_probe_top1"])
    arms = [{"queue_size": size} for size in (0, 500, 1000)]
    analysis = analyse(Tables(STUDY, arms, ["digits"], pd.DataFrame(rows), epochs, []))
    for arm in analysis["arms"][1:]:
        versus = arm["vs_baseline"]
        low, high = versus["simultaneous"]
        assert (versus["verdict"] in ("better", "worse")) == (low > 0 or high < 0)
        assert versus["verdict"] == "not resolved" or versus["p_holm"] < 0.05
    text = find(analysis)["answer"].text
    low, high = map(float, PRINTED.search(text).groups())
    assert ("beats" in text) == (low > 0)
    assert ("not resolved" in text or "depends on method" in text) == (low <= 0 <= high)
