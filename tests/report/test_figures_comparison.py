import pytest

from nnclr_study.report.figures import best_set, forest, paired_seeds
from nnclr_study.report.look import MUTED, VERDICTS
from tests.report.test_figures import made_arm, made_difference, made_trials, texts

VERDICT_ARMS = [
    made_arm(size, vs_baseline=made_difference(mean, (mean - 0.005, mean + 0.005), verdict))
    for size, mean, verdict in [
        (100, 0.012, "better"),
        (200, 0.001, "equivalent"),
        (300, 0.004, "not resolved"),
        (400, -0.02, "worse"),
        (500, 0.006, "depends on method"),
    ]
]


def intervals(figure):
    """By trace name: each row's place, difference and interval, in points."""
    return {
        trace.name: [
            (y, x, x - below, x + above)
            for x, y, above, below in zip(
                trace.x, trace.y, trace.error_x.array, trace.error_x.arrayminus, strict=True
            )
        ]
        for trace in figure.data
        if trace.error_x.array is not None
    }


def test_a_forest_has_a_row_a_difference_in_the_order_of_the_arms():
    figure = forest([made_arm(0), *VERDICT_ARMS], margin=0.005)
    rows = intervals(figure)
    assert rows["better"] == [pytest.approx((0, 1.2, 0.7, 1.7))]
    assert rows["worse"] == [pytest.approx((3, -2.0, -2.5, -1.5))]
    assert list(figure.layout.yaxis.ticktext) == ["100", "200", "300", "400", "500"]
    top, bottom = figure.layout.yaxis.range[::-1]
    assert top < 0 < 4 < bottom


def test_every_verdict_has_its_symbol_and_its_word_beside_the_numbers():
    figure = forest([made_arm(0), *VERDICT_ARMS], margin=0.005)
    marks = {trace.name: trace.marker.symbol for trace in figure.data if trace.name in VERDICTS}
    assert len(set(marks.values())) == len(VERDICTS) == 5
    assert "+1.20 (0.70 to 1.70)<br>▲ better" in texts(figure)
    for verdict, letter in VERDICTS.items():
        assert any(text.endswith(f"{letter} {verdict}") for text in texts(figure))


def test_the_margin_is_a_band_around_no_difference():
    figure = forest([made_arm(0), *VERDICT_ARMS], margin=0.0075)
    (band,) = [trace for trace in figure.data if trace.fill == "toself"]
    assert (min(band.x), max(band.x)) == (-0.75, 0.75)
    assert "0.75" in band.name
    assert [shape.x0 for shape in figure.layout.shapes] == [0]


def test_an_interim_forest_has_no_verdict_and_no_p():
    vs = made_difference(0.01, (0.004, 0.016), None, p_dunnett=None, p_holm=None)
    figure = forest([made_arm(0), made_arm(100, vs_baseline=vs)], margin=0.005)
    (mark,) = [trace for trace in figure.data if trace.name == "no verdict"]
    assert " p " not in mark.customdata[0]
    assert not any(word in text for text in texts(figure) for word in VERDICTS)


def test_a_forest_says_where_seeds_are_too_few():
    nothing = made_difference(None, None, None, pairs=0, dz=None)
    single = made_difference(0.02, None, None, pairs=1, dz=None, p_dunnett=None, p_holm=None)
    arms = [made_arm(0), made_arm(1, vs_baseline=nothing), made_arm(2, vs_baseline=single)]
    figure = forest(arms, margin=0.005)
    assert intervals(figure) == {"no verdict": [(1, 2.0, 2.0, 2.0)]}
    assert {"no seed in both", "+2.0"} <= set(texts(figure))


def test_hover_says_pairs_and_tests_and_is_inert():
    arm = made_arm(1, vs_baseline=made_difference(0.01, (0.005, 0.015), "better", p_holm=1e-5))
    arm["label"] = "<i>x</i>"
    (mark,) = [t for t in forest([made_arm(0), arm], 0.005).data if t.name == "better"]
    (said,) = mark.customdata
    assert said.startswith("&lt;i&gt;x")
    for part in ("5 pairs", "dz 2.00", "Dunnett p 0.010", "Holm p &lt; 0.001"):
        assert part in said


def test_a_long_name_stands_above_its_row_and_takes_no_width():
    condition = {"queue_size": 98_304, "temperature": 0.1}
    arm = VERDICT_ARMS[0] | {"condition": condition}
    figure = forest([made_arm(0), arm], margin=0.005)
    assert figure.layout.yaxis.showticklabels is False
    (name,) = [note for note in figure.layout.annotations if note.text == "98,304, 0.1"]
    assert (name.x, name.xref, name.yanchor) == (0, "paper", "bottom")
    short = forest([made_arm(0), VERDICT_ARMS[0]], margin=0.005)
    assert figure.layout.height > short.layout.height


def test_a_forest_grows_with_its_arms():
    heights = [forest([made_arm(0), *VERDICT_ARMS[:n]], 0.005).layout.height for n in (1, 2, 5)]
    assert heights[1] - heights[0] == (heights[2] - heights[1]) / 3 >= 34


def test_the_best_set_is_filled():
    arms = [
        made_arm(0, vs_best={"mean": -0.02, "interval": (-0.03, 0.0)}, in_best_set=False),
        made_arm(100, vs_best={"mean": 0.002, "interval": (-0.004, 0.008)}, in_best_set=True),
        made_arm(200, mean=None, interval=None, n=0),
    ]
    figure = best_set(arms)
    rows = intervals(figure)
    assert rows["may be the best"] == [pytest.approx((1, 0.2, -0.4, 0.8))]
    assert rows["ruled out as the best"] == [pytest.approx((0, -2.0, -3.0, 0.0))]
    symbols = {trace.name: trace.marker.symbol for trace in figure.data}
    assert symbols["may be the best"] == "diamond"
    assert symbols["ruled out as the best"] == "diamond-open"
    assert "not compared" in texts(figure)


def test_one_line_a_seed_breaks_where_a_trial_is_missing():
    trials = made_trials(
        arm=[0, 1, 2, 0, 1, 2],
        seed=[1, 1, 1, 2, 2, 2],
        val_probe_top1=[0.8, 0.9, 0.85, 0.81, None, 0.86],
    )
    arms = [made_arm(size) for size in (500, 0, 10_000)]
    figure = paired_seeds(trials, arms, ["queue_size"])
    assert list(figure.layout.xaxis.ticktext) == ["0", "500", "10,000"], "by size, not as listed"
    first, second = figure.data
    assert (first.name, second.name) == ("seed 1", "seed 2")
    assert list(first.y) == [90, 80, 85]
    assert list(second.y) == [None, 81, 86]
    assert not second.connectgaps
    assert first.marker.symbol != second.marker.symbol
    assert first.line.dash != second.line.dash
    assert MUTED not in (first.line.color, second.line.color)
