"""The files beside the page: no cell is a formula, LaTeX sets, and all say the same."""

import csv
import io
import json
import math
import re
import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnclr_study.report import export
from nnclr_study.report.analyse import analyse
from nnclr_study.report.evidence import _lines as lines_of
from nnclr_study.report.findings import find
from nnclr_study.report.load import load
from tests.report.helpers import run_of
from tests.report.studies import GOLDEN, STATES, columns

HEAD = ["condition", "finished", "mean", "95 % CI", "SD", "vs baseline", "verdict", "test"]
COMPARED = ["vs baseline", "verdict"]


def analysed(path, name):
    return analyse(load((GOLDEN | STATES)[name](path)))


def markdown_rows(text):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]


@pytest.mark.parametrize("name", GOLDEN | STATES)
def test_the_three_tables_say_the_same(tmp_path, name):
    analysis = analysed(tmp_path, name)
    head, rule, *rows = markdown_rows(export.arms_md(analysis))
    compared = any(arm["vs_baseline"] for arm in analysis["arms"])
    told = HEAD if compared else [name for name in HEAD if name not in COMPARED]
    assert (head, rule) == (told, ["---"] * len(told))
    assert len(rows) == len(analysis["arms"])
    body = export.arms_tex(analysis).split("\\midrule\n")[1].split("\\bottomrule")[0]
    for row, line, arm in zip(rows, body.splitlines(), analysis["arms"], strict=True):
        bold = bool(arm["in_best_set"])
        assert row[0] == (f"**{arm['label']}**" if bold else arm["label"])
        plain = re.sub(r"\\textbf\{(.*)\}", r"\1", line.removesuffix(r" \\")).replace("\\", "")
        assert plain.split(" & ") == [row[0].strip("*"), *row[1:]]
        assert line.startswith(r"\textbf{") == bold
        mean = arm["val_probe_top1"]["mean"]
        assert row[2] == ("-" if mean is None else f"{100 * mean:.2f}")


