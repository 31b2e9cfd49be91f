from math import log10

import numpy as np
import pandas as pd
import pytest

from nnclr_study.report.analyse import analyse
from nnclr_study.report.figures import dose_response, learning_curves
from nnclr_study.report.load import load
from nnclr_study.study.plan import condition_label
from tests.report.helpers import make_run, study_text, tables_of

BASE = [0.80, 0.81, 0.83]
HIGH = [0.85, 0.87, 0.87]


def draw(tables):
    analysis = analyse(tables)
    figure = dose_response(tables.trials, analysis["arms"], analysis["study"]["knobs"])
    return figure, analysis


def drawn(tmp_path, grid, outcome=lambda t: 0.8 + 0.01 * t.config.seed):
    return draw(load(make_run(tmp_path, study_text(grid), outcome)))[0]


def means(figure):
    return [trace for trace in figure.data if trace.error_y.array is not None]


def seeds(figure):
    return [trace for trace in figure.data if trace.name and trace.name.endswith("seeds")]


def test_every_seed_is_a_dot_and_every_arm_a_mean_with_its_interval(tmp_path):
    figure, analysis = draw(tables_of(tmp_path, q0=BASE, q500=HIGH))
    (dots,), (marks,) = seeds(figure), means(figure)
    assert sorted(dots.y) == pytest.approx([80, 81, 83, 85, 87, 87])
    assert marks.y == pytest.approx([100 * np.mean(BASE), 100 * np.mean(HIGH)], abs=1e-3)
    for arm, half in zip(analysis["arms"], marks.error_y.array, strict=True):
        low, high = arm["val_probe_top1"]["interval"]
        assert half == pytest.approx(100 * (high - low) / 2, abs=1e-3)


def test_only_seeds_that_would_hide_each_other_step_aside(tmp_path):
    figure, _ = draw(tables_of(tmp_path, q0=BASE, q500=HIGH))
    (dots,) = seeds(figure)
    assert len(set(dots.x[:3])) == 1
    assert dots.x[4] != dots.x[5]
    assert dots.y[4] == dots.y[5]


def test_sizes_over_a_decade_stand_on_a_log_axis_with_0_left_of_it(tmp_path):
    figure = drawn(tmp_path, "queue_size = [10_000, 0, 500, 1_000]")
    places = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    assert places["1,000"] - places["500"] == pytest.approx(log10(2))
    assert places["10,000"] - places["1,000"] == pytest.approx(1)
    assert places["0"] < places["500"]
    (edge,) = figure.layout.shapes
    assert places["0"] < edge.x0 < places["500"]
    assert figure.layout.xaxis.title.text == "queue_size (log scale)"
    (line,) = [trace for trace in figure.data if trace.mode == "lines"]
    assert list(line.x) == sorted(places.values())[1:], "no line over the edge"


def test_values_within_a_decade_stand_where_they_are(tmp_path):
    figure = drawn(tmp_path, "temperature = [0.1, 0.2, 0.5]")
    assert list(figure.layout.xaxis.tickvals) == [0.1, 0.2, 0.5]
    assert not figure.layout.shapes


def test_values_that_nearly_meet_leave_room_at_the_edges(tmp_path):
    figure = drawn(tmp_path, "queue_size = [500, 10_000, 10_050]")
    least, *_, most = figure.layout.xaxis.tickvals
    low, high = figure.layout.xaxis.range
    assert least - low == pytest.approx(high - most) == pytest.approx((most - least) / 50)


def test_a_saturation_is_a_band_on_the_axis_of_the_doses(tmp_path):
    tables = tables_of(tmp_path, q500=BASE, q1000=HIGH, q10000=HIGH)
    found = {"saturation": 1_000.0, "saturation_interval": [700.0, 2_000.0], "saturated": True}
    figure = dose_response(tables.trials, analysed(tables), ["queue_size"], found)
    band, line = figure.layout.shapes
    assert (band.x0, band.x1) == pytest.approx((log10(700), log10(2_000)))
    assert line.x0 == pytest.approx(3)
    found["saturated"] = False
    without = dose_response(tables.trials, analysed(tables), ["queue_size"], found)
    assert not without.layout.shapes


def test_names_stand_side_by_side_and_are_not_joined(tmp_path):
    text = study_text('dataset = ["stl10", "digits"]').replace('dataset = "digits"', "")
    figure, _ = draw(load(make_run(tmp_path, text, lambda trial: 0.8 + 0.01 * trial.config.seed)))
    assert list(figure.layout.xaxis.ticktext) == ["stl10", "digits"]
    assert not [trace for trace in figure.data if trace.mode == "lines"]


