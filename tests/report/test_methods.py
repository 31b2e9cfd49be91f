"""The methods paragraph says what was done, and nothing that was not."""

import pytest

from nnclr_study.report.analyse import analyse
from nnclr_study.report.load import load
from nnclr_study.report.methods import BIBTEX, methods
from tests.report.studies import GOLDEN, STATES


def paragraph(path, name):
    return methods(analyse(load((GOLDEN | STATES)[name](path))))


def test_a_grid_with_verdicts_names_every_test_with_its_numbers(tmp_path):
    text = paragraph(tmp_path, "rising")
    for part in (
        "4 condition(s) on digits were trained with 5 seed(s) each",
        "20 of 20 trials finished.",
        "over the 5 seeds that all compared ones finished",
        "accuracy ~ condition + seed (residual SD 0.03 points, 12 degrees of freedom)",
        "95 % for all 3 together (critical value 2.683)",
        "Holm's correction are printed as a check.",
        "the 90 % interval lies within 0.5 points of 0",
        "Hsu's multiple comparisons with the best",
        "stepping down from the largest while not inferior by 0.5 points",
        "line or hinge is chosen by AICc",
    ):
        assert part in text
    for part in ("failed", "exploratory", "not over", "calls of `run`"):
        assert part not in text


@pytest.mark.parametrize(
    ("name", "there", "not_there"),
    [
        ("unequal_spread", "must agree here: the conditions' standard deviations", "Optuna"),
        ("one_failure", "1 failed trial(s) are in no mean.", "not over"),
        ("running", "intervals are shown, tests are not.", "Optuna"),
        ("mixed_commits", "Trials ended in 2 calls of `run`; had seeds been added", "not over"),
        ("pruned_search", "suggested by Optuna (tpe, early stopping asha); 8 were", "Dunnett"),
        ("pruned_search", "All that is said of a search is exploratory", "condition(s)"),
        ("one_seed", "trained with 1 seed(s) each", "Dunnett"),
        ("no_baseline", "Hsu's multiple comparisons", "Dunnett"),
        ("two_factors", "Dunnett", "smallest sufficient"),
        ("nothing_finished", "0 of 6 trials finished.", "Dunnett"),
        ("all_failed", "6 failed trial(s)", "Dunnett"),
    ],
)
def test_only_what_was_done_is_said(tmp_path, name, there, not_there):
    text = paragraph(tmp_path, name)
    assert there in text
    assert not_there not in text


def test_the_test_split_is_read_once_and_the_paragraph_says_so(tmp_path):
    text = paragraph(tmp_path, "one_arm")
    assert "test_probe_top1 is read once, in a trial's last epoch, and nothing is chosen" in text


def test_bibtex_is_balanced_and_has_the_version():
    text = BIBTEX % "1.2.3"
    assert text.count("{") == text.count("}")
    assert "Version 1.2.3" in text
    assert "dwibedi2021nnclr" in text