def test_latex_is_a_booktabs_table_without_open_groups(tmp_path):
    text = export.arms_tex(analysed(tmp_path, "two_factors"))
    assert text.count("{") == text.count("}")
    for part in (r"\begin{tabular}{lrrrrrlr}", r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(part) == 1
    assert re.search(r"queue\\_size 0, temperature 0.1 & 5/5 & 85.06", text)
    assert r"95 \% CI" in text
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[%$#_]", "\n".join(lines))


def test_the_best_set_is_bold_and_not_the_maximum(tmp_path):
    analysis = analysed(tmp_path, "equal")
    assert export.arms_md(analysis).count("| **") == 4
    assert "**" not in export.arms_md(analysed(tmp_path / "one", "one_seed"))


@pytest.mark.parametrize(
    ("versus", "printed"),
    [
        ({"mean": 0.012, "simultaneous": (-0.003, 0.027)}, "+1.20 (-0.30 to 2.70)"),
        ({"mean": -0.012, "simultaneous": (-0.02, -0.00001)}, "-1.200 (-2.000 to -0.001)"),
        ({"mean": 0.012, "simultaneous": None}, "+1.20"),
        ({"mean": None, "simultaneous": None}, "-"),
        ({"mean": 0.0, "simultaneous": (-0.001, 0.001)}, "0.00 (-0.10 to 0.10)"),
    ],
)
def test_a_difference_shows_on_which_side_of_0_its_interval_ends(versus, printed):
    assert export.difference(versus) == printed


@pytest.mark.parametrize(
    "cell", ["=1", "+1", "-1", "@x", "\tx", "\nx", "x\ny", "'=1", "'x'", "x=1", ""]
)
def test_reading_a_cell_gives_back_what_was_written(cell):
    text = export.to_csv(pd.DataFrame({"cell": [cell, "plain"], "number": [-1.5, 2.0]}))
    first, _ = csv.DictReader(io.StringIO(text, newline=""))
    assert first["cell"].removeprefix("'") == cell
    assert not first["cell"].startswith(("=", "+", "-", "@", "\t", "\n"))
    assert first["number"] == "-1.5", "a number is no formula"


@pytest.mark.parametrize("cell", ["\rx", "\r\nx", "10 %\r90 %"])
def test_a_carriage_return_ends_no_row(cell):
    text = export.to_csv(pd.DataFrame({"cell": [cell], "more": ["plain"]}))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["cell"].removeprefix("'").splitlines() == cell.replace("\r\n", "\n").splitlines()
    assert row["more"] == "plain"


def test_a_whole_number_beside_a_missing_one_stays_whole():
    table = pd.DataFrame({"knob": pd.Series([4, None, True], dtype=object)})
    assert export.to_csv(table).splitlines() == ["knob", "4", '""', "True"]


@pytest.mark.parametrize("kind", [object, "string", None])
def test_a_formula_is_made_inert_whatever_the_columns_type(kind):
    column = pd.Series(["=1", "+x", None], dtype=kind)
    assert export.to_csv(pd.DataFrame({"cell": column})).split() == ["cell", "'=1", "'+x", '""']


@pytest.mark.parametrize("name", GOLDEN | STATES)
def test_the_analysis_is_strict_json_in_every_state(tmp_path, name):
    text = export.analysis_json(analysed(tmp_path, name))
    told = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert told["schema"] == 2

    def numbers(value):
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from numbers(each)
        elif isinstance(value, float):
            yield value

    assert all(map(math.isfinite, numbers(told)))


def test_the_summary_has_what_the_answer_card_has(tmp_path):
    analysis = analysed(tmp_path, "rising")
    found = find(analysis)
    text = export.summary_md(analysis, found)
    for key in ("answer", "sufficient", "standing", "confirmed", "test", "status"):
        assert f"\n{found[key].text}\n" in text
    assert text.startswith("# made\n")
    assert text.endswith("not ruled out as best.\n")


def test_a_question_is_no_markdown(tmp_path):
    folder = run_of(tmp_path, **columns([0.85, 0.87]))
    analysis = analyse(load(folder))
    analysis["study"]["question"] = "# Is *this*\n\n<b>one</b> | [line](http://x)?"
    text = export.summary_md(analysis, find(analysis))
    line = text.split("\n\n")[1]
    assert line == r"\# Is \*this\* \<b\>one\</b\> \| \[line\](http://x)?"


def test_what_mixed_machines_are_called_is_no_markdown_either(tmp_path):
    analysis = analysed(tmp_path, "mixed_commits")
    analysis["setup"]["mixed"]["machine"] = ["<img src=x>", "| b |"]
    text = export.summary_md(analysis, find(analysis))
    assert r"\<img src=x\>, \| b \|" in text


def test_environment_has_every_session(tmp_path):
    tables = load(STATES["mixed_commits"](tmp_path))
    told = json.loads(export.environment_json(tables))
    assert [session["versions"]["torch"] for session in told] == ["2.9.0", "2.10.0"]
    assert told[0]["command"] == "nnclr-study run made.toml"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"])
            | st.sampled_from("=+-@'\uff1d\uff0b\uff0d\uff20\ufe66 \t\r\n\u200b,\"")
        ),
        min_size=1,
    )
)
def test_every_text_is_read_back_as_it_was_and_no_cell_is_a_formula(tmp_path_factory, texts):
    table = pd.DataFrame({"cell": texts, "trial_id": range(len(texts))}, dtype=object)
    text = export.to_csv(table)
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    for mark in ("", "\ufeff"):  # as a spreadsheet may save it
        path.write_text(mark + text, encoding="utf-8", newline="")
        assert [row["cell"] for _, row in lines_of(path.parent, path.name)] == texts
    for row in csv.DictReader(io.StringIO(text, newline="")):
        shown = "".join(c for c in row["cell"] if c.isprintable() and not c.isspace())
        assert not unicodedata.normalize("NFKC", shown).startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize(
    "cell",
    [
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff20x",
        "\ufe661",
        " =1",
        "\u200b=1",
        "\t1",
        "\r1",
        "\n1",
    ],
)
def test_what_some_spreadsheets_run_is_made_inert(cell):
    (row,) = csv.DictReader(io.StringIO(export.to_csv(pd.DataFrame({"a": [cell]})), newline=""))
    assert row["a"] == f"'{cell}"


def test_a_negative_number_stays_a_number():
    table = pd.DataFrame({"a": [-1.5, None], "b": pd.Series([-2, "-2"], dtype=object)})
    assert export.to_csv(table) == "a,b\n-1.5,-2\n,'-2\n"
