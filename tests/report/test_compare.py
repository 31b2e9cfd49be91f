"""Runs side by side: what matches, what is said of it, and the page."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from nnclr_study.errors import RunFolderError
from nnclr_study.report.compare import compare
from nnclr_study.report.compare_page import build_comparison, find_differences
from nnclr_study.report.load import load
from nnclr_study.report.page import build_report
from nnclr_study.study.plan import suggested_trial
from nnclr_study.study.rows import Suggestion
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.report.helpers import by_queue, make_run, study_text, tables_of, write_trial
from tests.report.test_page import HOSTILE, own_text

BASE = [0.80, 0.81, 0.83]
OTHER = [0.82, 0.83, 0.84]
BEST = [0.90, 0.911, 0.929]


def two(path, first, second):
    return compare([tables_of(path / "a", **first), tables_of(path / "b", **second)])


def said(comparison):
    return [finding.text for finding in find_differences(comparison)]


def run_with(path, text, outcome=lambda trial: 0.8, **session):
    """A run whose only session is told otherwise."""
    folder = make_run(path, text, outcome)
    file = folder.path / "sessions.jsonl"
    file.write_text(json.dumps(json.loads(file.read_text()) | session) + "\n")
    return load(folder)


def test_differences_are_paired_second_minus_first_and_bonferroni(tmp_path):
    comparison = two(tmp_path, {"q0": BASE, "q500": BASE}, {"q0": OTHER, "q500": BEST})
    arms = comparison["pairs"][0]["arms"]
    assert [arm["label"] for arm in arms] == ["queue_size 0", "queue_size 500"]
    assert comparison["comparisons"] == 2
    for arm, values in zip(arms, (OTHER, BEST), strict=True):
        test, difference = stats.ttest_rel(values, BASE), arm["difference"]
        assert difference["mean"] == pytest.approx(np.mean(np.subtract(values, BASE)))
        assert difference["interval"] == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert difference["simultaneous"] == pytest.approx(tuple(test.confidence_interval(0.975)))
        assert arm["second"]["mean"] == pytest.approx(np.mean(values))
        assert arm["second"]["n"] == 3
        own = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert arm["second"]["interval"] == pytest.approx(tuple(own))
    assert [arm["difference"]["verdict"] for arm in arms] == ["not resolved", "better"]
    turned = two(tmp_path / "turned", {"q0": BEST}, {"q0": BASE})["pairs"][0]["arms"][0]
    assert turned["difference"]["verdict"] == "worse"


def test_conditions_match_by_their_whole_config(tmp_path):
    one = make_run(tmp_path / "a", study_text("queue_size = [0, 500]"), lambda t: 0.8)
    text = study_text("temperature = [0.1, 0.2]").replace("[grid]", "queue_size = 500\n[grid]")
    two = make_run(tmp_path / "b", text, lambda t: 0.8)
    (pair,) = compare([load(one), load(two)])["pairs"]
    (arm,) = pair["arms"]
    assert arm["condition"] == {"queue_size": 500, "temperature": 0.1}
    assert pair["unmatched"] == [
        ["queue_size 0, temperature 0.1"],
        ["queue_size 500, temperature 0.2"],
    ]
    assert pair["same"] == pair["trials"] == 3


def test_what_sets_every_trial_apart_is_named(tmp_path):
    runs = [
        load(make_run(tmp_path / f"{epochs}", study_text(epochs=epochs), lambda t: 0.8))
        for epochs in (4, 8)
    ]
    comparison = compare(runs)
    assert comparison["pairs"][0]["otherwise_set"] == {"epochs": [4, 8]}
    assert said(comparison) == [
        "made (2) has no condition in common with made (1): there epochs is 8, not 4. There is "
        "nothing to compare."
    ]


def test_only_seeds_that_finished_in_both_are_paired(tmp_path):
    comparison = two(
        tmp_path, {"q0": [*BASE, 0.1, "OOM"]}, {"q0": [*BEST, "NaN loss", 0.9], "q500": BASE * 2}
    )
    arm = comparison["pairs"][0]["arms"][0]
    assert (arm["first"]["n"], arm["second"]["n"]) == (4, 4)
    assert arm["difference"]["pairs"] == 3
    assert arm["difference"]["mean"] == pytest.approx(np.mean(np.subtract(BEST, BASE)))


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (
            BASE[:2],
            [0.9, 0.9],
            "too few paired seeds for a verdict; the largest difference: queue",
        ),
        ([*BASE, 2], [*BEST, 0.9], "Interim: made (2) against made (1) in 1 matched condition"),
        (
            [0.8, "lost"],
            ["lost", 0.8],
            "share 1 matched condition, but no seed has finished in bo",
        ),
    ],
)
def test_there_is_no_verdict_of_two_seeds_or_of_a_run_that_is_not_over(
    tmp_path, first, second, text
):
    comparison = two(tmp_path, {"q0": first}, {"q0": second})
    assert comparison["pairs"][0]["arms"][0]["difference"]["verdict"] is None
    assert text in said(comparison)[0]
    json.dumps(comparison, allow_nan=False)


def test_trials_are_the_same_to_the_bit_or_they_are_not(tmp_path):
    values = {"q0": BASE, "q500": OTHER}
    comparison = two(tmp_path, values, values)
    assert said(comparison) == [
        "made (2) and made (1): all 6 trials that finished in both are the same to the bit."
    ]
    assert comparison["pairs"][0]["arms"][0]["difference"]["simultaneous"] is None
    nearly = two(tmp_path / "near", values, values | {"q500": [*OTHER[:2], np.nextafter(0.84, 1)]})
    assert nearly["pairs"][0]["same"] == 5
    assert "5 of 6 trials are the same to the bit" in said(nearly)[0]


def test_the_same_accuracy_after_another_loss_is_not_the_same_to_the_bit(tmp_path):
    one, two = (make_run(tmp_path / x, study_text("", [1]), lambda trial: 0.8) for x in "ab")
    file = two.path / "epochs.jsonl"
    *rows, last = map(json.loads, file.read_text().splitlines())
    last["c_loss"] += 1e-9
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, last]))
    (pair,) = compare([load(one), load(two)])["pairs"]
    assert (pair["trials"], pair["same"]) == (1, 0)


def test_the_sentence_says_where_a_run_is_better_and_worse_with_the_interval(tmp_path):
    values = {"q0": BASE, "q500": BEST, "q1000": BASE}
    comparison = two(tmp_path, values, {"q0": BEST, "q500": BASE, "q1000": OTHER})
    (finding,) = find_differences(comparison)
    assert finding.level == "claim"
    low, high = (100 * b for b in comparison["pairs"][0]["arms"][0]["difference"]["simultaneous"])
    assert finding.text.startswith(
        "made (2) beats made (1) in 1 of 3 matched conditions: queue_size 0, by 10.00 points "
        f"(95 % CI {low:.2f} to {high:.2f} after Bonferroni over 3 comparisons; 3 paired seeds). "
        "made (2) is worse than made (1) in 1 of 3 matched conditions: queue_size 500, by 10.00"
    )


def test_a_difference_that_is_not_resolved_never_stands_without_its_interval(tmp_path):
    first, second = {"q0": BASE, "q500": BASE}, {"q0": OTHER, "q500": OTHER}
    (finding,) = find_differences(two(tmp_path, first, second))
    assert finding.level == "hint"
    assert finding.text == (
        "No difference between made (2) and made (1) is resolved in 2 matched conditions; the "
        "largest: queue_size 0, 1.7 points (95 % CI -0.4 to 3.7 after Bonferroni over 2 "
        "comparisons; 3 paired seeds) above made (1). 0 of 6 trials are the same to the bit."
    )


def test_every_later_run_stands_against_the_first(tmp_path):
    runs = [
        tables_of(tmp_path / name, q0=values, q500=values)
        for name, values in (("a", BASE), ("b", BEST), ("c", OTHER))
    ]
    comparison = compare(runs)
    assert comparison["comparisons"] == 4, "two conditions of two pairs"
    assert [(pair["first"], pair["second"]) for pair in comparison["pairs"]] == [(0, 1), (0, 2)]
    assert [study["label"] for study in comparison["studies"]] == [
        f"made ({place})" for place in (1, 2, 3)
    ]
    interval = comparison["pairs"][1]["arms"][0]["difference"]["simultaneous"]
    theirs = stats.ttest_rel(OTHER, BASE).confidence_interval(1 - 0.05 / 4)
    assert interval == pytest.approx(tuple(theirs))


def test_a_suggestion_that_came_twice_counts_once(tmp_path):
    text = study_text("", [1]).replace(
        "[grid]", "[search.space]\nqueue_size = { low = 72, high = 90 }"
    )
    study = parse_study(text + "[budget]\ntrials = 3\n", "hunt.toml")
    folder = RunFolder.create(tmp_path / "hunt").keep(study)
    for number, top1 in enumerate((0.7, 0.8, "lost")):
        params = {"queue_size": 80}
        trial = suggested_trial(study, number, params)
        folder.append_suggestion(Suggestion(trial_id=trial.id, number=number, params=params))
        write_trial(folder, trial, top1)
    grid = make_run(tmp_path / "grid", study_text("queue_size = [80]", [1]), lambda t: 0.75)
    (pair,) = compare([load(grid), load(folder)])["pairs"]
    (arm,) = pair["arms"]
    assert (arm["second"]["n"], arm["second"]["mean"]) == (1, 0.7)
    assert arm["difference"]["mean"] == pytest.approx(-0.05)


def test_what_the_runs_ran_with_is_told_where_it_differs(tmp_path):
    text = study_text("", [1])
    versions = {"nnclr-study": "0.1.0", "torch": "2.10.0", "ray": "2.60.0"}
    runs = [
        run_with(tmp_path / "a", text),
        run_with(tmp_path / "b", text, versions=versions, commit="f" * 40, gpus=8),
    ]
    comparison = compare(runs)
    assert comparison["differing"] == ["commit", "torch", "hardware", "ray"]
    assert comparison["studies"][1]["ran_with"]["torch"] == ["2.10.0"]
    assert comparison["studies"][0]["ran_with"]["hardware"] == ["1 node, 2 CPUs, 0 GPUs"]
    assert compare([runs[0], runs[0]])["differing"] == []


def test_the_page_warns_of_what_else_may_stand_behind_a_difference(tmp_path):
    text = study_text("", [1, 2])
    run_with(tmp_path / "a", text)
    run_with(tmp_path / "b", text, lambda t: 0.9 if t.config.seed == 1 else 1, commit="f+changes")
    bare = make_run(tmp_path / "c", text, lambda t: 0.9)
    (bare.path / "sessions.jsonl").unlink()
    page = build_comparison([tmp_path / name for name in "abc"], tmp_path / "out").page.read_text()
    cautions = re.findall(r'<li class="told">(.*?)</li>', page)
    assert cautions == [
        "The runs differ in commit, nnclr-study, torch, machine, hardware, workers a trial: what "
        "differs between them may come from there.",
        "made (2) ran with uncommitted changes: its commit does not tell all.",
        "made (2) is not over: 1 of 2 trials finished. Verdicts come with the last.",
        "made (3) records no session: what it ran with is not known.",
    ]
    assert page.count("≠ differs") == 6
    same = build_comparison([tmp_path / "a", tmp_path / "a"], tmp_path / "same").page.read_text()
    assert "<aside" not in same


def test_a_comparison_is_a_page_and_its_numbers(tmp_path):
    for name, values in (("a", BASE), ("b", BEST)):
        make_run(tmp_path / name, study_text("queue_size = [0]"), by_queue(q0=values))
    report = build_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert {path.name for path in report.page.parent.iterdir()} == {
        *("comparison.html", "comparison.json")
    }
    numbers = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (numbers["schema"], numbers["comparisons"]) == (1, 1)
    page = report.page.read_text()
    assert report.answer.startswith("made (2) beats made (1) in 1 of 1 matched condition")
    assert report.answer in page.replace("\u00a0", " ")
    assert '<td class="number">+10.00</td>' in page
    assert '<td class="verdict better">▲ better</td>' in page
    assert "<script" not in page


def test_a_bound_near_0_keeps_its_side_in_the_table(tmp_path):
    """The mean is one half-width and a millionth away from 0."""
    spread = np.array([-0.01, 0.0, 0.01])
    half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    first = [0.5, 0.5, 0.5]
    second = [float(x) for x in 0.5 + spread + half + 1e-6]
    for name, values in (("a", first), ("b", second)):
        make_run(tmp_path / name, study_text("queue_size = [0]"), by_queue(q0=values))
    page = build_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "out").page.read_text()
    assert "▲ better" in page
    low = re.search(r">([-\d.]+) to [\d.]+</td>\s*<td class=\"drawn", page)[1]
    assert float(low) > 0


def test_text_of_the_runs_stays_text_and_no_host_is_named(tmp_path):
    text = study_text("", [1], question=HOSTILE)
    run_with(tmp_path / "a", text, machine=HOSTILE)
    run_with(tmp_path / "b", text, versions={HOSTILE: HOSTILE})
    page = build_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "out").page
    assert "alert(" in page.read_text()
    assert "<script" not in page.read_text()
    assert "<img" not in page.read_text()
    assert not re.findall(
        r"""(?:src|href|url\()\s*[=(]?\s*["']?(?:https?:)?//""", page.read_text()
    )
    policy = re.compile(r'http-equiv="Content-Security-Policy" content="(.*?)"')
    build_report(tmp_path / "a")
    other = own_text(tmp_path / "a" / "report" / "index.html")
    assert policy.search(page.read_text())[1] == policy.search(other)[1]


def test_no_folder_and_no_place_to_write_are_said(finished, tmp_path):
    with pytest.raises(RunFolderError, match="no run folder"):
        build_comparison([finished.path, tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        build_comparison([finished.path, finished.path], tmp_path / "file")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_scrolls_no_way_but_down(chromium, tmp_path, width):
    name = "x" * 64
    for run, values in (("a", BASE), ("b", OTHER)):
        text = study_text("queue_size = [0, 500]\ntemperature = [0.1, 0.2]")
        make_run(
            tmp_path / run, text.replace("made", name), lambda t, v=values: v[t.config.seed - 1]
        )
    url = build_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "out").page.as_uri()
    complaints = []
    page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme="dark")
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(url)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#pair-1 svg circle").count() == 4
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 29)"
    assert complaints == []
    page.close()
