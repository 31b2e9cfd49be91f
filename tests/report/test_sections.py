import pytest

from nnclr_study.report.analyse import analyse
from nnclr_study.report.findings import find
from nnclr_study.report.load import load
from nnclr_study.report.page import build_report
from nnclr_study.report.sections import MAX_ARMS, sections
from tests.report.helpers import make_run, run_of, study_text
from tests.report.studies import GOLDEN, STATES, columns


def of(folder):
    tables = load(folder)
    analysis = analyse(tables)
    return {each.key: each for each in sections(tables, analysis, find(analysis))}, analysis


@pytest.mark.parametrize("name", GOLDEN | STATES)
def test_every_figure_has_a_sentence_and_a_caption_that_tells_how_to_read_it(tmp_path, name):
    found, _ = of((GOLDEN | STATES)[name](tmp_path))
    drawn = [each for each in found.values() if each.figure is not None]
    assert drawn
    for each in drawn:
        assert each.finding.text.endswith("."), each.key
        assert each.caption.endswith("."), each.key
        assert each.title
    assert len({each.title for each in found.values()}) == len(found)


def test_sections_stand_in_the_order_of_the_specification(tmp_path):
    found, _ = of(STATES["whole"](tmp_path))
    assert list(found) == [
        *("completeness", "dose_response", "forest", "conditions", "best_set", "paired_seeds"),
        *(
            "learning",
            "cost",
            "queue_health",
            "interaction",
            "cell_means",
            "throughput",
            "timeline",
            "failed",
        ),
    ]


def test_the_forests_numbers_are_the_comparisons(tmp_path):
    found, analysis = of(run_of(tmp_path, **columns([0.85, 0.86, 0.87])))
    table = found["forest"].data
    assert table["condition"].tolist() == ["queue_size 500", "queue_size 1,000"]
    for row, arm in zip(table.to_dict("records"), analysis["arms"][1:], strict=True):
        versus = arm["vs_baseline"]
        assert row["mean"] == versus["mean"]
        assert [row["ci95_low"], row["ci95_high"]] == list(versus["interval"])
        assert [row["simultaneous_low"], row["simultaneous_high"]] == list(versus["simultaneous"])
        assert [row["ci90_low"], row["ci90_high"]] == list(versus["equivalence"])
        assert (row["p_holm"], row["verdict"]) == (versus["p_holm"], "better")


def test_the_curves_numbers_are_means_over_finished_seeds(tmp_path):
    folder = run_of(tmp_path, q0=[0.8, 0.9], q500=[0.7, 2])
    found, _ = of(folder)
    table = found["learning"].data
    epochs = load(folder).epochs
    own = epochs[(epochs["arm"] == 0) & (epochs["epoch"] == 2)]["val_probe_top1"]
    row = table[(table["condition"] == "queue_size 0") & (table["epoch"] == 2)].iloc[0]
    assert row["n"] == 2
    assert row["mean"] == pytest.approx(own.mean())
    assert row["ci95_low"] < row["mean"] < row["ci95_high"]
    single = table[table["condition"] == "queue_size 500"]
    assert single["n"].tolist() == [1] * 4
    assert single["ci95_low"].isna().all()


def test_where_there_are_too_many_conditions_figures_with_a_row_each_are_left_out(tmp_path):
    sizes = list(range(100, 100 + MAX_ARMS + 1))
    text = study_text(f"queue_size = {sizes}", seeds=[1, 2, 3], epochs=2)
    folder = make_run(
        tmp_path, text, lambda t: 0.5 + t.config.queue_size / 1e3 + t.config.seed**2 / 1e3
    )
    found, analysis = of(folder)
    assert "forest" not in found
    assert "completeness" not in found
    assert "learning" not in found
    page = build_report(tmp_path).page.read_text()
    assert "Appears with the first finished trial." not in page
    assert found["dose_response"].figure is not None
    assert len(analysis["arms"]) == MAX_ARMS + 1


def test_a_searchs_sections_are_marked(tmp_path):
    found, _ = of(STATES["pruned_search"](tmp_path))
    marked = {key for key, each in found.items() if each.exploratory}
    assert marked == {"dose_response", "history", "parallel", "contour", "edf", "pareto"}
