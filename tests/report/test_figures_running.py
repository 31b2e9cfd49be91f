from datetime import UTC, datetime, timedelta

import pytest

from nnclr_study.report.figures import completeness, throughput, timeline
from nnclr_study.report.look import STATES
from tests.report.test_figures import made_arm, made_trials, texts

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def at(minutes):
    return NOON + timedelta(minutes=minutes)


def test_every_cell_has_the_colour_and_the_letter_of_its_state():
    states = list(STATES)
    trials = made_trials(
        arm=[0, 1, 2, 0, 1, 2], seed=[7, 7, 7, 3, 3, 3], status=states, seconds=[90.0] * 6
    )
    figure = completeness(trials, [made_arm(size) for size in (0, 1, 2)], seeds=[7, 3])
    cells, *legend = figure.data
    assert [list(row) for row in cells.text] == [
        [STATES[state] for state in states[:3]],
        [STATES[state] for state in states[3:]],
    ]
    assert list(figure.layout.yaxis.ticktext) == ["7", "3"]
    named = {trace.name: trace.marker.color for trace in legend}
    for row in range(2):
        for column in range(3):
            state = states[3 * row + column]
            share = (cells.z[row][column] - cells.zmin) / (cells.zmax - cells.zmin)
            below = [colour for edge, colour in cells.colorscale if edge <= share]
            assert below[-1] == named[f"{STATES[state]} {state}"]
    assert len(set(named.values())) == 6


def test_only_states_that_occur_are_explained_and_a_cell_may_be_empty():
    trials = made_trials(arm=[0], status=["running"])
    cells, *legend = completeness(trials, [made_arm(0), made_arm(1)], seeds=[1]).data
    assert [trace.name for trace in legend] == ["▸ running"]
    assert list(cells.text[0]) == ["▸", ""]
    assert cells.z[0][1] is None


def test_a_cell_says_trial_host_and_minutes_and_is_inert():
    trials = made_trials(arm=[0], host=["<u>gpu</u>"], seconds=[750.0], trial_id=["a<b"])
    cells, *_ = completeness(trials, [made_arm(0)], seeds=[1]).data
    assert cells.customdata[0][0] == "a&lt;b<br>finished on &lt;u&gt;gpu&lt;/u&gt;, 12.5 min"


def test_throughput_has_a_dot_a_timed_trial_in_the_row_of_its_host():
    trials = made_trials(
        host=["gpu-2", "gpu-1", "gpu-2", None],
        device=["cuda"] * 4,
        images_per_second=[2000.0, 2400.0, 1900.0, None],
    )
    figure = throughput(trials)
    (dots,) = figure.data
    assert list(dots.x) == [2000, 2400, 1900]
    assert [figure.layout.yaxis.ticktext[place] for place in dots.y] == ["gpu-2", "gpu-1", "gpu-2"]
    assert {"1 trial", "2 trials"} <= set(texts(figure))
    assert figure.layout.xaxis.rangemode == "tozero"


def test_a_timeline_has_a_bar_a_trial_that_has_begun():
    trials = made_trials(
        host=["b", "a", "b", None, None],
        status=["finished", "failed", "finished", "running", "waiting"],
        started_at=[at(0), at(5), at(10), at(20), None],
        ended_at=[at(10), at(25), at(40), None, None],
    )
    bars = {bar.name: bar for bar in timeline(trials).data}
    assert set(bars) == {"✓ finished", "✕ failed", "▸ running"}
    assert list(bars["✓ finished"].base) == ["2026-11-24 12:00:00", "2026-11-24 12:10:00"]
    assert list(bars["✓ finished"].x) == [600_000, 1_800_000]
    assert list(bars["▸ running"].x) == [1_200_000], "to the last time that is known"
    assert len(set(bars["✓ finished"].y)) == 1, "one after the other: one lane"


def test_trials_at_once_have_lanes_of_their_own_below_their_hosts_name():
    trials = made_trials(
        host=["b", "b", "a", "b"],
        started_at=[at(0), at(1), at(0), at(30)],
        ended_at=[at(30), at(40), at(10), at(50)],
    )
    figure = timeline(trials)
    (bars,) = figure.data
    places = {note.text: note.y for note in figure.layout.annotations if note.text in ("a", "b")}
    rows = dict(zip(bars.base, bars.y, strict=True))
    assert places == {"a": 0, "b": 2}
    assert sorted(bars.y) == [1, 3, 3, 4]
    assert rows["2026-11-24 12:01:00"] == 4
    assert rows["2026-11-24 12:30:00"] == 3


def test_an_interrupted_trial_is_as_long_as_its_epochs():
    trials = made_trials(
        status=["interrupted", "interrupted", "finished"],
        seconds=[60.0, None, 100.0],
        started_at=[at(0), at(1), at(60)],
        ended_at=[None, None, at(90)],
    )
    bars = {bar.name: bar for bar in timeline(trials).data}
    assert list(bars["‖ interrupted"].x) == [60_000, 0]


@pytest.mark.parametrize("draw", [throughput, timeline])
def test_hosts_and_trials_are_inert(draw):
    trials = made_trials(
        host=["<b>h</b>"],
        trial_id=["<b>t</b>"],
        device=["<b>d</b>"],
        images_per_second=[1.0],
        started_at=[at(0)],
        ended_at=[at(1)],
    )
    text = draw(trials).to_json().replace("\\u003c", "<").replace("\\u003e", ">")
    assert "<b>" not in text
    assert "&lt;b&gt;h" in text
    assert "&lt;b&gt;t" in text
