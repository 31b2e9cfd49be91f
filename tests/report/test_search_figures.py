"""The figures and sentences of a search: what is drawn is what was found, in our colours."""

import re

import pytest

from nnclr_study.report import look
from nnclr_study.report.search_diagnostics import diagnose
from nnclr_study.report.search_figures import search_figures
from nnclr_study.report.search_findings import search_findings
from tests.report.test_search_diagnostics import STOPPED, by_queue, searched, suggestions
from tests.study.test_search import SEARCH

NAMES = {"history", "importance", "parallel", "contour", "edf", "pareto"}


def draw(tables):
    found = diagnose(tables)
    said = {name: f.text for name, f in search_findings({"search": found}).items()}
    return search_figures(tables, found), said, found


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Forty finished trials, four stopped ones and a failed one."""
    tmp_path = tmp_path_factory.mktemp("many")
    params = list(suggestions(45))
    outcomes = [*by_queue(params[:40], noise=0.004), *[STOPPED] * 4, "lost"]
    return draw(searched(tmp_path, outcomes, params, hours=lambda n: 1 + n % 7, gpus=1))


def test_every_figure_has_its_sentence(many):
    figures, said, _ = many
    assert set(figures) == set(said) == NAMES
    assert all(text.startswith("Exploratory: ") for text in said.values())


def test_before_the_first_finished_trial_there_is_nothing_to_draw(tmp_path):
    figures, said, _ = draw(searched(tmp_path, [STOPPED, "lost", 2, None]))
    assert not figures
    assert set(said) == NAMES
    assert set(said.values()) == {"Appears with the first finished trial."}


@pytest.mark.parametrize("count", [1, 2, 19])
def test_few_trials_are_drawn_without_importances(tmp_path, count):
    figures, said, _ = draw(searched(tmp_path, [0.5 + 0.01 * n for n in range(count)]))
    assert set(figures) == NAMES - {"importance"}
    assert said["importance"].endswith(f"{count} finished so far.")
    assert not [trace for trace in figures["contour"].data if trace.type == "contour"]


def test_short_trials_are_drawn_by_their_seconds(tmp_path):
    figures, _, _ = draw(searched(tmp_path, [0.5, 0.6], hours=lambda n: (20 + n) / 3600))
    _, front = figures["pareto"].data
    assert list(front.x) == pytest.approx([20, 21])
    assert figures["pareto"].layout.xaxis.title.text == "seconds a trial"


def test_one_knob_has_neither_lines_nor_a_contour(tmp_path):
    text = SEARCH.split("temperature =")[0]
    params = [{"queue_size": 50 + number} for number in range(3)]
    figures, said, _ = draw(searched(tmp_path, [0.5, 0.6, 0.7], params, text=text))
    assert set(figures) == {"history", "edf", "pareto"}
    assert said["contour"] == said["parallel"] != ""


def test_no_figure_names_a_colour_that_the_dark_theme_cannot_change(many):
    figures, _, _ = many
    for name, figure in figures.items():
        text = figure.to_json()
        assert set(re.findall(r"#[0-9A-Fa-f]{3,8}\b", text)) <= set(look.LIGHT), name
        assert set(re.findall(r"rgba?\([^)]*\)", text)) <= {"rgba(0,0,0,0)"}, name
        assert "colorscale" not in text
        assert figure.layout.template.layout.xaxis.fixedrange


def test_the_history_draws_every_trial_that_ended(many):
    figures, said, found = many
    traces = {trace.name: trace for trace in figures["history"].data}
    assert len(traces["finished"].x) == 40
    assert list(traces["stopped early"].x) == [40, 41, 42, 43]
    assert list(traces["failed"].x) == [44]
    low, high = figures["history"].layout.yaxis.range
    for name in ("finished", "best so far"):
        assert all(low < y < high for y in traces[name].y)
    assert {traces[name].yaxis for name in ("stopped early", "failed")} == {"y2"}
    assert list(traces["best so far"].y) == sorted(traces["best so far"].y)
    best = max(range(40), key=lambda place: found["history"][place]["val_probe_top1"])
    assert f"the best of 40 finished trials is number {best}," in said["history"]
    assert "look about 2.2 seed standard deviations too good" in said["history"]


def test_the_aim_of_a_search_is_said_where_it_is_another(tmp_path):
    text = SEARCH.replace("[search]\n", '[search]\nobjectives = ["val_knn_top1"]\n')
    _, said, _ = draw(searched(tmp_path, [0.5, 0.6], text=text))
    assert said["history"].endswith(" The search aimed at val_knn_top1.")


def test_importances_are_said_with_what_chance_gives(many):
    figures, said, found = many
    bars = figures["importance"].data[0]
    shares, times = found["importance"]["shares"], found["importance"]["times_chance"]
    assert list(bars.x) == list(times.values())
    assert bars.text[0] == f"{100 * shares['queue_size']:.0f} %"
    assert said["importance"] == (
        "Exploratory: queue_size decides most whether a trial is among the best third, with "
        f"{bars.text[0]} of all importance, {times['queue_size']:.1f} times what chance gives "
        "(PED-ANOVA, 40 completed trials)."
    )
    (line,) = figures["importance"].layout.shapes
    assert line.x0 == 1


def test_an_importance_within_chance_is_no_finding(many):
    _, _, found = many
    times = {knob: 0.9 / rank for rank, knob in enumerate(found["importance"]["shares"], 1)}
    weak = found | {"importance": found["importance"] | {"times_chance": times}}
    text = search_findings({"search": weak})["importance"].text
    assert text.startswith("Exploratory: no knob stands out from chance; queue_size comes first")


def test_a_knob_that_did_not_apply_stands_left_of_its_scale(tmp_path):
    params = list(suggestions(30))
    figures, _, found = draw(searched(tmp_path, by_queue(params), params))
    lines = {trace.name: trace for trace in figures["parallel"].data if trace.mode == "lines"}
    row = list(found["scales"]).index("lars_trust")
    thick = 0
    for name, line in lines.items():
        number = int(re.search(r"number (\d+)", name)[1])
        assert (line.x[row] < 0) == ("lars_trust" not in params[number])
        assert min(x for at, x in enumerate(line.x) if at != row) >= 0
        assert (line.line.width > 1) == (number in found["good"])
        thick += line.line.width > 1
    assert (len(lines), thick) == (30, 10)


def test_the_contour_s_filled_marks_are_the_best_third(many):
    figures, said, found = many
    marks = {trace.name: trace for trace in figures["contour"].data if trace.type == "scatter"}
    first, second = found["contour"]["knobs"]
    assert first == "queue_size"
    assert len(marks["the best third"].x) + len(marks["the others"].x) == found["contour"]["n"]
    assert figures["contour"].layout.xaxis.title.text == "queue_size (log scale)"
    low, high = found["good_values"]["queue_size"]
    assert f"queue_size {low:,} to {high:,} and {second} " in said["contour"]


def test_the_distribution_ends_at_all_trials(many):
    figures, said, _ = many
    (step,) = figures["edf"].data
    assert (step.y[0], step.y[-1], len(step.y)) == (0, 100, 41)
    assert list(step.x) == sorted(step.x)
    assert "; 4 stopped early, have no final accuracy and are left out." in said["edf"]


def test_the_front_is_a_line_of_its_own(many):
    figures, said, found = many
    beaten, front = figures["pareto"].data
    assert len(front.x) == len(found["pareto"]["front"])
    assert len(beaten.x) + len(front.x) == 40
    assert list(front.y) == sorted(front.y)
    assert figures["pareto"].layout.xaxis.title.text == "GPU-hours a trial"
    assert f"{len(front.x)} of 40 finished trials are beaten by none" in said["pareto"]
