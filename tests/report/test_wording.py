import pytest

from nnclr_study.report import wording


@pytest.mark.parametrize(
    ("interval", "printed"),
    [
        ((0.901, 0.923), "90.1 to 92.3"),
        ((-0.003, 0.027), "-0.3 to 2.7"),
        ((0.9012, 0.9044), "90.12 to 90.44"),
        ((0.0003, 0.03), "0.03 to 3.00"),
        ((-0.00004, 0.03), "-0.004 to 3.000"),
        ((0.0, 0.03), "0.0 to 3.0"),
    ],
)
def test_an_interval_shows_two_figures_and_on_which_side_of_0_it_ends(interval, printed):
    assert wording.span(interval, wording.decimals_of(interval)) == printed


def test_nothing_is_printed_as_minus_zero():
    assert wording.number(-0.00001) == "0.00"
    assert wording.percent(-0.0001) == "0.0 %"


@pytest.mark.parametrize(
    ("p", "printed"),
    [
        (0.0004, "< 0.001"),
        (0.0123, "0.012"),
        (0.04996, "0.04996"),
        (0.0504, "0.050"),
        (1, "1.000"),
    ],
)
def test_rounding_moves_no_p_across_the_level(p, printed):
    assert wording.p_value(p) == printed


@pytest.mark.parametrize(
    ("seconds", "printed"),
    [(None, "-"), (4.25, "4.2 s"), (48, "48 s"), (750, "12.5 min"), (12240, "3.4 h")],
)
def test_duration(seconds, printed):
    assert wording.duration(seconds) == printed
