"""What is compared with what: complete blocks, what is left out of them, and the check beside."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols

from nnclr_study.report.analyse import analyse
from nnclr_study.report.findings import find
from nnclr_study.report.load import load
from tests.report.helpers import analysis_of, made_tables, make_run, study_text
from tests.report.studies import OOM, column, columns


def by_condition(path, grid, values, seeds=5):
    """Analyse a grid whose conditions have these means, in order; None: all of it failed."""
    text = study_text(grid, seeds=range(1, seeds + 1))
    places = {}

    def outcome(trial):
        place = places.setdefault(tuple(trial.condition.values()), len(places))
        mean = values[place]
        return OOM if mean is None else column(place % 4, mean)[trial.config.seed - 1]

    return analyse(load(make_run(path, text, outcome)))


def test_without_enough_complete_blocks_arms_are_compared_in_pairs(tmp_path):
    values = columns([0.85, 0.87, 0.86, 0.88], seeds=4)
    for place, name in enumerate(values):
        values[name][place] = OOM
    analysis = analysis_of(tmp_path, **values)
    for arm in analysis["arms"][1:]:
        assert arm["vs_baseline"]["pairs"] == 2
        assert arm["vs_baseline"]["interval"] is not None
        assert arm["vs_baseline"]["verdict"] is None
    assert "no seed finished both" not in find(analysis)["answer"].text


def test_verdicts_use_the_seeds_that_every_compared_arm_finished(tmp_path):
    values = columns([0.85, 0.87, 0.86])
    values["q500"][1] = OOM
    values["q1000"][3] = OOM
    analysis = analysis_of(tmp_path, **values)
    assert analysis["blocks"]["seeds"] == [1, 3, 5]
    assert analysis["blocks"]["df"] == 4
    kept = [0, 2, 4]
    base, arm = ([values[name][seed] for seed in kept] for name in ("q0", "q500"))
    versus = analysis["arms"][1]["vs_baseline"]
    assert versus["mean"] == pytest.approx(np.mean(np.subtract(arm, base)))
    assert versus["interval"] == pytest.approx(
        tuple(stats.ttest_rel(arm, base).confidence_interval(0.95))
    )
    assert versus["pairs"] == 3


def test_least_squares_over_all_trials_is_statsmodels(tmp_path):
    values = columns([0.85, 0.87, 0.86])
    values["q500"][1] = OOM
    values["q1000"][3] = OOM
    analysis = analysis_of(tmp_path, **values)
    rows = [
        {"arm": place, "seed": seed, "top1": top1}
        for place, own in enumerate(values.values())
        for seed, top1 in enumerate(own)
        if top1 != OOM
    ]
    model = ols("top1 ~ C(arm) + C(seed)", pd.DataFrame(rows)).fit()
    for place, arm in enumerate(analysis["arms"][1:], start=1):
        versus = arm["vs_baseline"]
        assert versus["least_squares"] == pytest.approx(model.params[f"C(arm)[T.{place}]"])
        assert versus["least_squares"] != pytest.approx(versus["mean"], abs=1e-9)


def test_an_arm_with_too_few_seeds_costs_the_others_none(tmp_path):
    values = columns([0.85, 0.87, 0.86])
    values["q1000"][2:] = [OOM] * 3
    analysis = analysis_of(tmp_path, **values)
    assert analysis["blocks"]["arms"] == [0, 1]
    assert analysis["blocks"]["seeds"] == [1, 2, 3, 4, 5]
    assert analysis["comparisons"] == 1
    assert analysis["best_set"] == [1]
    out = analysis["arms"][2]["vs_baseline"]
    assert out["pairs"] == 2
    assert not out["in_blocks"]
    assert out["interval"] is not None
    assert [out[key] for key in ("simultaneous", "p_holm", "p_dunnett", "verdict")] == [None] * 4
    assert analysis["arms"][2]["in_best_set"] is None


def test_without_a_baseline_the_others_are_still_compared_with_each_other(tmp_path):
    values = columns([0.85, 0.87, 0.86]) | {"q0": [OOM] * 5}
    analysis = analysis_of(tmp_path, **values)
    assert analysis["comparisons"] == 0
    assert analysis["blocks"]["arms"] == [1, 2]
    assert analysis["best_set"] == [1]
    assert [a["vs_baseline"] and a["vs_baseline"]["pairs"] for a in analysis["arms"]] == [
        None,
        0,
        0,
    ]
    assert analysis["arms"][1]["vs_baseline"]["least_squares"] is None


def test_the_smallest_sufficient_is_named_for_knobs_that_cost_alone(tmp_path):
    means = [0.85, 0.8695, 0.87]
    queue = by_condition(tmp_path / "q", "queue_size = [0, 500, 1_000]", means)
    assert queue["sufficient"]["arm"] == 1
    assert queue["sufficient"]["largest"] == 2
    assert -0.005 < queue["sufficient"]["lower"] < -0.0005
    width = by_condition(tmp_path / "w", "width = [8, 16, 32]", means)
    assert width["sufficient"]["arm"] == 1
    other = by_condition(tmp_path / "t", "temperature = [0.1, 0.2, 0.4]", means)
    assert other["sufficient"] is None
    assert other["trend"]["knob"] == "temperature"


def test_doses_in_any_order_give_the_same_trend(tmp_path):
    means = {0: 0.85, 500: 0.86, 1_000: 0.865, 4_000: 0.87}
    found = []
    for place, sizes in enumerate(([0, 500, 1_000, 4_000], [4_000, 500, 0, 1_000])):
        text = study_text(f"queue_size = {sizes}", seeds=range(1, 6))
        order = [500, 1_000, 4_000, 0]
        tables = made_tables(
            text,
            lambda t, order=order: column(
                order.index(t.config.queue_size), means[t.config.queue_size]
            )[t.config.seed - 1],
        )
        found.append((place, analyse(tables)))
    (_, one), (_, other) = found
    assert one["trend"]["slope"] == pytest.approx(other["trend"]["slope"])
    assert one["trend"]["saturation"] == pytest.approx(other["trend"]["saturation"])
    sizes = [
        analysis["arms"][analysis["sufficient"]["largest"]]["condition"]["queue_size"]
        for analysis in (one, other)
    ]
    assert sizes == [4_000, 4_000]


def test_words_have_no_trend(tmp_path):
    analysis = by_condition(tmp_path, 'optimizer = ["adam", "lars"]', [0.85, 0.86])
    assert analysis["trend"] is None
    assert analysis["sufficient"] is None
    assert analysis["arms"][1]["vs_baseline"]["verdict"] == "better"


def test_an_interaction_is_of_two_knobs_that_were_crossed_wholly(tmp_path):
    grid = "queue_size = [500, 0]\nwidth = [8, 16]"
    found = by_condition(tmp_path / "a", grid, [0.87, 0.89, 0.85, 0.86])["interaction"]
    assert found["levels"] == [[0, 500], [8, 16]]
    means = np.array(found["means"])
    assert means == pytest.approx(np.array([[0.8506, 0.8606], [0.8706, 0.8906]]), abs=1e-6)
    assert found["difference"] == pytest.approx(0.01)
    assert found["of"] == {"queue_size": [0, 500], "width": [8, 16]}
    lost = by_condition(tmp_path / "b", grid, [0.87, None, 0.85, 0.86])
    assert lost["interaction"] is None
    assert lost["blocks"]["arms"] == [0, 2, 3]


@pytest.mark.parametrize("values", [[0.8] * 5, [0.8, 0.81, 0.82, 0.83, 0.84]])
def test_what_leaves_nothing_to_chance_has_no_verdict(tmp_path, values):
    analysis = analysis_of(tmp_path, q0=values, q500=[value + 0.03125 for value in values])
    versus = analysis["arms"][1]["vs_baseline"]
    assert analysis["blocks"] is None
    assert versus["mean"] == pytest.approx(0.03125)
    assert (versus["simultaneous"], versus["verdict"]) == (None, None)
    assert analysis["best_set"] is None
