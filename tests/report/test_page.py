import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from textwrap import dedent

import pandas as pd
import pytest

from nnclr_study.errors import RunFolderError
from nnclr_study.report.page import build_report
from nnclr_study.study.plan import plan_trials
from tests.report.helpers import make_run, study_text, tables_of, write_trial

EARLY = {"completeness", "dose_response", "throughput"}
PAIRED = {"forest", "learning", "cost", "timeline"}
QUEUE = {"queue_health"}
BLOCKS = {"best_set", "paired_seeds"}
HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


def without_stamp(page):
    text, stamps = re.subn(r"<time.*?</time>", "", page.read_text())
    assert stamps == 1
    return text


def own_text(page):
    """The page without the packed plotly.js."""
    return re.sub(r'(<script type="text/plain" id="plotly-js">)[^<]*', r"\1", page.read_text())


FILES = {
    *("index.html", "trials.csv", "epochs.csv", "summary.md", "table.tex"),
    *("analysis.json", "environment.json", "study.toml"),
}


def plain_text(page):
    """The page without any script, as one sees it where none may run."""
    return re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.DOTALL)


def test_a_report_is_seven_files_in_the_run_folder(finished):
    report = build_report(finished.path)
    assert report.page == finished.report / "index.html"
    assert {path.name for path in finished.report.iterdir()} == FILES
    assert report.answer.startswith("queue_size 500 has the highest mean val_probe_top1")
    assert json.loads((finished.report / "analysis.json").read_text())["schema"] == 2


def test_a_report_differs_from_the_last_one_in_its_stamp_alone(finished, tmp_path):
    one, two = (build_report(finished.path, tmp_path / name).page for name in ("one", "two"))
    assert without_stamp(one) == without_stamp(two)
    for name in FILES - {"index.html"}:
        assert one.with_name(name).read_bytes() == two.with_name(name).read_bytes()


def test_trials_csv_has_a_row_a_planned_trial(tmp_path):
    tables_of(tmp_path, q0=[0.5, "OOM"], q500=[2, None])
    text = build_report(tmp_path).page.with_name("trials.csv").read_text()
    header, *rows = csv.reader(io.StringIO(text))
    assert header == [
        *("trial_id", "status", "seed", "queue_size", "val_probe_top1", "test_probe_top1"),
        *("seconds", "gpu_seconds", "peak_memory_bytes", "images_per_second", "epochs_done"),
        *("error", "host", "device", "session", "started_at", "ended_at"),
    ]
    assert [row[1] for row in rows] == ["finished", "interrupted", "failed", "waiting"]
    assert rows[0][2:13] == [
        "1",
        "0",
        "0.5",
        "0.85",
        "10.0",
        "0.0",
        "",
        "7200.0",
        "4",
        "",
        "node-1",
    ]
    assert rows[0][13:] == ["cpu", "0", "2026-11-24 01:59:50+00:00", "2026-11-24 02:00:00+00:00"]
    assert rows[2][4:12] == ["", "", "2.5", "0.0", "", "7200.0", "1", "OOM"]
    assert rows[3][4:] == ["", "", "", "", "", "", "0", *[""] * 6]


@pytest.mark.parametrize("error", ["=cmd()", "+1", "-1", "@x", "\tx", "'=cmd()"])
def test_no_cell_of_trials_csv_is_a_formula(tmp_path, error):
    folder = make_run(tmp_path, study_text("", seeds=[1]), lambda trial: None)
    (trial,) = plan_trials(folder.study())
    write_trial(folder, trial, error, host=error, device=error)
    page = build_report(tmp_path).page
    for text in (page.with_name("trials.csv").read_text(), carried(page)["trials.csv"].decode()):
        (row,) = csv.DictReader(io.StringIO(text))
        assert [row[name] for name in ("error", "host", "device")] == [f"'{error}"] * 3


def carried(page):
    """The files that a page carries, by name."""
    links = re.findall(r'<a download="([^"]+)" href="data:[^,]+;base64,([^"]*)"', page.read_text())
    return {name: base64.b64decode(data) for name, data in links}


def test_the_page_carries_its_files(finished):
    page = build_report(finished.path).page
    files = carried(page)
    for name in ("trials.csv", "analysis.json", "table.tex"):
        assert files[name].decode() == page.with_name(name).read_text()
    assert files["table.md"].decode() in page.with_name("summary.md").read_text()
    assert files["references.bib"].count(b"@") == 2
    forest = pd.read_csv(io.BytesIO(files["forest.csv"]))
    assert forest["condition"].tolist() == ["queue_size 500"]
    curves = pd.read_csv(io.BytesIO(files["learning.csv"]))
    assert curves.groupby("condition")["epoch"].agg(list).tolist() == [[1, 2, 3, 4]] * 2


