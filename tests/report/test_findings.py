import re

import numpy as np
import pytest

from nnclr_study.report.analyse import analyse
from nnclr_study.report.export import difference
from nnclr_study.report.findings import find
from nnclr_study.report.wording import p_value
from tests.report.helpers import analysis_of, made_tables, study_text

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
        "n = 3), and beats queue_size 0 by 10.0 points (95 % CI 6.8 to 13.2, simultaneous "
        "over 2 comparisons; 3 paired seeds)."
    )
    assert found.numbers["pairs"] == 3


def test_unresolved(tmp_path):
    found = answer(tmp_path, q0=BASE, q500=NOISY)
    assert found.level == "hint"
    assert found.text == (
        "queue_size 500 has the highest mean val_probe_top1: 82.3 % (95 % CI 77.2 to 87.5; "
        "n = 3), 1.0 points above queue_size 0 (95 % CI -4.0 to 6.0; 3 paired seeds): "
        "not resolved; about 128 seeds would resolve 0.5 points."
    )


def test_the_baseline_is_best(tmp_path):
    found = answer(tmp_path, q0=BETTER, q500=BASE, q1000=[0.70, 0.711, 0.73])
    assert found.level == "claim"
    assert "queue_size 0, the baseline, has the highest mean" in found.text
    assert "and beats the runner-up queue_size 500 by 10.00 points" in found.text
    assert "(95 % CI 9.86 to 10.14, simultaneous over 2 comparisons; 3" in found.text


def test_methods_that_disagree_are_said_with_the_p_that_does(tmp_path):
    found = answer(tmp_path, q0=BETTER, q500=BASE, q1000=[0.5, 0.6, 0.4])
    assert "10.0 points above the runner-up queue_size 500 (95 % CI -7.2 to 27.2, s" in found.text
    assert found.text.endswith("3 paired seeds; Holm p < 0.001): depends on method.")


def test_methods_that_disagree_for_want_of_spread_say_so(tmp_path):
    levels = {"q500": [0.86, 0.864, 0.868], "q1000": [0.78, 0.82, 0.8]}
    found = answer(tmp_path, q0=[0.8, 0.804, 0.808], **levels)
    assert found.text.endswith("all seeds alike: no paired test): depends on method.")


def test_a_margin_is_said_as_it_was_declared(tmp_path):
    analysis = analysis_of(tmp_path, q0=BASE, q500=NOISY)
    analysis["study"]["margin"] = 0.0025
    assert "seeds would resolve 0.25 points" in find(analysis)["answer"].text


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
    found = answer(tmp_path / "three", q0=[0.7], q500=[0.9], q1000=[0.9], q2000=[0.9])
    assert ", level with queue_size 1,000 and queue_size 2,000, 20.0 points" in found.text


def test_test_accuracy_is_that_of_the_arm_best_by_val(tmp_path):
    findings = find(analysis_of(tmp_path, q0=[0.8], q500=[0.9]))
    assert findings["test"].text.startswith("Its test_probe_top1 is 81.0 % (one seed")


def test_learning_says_which_way(tmp_path):
    findings = find(analysis_of(tmp_path, q0=[0.8], q500=[0.9]))
    assert findings["learning"].text == (
        "In the last epoch of 4, mean val_probe_top1 of queue_size 500 rose by 9.2 points."
    )


PRINTED = re.compile(r"95 % CI (-?[\d.]+) to (-?[\d.]+)(?:, simultaneous [^;]+)?; \d paired")
CELL = re.compile(r"[+-]?[\d.]+ \((-?[\d.]+) to (-?[\d.]+)\)")


def random_study(chance):
    """Return 2 to 4 queue sizes over 3 to 6 seeds, equal or not, one seldom far noisier."""
    random = np.random.default_rng(chance)
    arms, seeds = random.integers(2, 5), random.integers(3, 7)
    shift = random.choice([0.0, 0.0005, 0.002, 0.01, 0.03], arms)
    noise = 0.004 * random.choice([0.1, 1, 1, 1, 6], arms)
    level = random.normal(0, 0.003, seeds)
    values = random.normal(0.85, noise[:, None], (arms, seeds)) + shift[:, None] + level
    sizes = [0, 500, 1000, 2000][:arms]
    text = study_text(f"queue_size = {sizes}", range(1, 1 + seeds))
    found = dict(zip(sizes, values.tolist(), strict=True))
    return made_tables(text, lambda t: found[t.condition["queue_size"]][t.config.seed - 1])


@pytest.mark.parametrize("chance", range(60))
def test_printed_words_numbers_intervals_and_p_values_agree(chance):
    """Whatever the numbers, all that is printed of a difference says the same."""
    analysis = analyse(random_study(chance))
    method = analysis["blocks"]["method"]
    margin = 100 * analysis["study"]["margin"]
    for arm in analysis["arms"][1:]:
        versus = arm["vs_baseline"]
        low, high = map(float, CELL.fullmatch(difference(versus)).groups())
        printed_p = float(p_value(versus["p_dunnett"]).removeprefix("< "))
        resolved = low > 0 or high < 0
        assert resolved == (printed_p < 0.05)
        holm_says = float(p_value(versus["p_holm"]).removeprefix("< ")) < 0.05
        verdict = versus["verdict"]
        assert (verdict == "depends on method") == (method == "holm" and holm_says != resolved)
        if verdict != "depends on method":
            assert (verdict == "better") == (low > 0)
            assert (verdict == "worse") == (high < 0)
        if verdict == "equivalent":
            assert max(abs(100 * bound) for bound in versus["equivalence"]) < margin
    answer = find(analysis)["answer"]
    low, high = map(float, PRINTED.search(answer.text).groups())
    unsure = "not resolved" in answer.text or "depends on method" in answer.text
    assert ("beats" in answer.text) == (low > 0 and "depends on method" not in answer.text)
    assert low <= high
    assert unsure or "equivalent" in answer.text or low > 0
    assert answer.level == ("hint" if unsure else "claim")


def test_the_random_studies_show_every_verdict():
    """Else the test above would not be about them."""
    verdicts = {
        arm["vs_baseline"]["verdict"]
        for chance in range(60)
        for arm in analyse(random_study(chance))["arms"][1:]
    }
    assert verdicts == {"better", "worse", "equivalent", "not resolved", "depends on method"}
