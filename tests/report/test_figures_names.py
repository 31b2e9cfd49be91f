import pytest

from nnclr_study.report.figures.names import (
    LINE,
    MAX_COLUMNS,
    column_axis,
    cut,
    legend_name,
    row_names,
)
from tests.report.test_figures import made_arm

MANY = {"queue_size": 98_304, "temperature": 0.1, "width": 64, "learning_rate": 0.0003}


def arms_of(*conditions):
    return [made_arm(None, condition=condition) for condition in conditions]


def test_rows_of_few_knobs_are_named_by_values_and_the_title_by_knobs():
    one = row_names(arms_of({"queue_size": 0}, {"queue_size": 98_304}))
    assert (one.title, one.texts, one.short) == ("queue_size", ["0", "98,304"], True)
    two = row_names(arms_of({"queue_size": 98_304, "temperature": 0.1}))
    assert (two.title, two.texts) == ("queue_size, temperature", ["98,304, 0.1"])
    assert not two.short


def test_rows_of_many_knobs_are_labels_broken_between_knobs():
    names = row_names(arms_of(MANY))
    assert names.title == "condition"
    (lines,) = names.lines
    assert [line.split("\u00a0")[0] for line in lines] == [
        "queue_size",
        "temperature",
        "learning_rate",
    ]
    assert all(len(line) <= LINE for line in lines)
    assert names.height == 3


def test_the_only_arm_of_no_knob_has_a_name():
    arms = arms_of({})
    assert row_names(arms).texts == ["as set"]
    assert column_axis(arms)[0]["ticktext"] == ["as set"]


def test_columns_stand_upright_where_a_phone_has_no_room_beside_each_other():
    few, low = column_axis(arms_of(*({"queue_size": size, "temperature": 0.1} for size in (0, 8))))
    assert (few["ticktext"], few["tickangle"]) == (["0<br>0.1", "8<br>0.1"], 0)
    many, high = column_axis(arms_of(*({"queue_size": 10_000 + place} for place in range(9))))
    assert many["tickangle"] == -90
    assert many["ticktext"][0] == "10,000"
    assert high > low


def test_of_too_many_columns_some_are_named():
    axis, _ = column_axis(arms_of(*({"queue_size": place} for place in range(50))))
    assert 10 <= len(axis["tickvals"]) <= MAX_COLUMNS
    assert axis["ticktext"][1] == str(axis["tickvals"][1])
    assert axis["range"] == [-0.5, 49.5]


def test_a_legend_has_labels_or_else_values():
    short, long = arms_of({"queue_size": 500}, MANY)
    assert legend_name(short) == "queue_size 500"
    assert legend_name(long) == "98,304, 0.1, 64, 0.0003"


@pytest.mark.parametrize("text", ["<b>x</b>", "a<script>"])
def test_names_are_inert(text):
    arms = arms_of({"recipe": text}, {"recipe": f"{text}, {text}, {text}, {text}"})
    drawn = [*row_names(arms).texts, *column_axis(arms)[0]["ticktext"], *map(legend_name, arms)]
    drawn += [cut(text, 20)]
    assert all("<" not in name.replace("<br>", "") for name in drawn)
    assert all("&lt;" in name for name in drawn)
