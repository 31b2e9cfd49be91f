"""The page in every state of a study: what it says, and that it says it on a phone too."""

import re

import pytest

from tests.report.studies import STATES
from tests.report.test_browser import all_drawn
from tests.report.test_page import plain_text


def headings(page):
    return re.findall(r'<section id="(\w+)"', page.read_text())


def shown(page):
    return plain_text(page).replace("\u00a0", " ")


def cells(page, table):
    """The texts of a section's table, a list a row."""
    section = re.search(rf'<section id="{table}".*?</section>', shown(page), re.DOTALL)[0]
    body = re.search(r"<tbody>(.*?)</tbody>", section, re.DOTALL)[1]
    rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    return [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in rows
    ]


def verdicts(page):
    return [row[8] for row in cells(page, "conditions")]


def test_nothing_finished(page_of):
    page = page_of("nothing_finished")
    assert "None of 6 trials has finished yet: no answer yet." in shown(page)
    assert shown(page).count("Appears with the first finished trial.") == 2
    assert 'id="plot-completeness"' in page.read_text()
    assert headings(page)[:2] == ["completeness", "dose_response"]
    assert "Interim answer" in shown(page)


def test_one_seed(page_of):
    page = page_of("one_seed")
    assert "one seed: no uncertainty estimate" in shown(page)
    assert "1 paired seed: no interval" in shown(page)
    (_, *base), (_, *arm) = cells(page, "conditions")
    assert base[2:4] == arm[2:4] == ["-", "-"]
    assert arm[4] == "+1.94"
    assert verdicts(page) == ["-", "-"]
    assert {"best_set", "paired_seeds"}.isdisjoint(headings(page))


def test_two_seeds_have_intervals_and_no_verdict(page_of):
    page = page_of("two_seeds")
    _, arm = cells(page, "conditions")
    assert " to " in arm[3]
    assert arm[5] == "+2.01 (1.18 to 2.83)"
    assert arm[6:9] == ["-", "-", "-"], "p-values too"
    assert verdicts(page) == ["-", "-"]
    assert ": too few seeds for a verdict." in shown(page)
    assert 'class="answer hint"' in page.read_text()


def test_without_a_baseline_the_best_set_stands_and_the_way_out_is_told(page_of):
    page = page_of("no_baseline")
    assert 'id="plot-forest"' not in page.read_text()
    assert 'id="plot-best_set"' in page.read_text()
    assert "another one can be declared in the study file" in shown(page)
    assert "Best set: queue_size 1,000 alone" in shown(page)
    assert "no comparison" in shown(page)


def test_a_condition_that_failed_wholly_keeps_its_row(page_of):
    page = page_of("an_arm_of_nan")
    *_, lost = cells(page, "conditions")
    assert lost[:6] == ["1,000", "0/5", "-", "-", "-", "-"]
    assert '<a class="failed-word" href="#failed">0/5</a>' in page.read_text()
    assert "Too few finished to be compared: queue_size 1,000." in shown(page)
    assert "5 of 5 trials failed (95 % CI of the rate 48 to 100 %)" in shown(page)
    assert headings(page).index("failed") > headings(page).index("conditions")
    assert len(cells(page, "failed")) == 5
    assert {row[2] for row in cells(page, "failed")} == {"FloatingPointError: loss is NaN"}


def test_where_all_failed_the_failures_come_first(page_of):
    page = page_of("all_failed")
    assert headings(page)[0] == "failed"
    assert "All 6 trials failed: there is no answer." in shown(page)
    assert [row[2] for row in cells(page, "failed")] == ["OutOfMemoryError: 2 GiB"] * 6