def test_a_second_knob_has_its_own_colour_dash_and_symbol(tmp_path):
    grid = "queue_size = [500, 1_000]\ntemperature = [0.1, 0.2]"
    figure = drawn(tmp_path, grid)
    first, second = means(figure)
    assert (first.name, second.name) == ("temperature 0.1", "temperature 0.2")
    assert first.marker.color != second.marker.color
    assert first.marker.symbol != second.marker.symbol
    assert len({trace.line.dash for trace in figure.data if trace.mode == "lines"}) == 2
    assert not set(first.x) & set(second.x)
    assert figure.layout.showlegend


def test_one_seed_is_a_dot_and_no_mean(tmp_path):
    figure, _ = draw(tables_of(tmp_path, q0=[0.8], q500=[0.9]))
    (dots,), (marks,) = seeds(figure), means(figure)
    assert dots.y == pytest.approx([80, 90])
    assert list(dots.x) == list(figure.layout.xaxis.tickvals)
    assert not marks.x


def test_a_failed_trial_is_in_no_figure(tmp_path):
    tables = tables_of(tmp_path, q0=BASE, q500=[0.85, "lost", "lost"])
    figure, analysis = draw(tables)
    assert len(seeds(figure)[0].y) == 4
    curves = learning_curves(tables.epochs, analysis["arms"])
    assert sum(", seed " in trace.name for trace in curves.data) == 4


def test_curves_average_finished_seeds_and_have_a_band_from_three(tmp_path):
    tables = tables_of(tmp_path, q0=BASE, q500=[0.85, 0.87, 2])
    curves = {trace.name: trace for trace in learning_curves(tables.epochs, analysed(tables)).data}
    own = tables.epochs[tables.epochs["arm"] == 0]
    expected = 100 * own.groupby("epoch")["val_probe_top1"].mean()
    assert curves["queue_size 0 (n = 3)"].y == pytest.approx(expected.tolist(), abs=1e-3)
    assert len(curves["queue_size 0, 95 % band"].x) == 8
    assert "queue_size 500, 95 % band" not in curves
    assert "queue_size 500 (n = 2)" in curves
    assert len(curves["queue_size 500, seed 3"].x) == 2


def analysed(tables):
    return analyse(tables)["arms"]


def made_trials(**columns):
    """Rows of a trials table: what is not said of them is as if nothing was known of it."""
    count = len(next(iter(columns.values())))
    unknown = dict.fromkeys(
        ("host", "device", "seconds", "gpu_seconds", "images_per_second", "started_at"), None
    )
    known = {
        "trial_id": [f"trial-{place}" for place in range(count)],
        "status": ["finished"] * count,
        "seed": [1] * count,
        "ended_at": [None] * count,
    }
    return pd.DataFrame(unknown | known | columns, dtype=object)


def made_arm(size, mean=0.9, interval=(0.89, 0.91), n=5, **more):
    """An arm of the analysis."""
    top1 = {"n": n, "mean": mean, "sd": None, "interval": interval}
    condition = more.pop("condition", {"queue_size": size})
    arm = {"label": condition_label(condition), "condition": condition, "val_probe_top1": top1}
    return arm | {"vs_baseline": None, "vs_best": None, "in_best_set": None} | more


def made_difference(mean, simultaneous, verdict, **more):
    """An arm's `vs_baseline`."""
    known = {"pairs": 5, "dz": 2.0, "p_dunnett": 0.01, "p_holm": 0.04}
    return known | {"mean": mean, "simultaneous": simultaneous, "verdict": verdict} | more


def texts(figure):
    """The annotations of a figure."""
    return [note.text for note in figure.layout.annotations]


@pytest.mark.parametrize("draw_it", ["dose_response", "learning_curves"])
def test_a_label_is_drawn_as_it_is(tmp_path, draw_it):
    tables = tables_of(tmp_path, q0=BASE, q500=HIGH)
    arms = analysed(tables)
    for arm in arms:
        arm["label"] = "<b>bold</b>"
        arm["condition"] = arm["condition"] | {"recipe": "<b>bold</b>"}
    if draw_it == "dose_response":
        figure = dose_response(tables.trials, arms, ["queue_size", "recipe"])
    else:
        figure = learning_curves(tables.epochs, arms)
    assert "<b>" not in figure.to_json().replace("\\u003c", "<")
    assert "&lt;b&gt;" in figure.to_json()
