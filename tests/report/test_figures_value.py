import pytest

from nnclr_study.report.figures import cell_means, confirmation, cost, interaction
from nnclr_study.report.intervals import t_interval
from tests.report.test_figures import made_arm, made_trials, texts

HOURS = [[1.0, 1.2, 1.1], [2.0, 2.1, 2.3], [3.0, 3.2, 3.1]]
CROSSED = {
    "knobs": ["queue_size", "temperature"],
    "levels": [[500, 0, 10_000], [0.1, 0.2]],
    "means": [[0.90, 0.91], [0.85, 0.84], [0.92, None]],
}


def priced(means=(0.88, 0.87, 0.90), column="gpu_seconds", spent=HOURS, unit=3600):
    values = [unit * each for own in spent for each in own]
    trials = made_trials(
        arm=[0, 0, 0, 1, 1, 1, 2, 2, 2],
        gpu_seconds=values if column == "gpu_seconds" else [0.0] * 9,
        seconds=values if column == "seconds" else [1.0] * 9,
    )
    arms = [
        made_arm(size, mean, (mean - 0.01, mean + 0.01), **{f"mean_{column}": unit * sum(own) / 3})
        for size, mean, own in zip((0, 500, 1000), means, spent, strict=True)
    ]
    return cost(trials, arms)


@pytest.mark.parametrize(
    ("column", "title"), [("gpu_seconds", "GPU-hours a trial"), ("seconds", "hours a trial")]
)
def test_an_arm_is_a_cross_of_intervals_over_what_its_trials_took(column, title):
    figure = priced(column=column)
    assert figure.layout.xaxis.title.text == title
    _, *crosses = figure.data
    assert [cross.y[0] for cross in crosses] == [88, 87, 90]
    for cross, own in zip(crosses, HOURS, strict=True):
        low, high = t_interval(own)
        assert cross.x[0] == pytest.approx(sum(own) / 3)
        assert cross.error_x.array[0] == pytest.approx((high - low) / 2)
        assert cross.error_y.array[0] == pytest.approx(1)
    assert len({(cross.marker.color, cross.marker.symbol) for cross in crosses}) == 3


@pytest.mark.parametrize("column", ["gpu_seconds", "seconds"])
@pytest.mark.parametrize(
    ("unit", "most", "name"),
    [(1, 59.9, "seconds"), (60, 1.0, "minutes"), (60, 59.9, "minutes"), (3600, 1.0, "hours")],
)
def test_the_axis_counts_in_what_fits_the_dearest_arm(column, unit, most, name):
    figure = priced(column=column, unit=unit, spent=[[0.2] * 3, [0.3] * 3, [most] * 3])
    gpu = "GPU-" if column == "gpu_seconds" else ""
    assert figure.layout.xaxis.title.text == f"{gpu}{name} a trial"
    assert [cross.x[0] for cross in figure.data[1:]] == pytest.approx([0.2, 0.3, most])


def test_a_hover_tells_the_time_in_words():
    cross = priced(column="seconds", unit=60).data[1]
    assert list(cross.customdata[0]) == ["queue_size 0", "1.1 min"]
    assert "GPU" not in cross.hovertemplate
    assert "of GPU time" in priced(unit=60).data[1].hovertemplate


def test_costs_from_0_or_around_those_that_are_alike():
    apart = priced(column="seconds", unit=1)
    low, high = apart.layout.xaxis.range
    assert low == 0
    assert high > max(cross.x[0] + cross.error_x.array[0] for cross in apart.data[1:])
    alike = priced(column="seconds", unit=1, spent=[[50.0] * 3] * 3)
    assert list(alike.layout.xaxis.range) == pytest.approx([45, 55])
    assert alike.data[0].showlegend is False, "one point is no line"


def test_the_dotted_line_leaves_out_arms_that_a_cheaper_one_beats():
    front, *_ = priced().data
    assert list(front.y) == [88, 90]
    assert (front.line.dash, front.line.shape) == ("dot", "hv")


def test_a_confirmation_leads_from_the_score_to_the_fresh_mean():
    arms = [
        made_arm(0, 0.88, (0.87, 0.89)),
        made_arm(500, 0.896, (0.89, 0.902)),
        made_arm(900, None, None, n=0),
    ]
    figure = confirmation(arms, {"run": "found", "val_probe_top1": [0.91, 0.905]})
    (step,) = [trace for trace in figure.data if trace.mode == "lines"]
    traces = {trace.name: trace for trace in figure.data}
    chosen, fresh = traces["when it was chosen"], traces["fresh seeds: mean, 95 % CI"]
    assert (list(step.x), list(step.y)) == ([91, 89.6], [1, 1])
    assert (list(chosen.x), list(chosen.y)) == ([91, 90.5], [1, 2])
    assert (list(fresh.x), list(fresh.y)) == ([88, 89.6], [0, 1])
    assert list(fresh.error_x.array) == pytest.approx([1, 0.6])
    assert chosen.marker.symbol == "circle-open"
    assert "89.60 %<br>chosen at 91.00 %" in texts(figure)


def test_an_interaction_has_a_line_a_level_that_does_not_lead_to_0():
    figure = interaction(CROSSED)
    first, second = figure.data
    assert (first.name, second.name) == ("temperature 0.1", "temperature 0.2")
    assert list(first.y) == [85, None, 90, 92]
    assert list(second.y) == [84, None, 91]
    assert list(first.x) == sorted(first.x)
    assert first.line.dash != second.line.dash
    (edge,) = figure.layout.shapes
    assert edge.x0 == first.x[1]


def test_names_of_levels_have_no_edge():
    figure = interaction(CROSSED | {"levels": [["a", "b", "<c>"], [0.1, 0.2]]})
    assert list(figure.data[0].y) == [90, 85, 92]
    assert list(figure.layout.xaxis.ticktext) == ["a", "b", "&lt;c&gt;"]
    assert not figure.layout.shapes


def test_cell_means_stand_in_their_cells():
    figure = cell_means(CROSSED)
    (cells,) = figure.data
    assert [list(row) for row in cells.text] == [
        ["90.00", "85.00", "92.00"],
        ["91.00", "84.00", ""],
    ]
    assert cells.z[0][2] == 92
    assert cells.z[1][2] is None
    assert list(figure.layout.xaxis.ticktext) == ["500", "0", "10,000"]
    assert list(figure.layout.yaxis.ticktext) == ["0.1", "0.2"]