def test_the_parquet_file_holds_the_trials_with_their_types(tmp_path):
    tables = tables_of(tmp_path, q0=[0.5, "OOM"], q500=[2, None])
    page = build_report(tmp_path).page
    table = pd.read_parquet(io.BytesIO(carried(page)["trials.parquet"]))
    assert table["trial_id"].tolist() == tables.trials["trial_id"].tolist()
    assert table["queue_size"].tolist() == [0, 500, 0, 500]
    assert table["val_probe_top1"].dropna().tolist() == [0.5]
    assert table["error"].dropna().tolist() == ["OOM"]
    tables_of(tmp_path / "well", q0=[0.5])
    page = build_report(tmp_path / "well").page
    table = pd.read_parquet(io.BytesIO(carried(page)["trials.parquet"]))
    assert table["error"].isna().all(), "nobody's error is the word None"


def test_summary_says_answer_status_and_every_arm(finished):
    report = build_report(finished.path)
    summary = report.page.with_name("summary.md").read_text()
    assert summary.startswith("# made\n\nDoes a queue help?\n\n" + report.answer)
    assert "6 of 6 trials finished" in summary
    assert "| queue_size 0 | 3/3 | 80.60 |" in summary
    assert "| queue_size 500 | 3/3 | 82.60 |" in summary


def test_text_of_a_run_folder_stays_text(tmp_path):
    text = study_text("queue_size = [0, 500]", question=HOSTILE)
    make_run(tmp_path, text, lambda t: HOSTILE if t.config.queue_size else 0.8)
    page = build_report(tmp_path).page
    shown = own_text(page)
    assert "alert(" in shown
    assert "<script>alert" not in shown
    assert "<img" not in shown
    assert "<img" not in re.sub(r"\\.", "", page.with_name("summary.md").read_text())


def test_json_in_the_page_cannot_end_its_script(finished):
    shown = own_text(build_report(finished.path).page)
    for name in ("figures", "palette", "details"):
        embedded = re.search(rf'id="{name}">(.*?)</script>', shown)[1]
        assert json.loads(embedded)
        assert "<" not in embedded


def test_the_page_names_no_host(finished):
    page = build_report(finished.path).page
    shown = own_text(page)
    assert not re.findall(r"""(?:src|href|@import|url\()\s*[=(]?\s*["']?(?:https?:)?//""", shown)
    assert "default-src 'none'" in shown
    assert page.stat().st_size < 4_000_000


def test_tables_and_sentences_need_no_script(finished):
    report = build_report(finished.path)
    plain = plain_text(report.page).replace("\u00a0", " ")
    assert report.answer in plain
    assert '<th scope="row">500</th>' in plain
    assert "82.60" in plain
    assert "data:text/csv" in plain
    labels = re.findall(r'class="plot" .*aria-label="([^"]*)"', plain)
    assert len(labels) == 8
    for label in labels:
        assert f"<p>{label}</p>" in plain
        assert label.endswith("."), "a sentence"


@pytest.mark.parametrize(
    ("values", "figures"),
    [
        ({"q0": [None], "q500": [None]}, {"completeness"}),
        ({"q0": ["lost"], "q500": ["lost"]}, {"completeness", "timeline"}),
        ({"q0": [2], "q500": [None]}, {"completeness", "learning"}),
        ({"q0": [0.8], "q500": [None]}, {*EARLY, "learning"}),
        ({"q0": [0.8], "q500": [0.9]}, {*EARLY, *PAIRED, *QUEUE}),
        ({"q0": [0.8] * 2, "q500": [0.9] * 2}, {*EARLY, *PAIRED, *QUEUE}),
        ({"q0": [0.8, 0.81, 0.82], "q500": [0.9, 0.92, 0.9]}, {*EARLY, *PAIRED, *QUEUE, *BLOCKS}),
    ],
)
def test_a_page_draws_what_there_is(tmp_path, values, figures):
    tables_of(tmp_path, **values)
    page = build_report(tmp_path).page.read_text()
    assert set(re.findall(r'id="plot-(\w+)"', page)) == figures
    assert ('id="failed"' in page) == ("lost" in values["q0"])


def test_a_failed_trial_shows_the_first_line_of_its_error(tmp_path):
    make_run(tmp_path, study_text("", seeds=[1]), lambda trial: "DataError: none\nat line 7")
    page = build_report(tmp_path).page
    assert '<td class="error">DataError: none</td>' in plain_text(page)
    assert "at line 7" not in plain_text(page)
    assert r"DataError: none\nat line 7" in own_text(page), "all of it, for the row that opens"


def test_no_folder_and_no_place_to_write_are_said(finished, tmp_path):
    with pytest.raises(RunFolderError, match="no run folder"):
        build_report(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        build_report(finished.path, tmp_path / "file")


def test_a_copied_run_folder_is_enough_without_torch_and_ray(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "copy")
    code = """
    import sys
    from pathlib import Path

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"torch", "torchvision", "ray", "typer"}:
                raise ImportError(f"{name} is none of the report's business")

    sys.meta_path.insert(0, Blocker())
    from nnclr_study.report.page import build_report

    print(build_report(Path(sys.argv[1])).answer)
    """
    command = [sys.executable, "-c", dedent(code), tmp_path / "copy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("queue_size 500 has the highest")
    assert (tmp_path / "copy" / "report" / "index.html").is_file()