def test_a_running_study_is_interim_without_p_and_reloads(page_of):
    page = page_of("running")
    assert '<meta http-equiv="refresh" content="30">' in page.read_text()
    assert "<h2>Interim answer</h2>" in shown(page)
    assert "Interim, 9 of 10 trials finished" in shown(page)
    assert "1 (1 running)" in shown(page)
    assert "The study is not over: intervals are shown, tests are not." in shown(page)
    own = r"<figcaption>.*?</figcaption>|verdicts and p-values come with the last trial"
    said = re.sub(own, "", shown(page), flags=re.DOTALL)
    assert "Dunnett p" not in said
    assert not re.search(r"\bp = |\bp &lt; |beats|▲|▼|not resolved|equivalent", said)
    assert "alone" not in said, "the best set is no verdict yet either"


def test_mixed_commits_are_named(page_of):
    page = page_of("mixed_commits")
    warning = re.search(r'<p class="warning" role="note">(.*?)</p>', shown(page))[1]
    assert warning.startswith("Not all trials ran alike: they differ in commit (0123456")
    assert "ffffffffff" in warning
    assert "machine (Linux 6.1 x86_64, Linux 5.4 aarch64)" in warning
    assert "torch (2.9.0, 2.10.0)" in warning
    assert warning.endswith("Verdicts count them as equal.")
    assert 'class="warning"' not in page_of("two_factors").read_text()


def test_one_condition_has_nothing_to_compare(page_of):
    page = page_of("one_arm")
    assert {"forest", "best_set"}.isdisjoint(headings(page))
    assert "difference to the baseline" not in shown(page)


def test_a_search_is_exploratory_and_its_stopped_trials_are_in_no_table(page_of):
    page = page_of("pruned_search")
    text = page.read_text()
    made = ["dose_response", "history", "importance", "parallel", "contour", "edf", "pareto"]
    assert [name for name in headings(page) if name in made] == [
        name for name in made if name != "importance"
    ]
    assert text.count('<small class="badge">exploratory</small>') == 6
    assert {"conditions", "forest", "best_set"}.isdisjoint(headings(page))
    rows = cells(page, "trials")
    assert [row[1] for row in rows].count("◂ stopped") == 3
    ranked = [float(row[6]) for row in rows if row[6] != "-"]
    assert ranked == sorted(ranked, reverse=True)
    assert all(row[6] == "-" for row in rows if "stopped" in row[1])


def test_a_confirmation_says_what_became_of_the_choice(page_of):
    page = page_of("confirmed")
    assert 'id="plot-confirmation"' in page.read_text()
    assert "0.6 points below the score by which made chose it" in shown(page)
    assert "These are fresh seeds, not those by which made chose." in shown(page)


def test_a_confirmation_of_other_epochs_is_held_against_no_score(page_of):
    page = page_of("confirmed_for_longer")
    assert 'id="plot-confirmation"' not in page.read_text()
    said = "not those by which made chose, whose trials had another number of epochs."
    assert said in shown(page)


def test_references_and_gallery_stand_on_the_page(page_of):
    page = page_of("whole")
    assert "NNCLR, 800 epochs: 93.7 % top-1 on test. a paper" in shown(page)
    assert "Published, other setup" in shown(page)
    gallery = re.search(r'<section id="gallery">.*?</section>', shown(page), re.DOTALL)[0]
    assert re.findall("[✓✕?] 0.[789]0", gallery)[:3] == ["✓ 0.90", "✕ 0.80", "? 0.70"]


@pytest.mark.parametrize("name", STATES)
def test_a_state_draws_on_a_phone(opened, page_of, name):
    """Without an error, without scrolling sideways, and with every figure that it names."""
    page = opened(page_of(name), 390)
    all_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("name", STATES)
def test_a_state_is_readable_without_javascript(opened, page_of, name):
    page = opened(page_of(name), 390, java_script_enabled=False)
    assert page.locator("#answer .sentence").is_visible()
    assert page.locator("#trials tbody tr").first.is_visible()
    assert page.locator(".filter").is_hidden()
    assert page.locator("#theme").is_hidden()
    boxes = page.locator("body").bounding_box()
    assert boxes["width"] == 390
    for waiting in page.locator(".plot").all():
        assert "Drawn by JavaScript" in waiting.inner_text()
