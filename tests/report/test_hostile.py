"""A run folder from somebody else: all that stands in it is text, and nothing runs."""

import csv
import json
import re
from html import unescape

import pytest
from pydantic import ValidationError

from nnclr_study.errors import RunFolderError, RunFolderWarning
from nnclr_study.report.analyse import analyse
from nnclr_study.report.evidence import load_any
from nnclr_study.report.load import load
from nnclr_study.report.page import build_report
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.rows import EvaluationRow
from nnclr_study.study.run_folder import RunFolder
from tests.report.helpers import (
    NOW,
    made_session,
    make_run,
    make_search,
    run_of,
    study_text,
    trial_row,
    write_trial,
)
from tests.report.test_browser import all_drawn
from tests.report.test_page import own_text, plain_text

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>"
    '"onmouseover="alert(4)<a href="javascript:alert(5)">x</a>{{ 7 * 7 }}=cmd()'
)


def evil_run(path):
    """A run in which whatever may be told by its folder is an attack."""
    text = study_text("queue_size = [0, 500]", question=EVIL)
    label, source = json.dumps(EVIL[:80]), json.dumps(EVIL)
    text += f"[[references]]\nlabel = {label}\ntest_top1 = 90\nsource = {source}\n"
    folder = make_run(path, text, lambda trial: None)
    (folder.path / "sessions.jsonl").unlink()
    told = {"command": EVIL, "commit": EVIL, "machine": EVIL, "versions": {EVIL: EVIL}}
    folder.append_session(made_session(**told))
    folder.append_session(made_session(machine=f"{EVIL} too"))
    for place, trial in enumerate(plan_trials(folder.study())):
        outcome = EVIL if place == 3 else 0.8 + 0.01 * place
        write_trial(
            folder, trial, outcome, session=place % 2, host=f"{EVIL}{place % 2}", device=EVIL
        )
        row = {"trial_id": trial.id, "protocol": EVIL, "epoch": 4, "labels": 10, "val_top1": 0.5}
        row |= {"test_top1": 0.5, "chosen": {EVIL: 1.0}, "seconds": 1.0, "device": EVIL}
        folder.append_evaluation(EvaluationRow(**row, ended_at=NOW))
    return folder


def evil_search(path):
    """A search whose trials tell attacks, each of them alike."""
    folder = make_search(path, [0.7, 0.72, EVIL, (3, "stopped")])
    lines = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    told = {"host": EVIL, "device": EVIL}
    text = "".join(f"{json.dumps(line | told)}\n" for line in lines)
    (path / "trials.jsonl").write_text(text)
    return folder


@pytest.mark.parametrize("make", [evil_run, evil_search])
def test_nothing_of_a_run_folder_is_executed(opened, tmp_path, make):
    built = build_report(make(tmp_path / "run").path).page
    page = opened(built, 1280)
    all_drawn(page)
    for row in page.locator("table.trials tbody tr").element_handles():
        row.query_selector("button").click()
    page.locator("table.trials thead button").first.click()
    page.get_by_label("Filter").fill(EVIL)
    page.locator("#theme").click()
    all_drawn(page)
    assert page.locator("img, iframe, object, embed, form, base, [onerror], [onload]").count() == 0
    assert page.locator("[onmouseover], svg[onload], a[href^=javascript]").count() == 0
    assert page.locator("body script").count() == 5, "palette, figures, details, plotly, page"
    assert page.locator("svg a").count() == 0
    assert "alert(1)" in page.locator("#trials").inner_text(), "it is shown as text"
    assert page.evaluate("document.scripts.length") == 6
    # `opened` fails on any dialog, complaint or request.


@pytest.mark.parametrize("make", [evil_run, evil_search])
def test_no_file_of_a_report_carries_markup_or_a_formula(tmp_path, make):
    built = build_report(make(tmp_path / "run").path).page
    assert "<script>alert" not in own_text(built)
    assert "<img" not in own_text(built)
    assert "49" not in re.findall(r"\{\{.*?\}\}|x</a>(\d+)", unescape(plain_text(built)))
    summary = re.sub(r"\\.", "", built.with_name("summary.md").read_text())
    assert "<" not in summary
    for name in ("trials.csv", "epochs.csv"):
        with built.with_name(name).open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert cells
        assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))]
    tex = built.with_name("table.tex").read_text()
    assert not re.search(r"(?<!\\)[$#_&](?!\s)", tex.split("\\midrule")[1])


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("epochs.jsonl", {"trial_id": "x", "epoch": 1}, "c_loss"),
        ("trials.jsonl", {"trial_id": "x", "status": "owned"}, "status"),
        ("trials.jsonl", {"trial_id": "../../x"}, "trial_id"),
        ("sessions.jsonl", {"__class__": "os.system"}, "started_at"),
        ("trials.jsonl", ["no", "object"], "no row"),
    ],
)
def test_a_foreign_row_is_set_aside_and_named(tmp_path, name, line, says):
    folder = run_of(tmp_path, q0=[0.8], q500=[0.9])
    before = analyse(load(folder))
    with (tmp_path / name).open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.warns(RunFolderWarning, match=f"{name}, line .*{says}"):
        assert analyse(load(folder)) == before


def test_a_pickle_beside_the_rows_is_not_opened(tmp_path):
    """Checkpoints and pickles are nothing to a report, whatever they hold."""
    folder = run_of(tmp_path / "run", q0=[0.8], q500=[0.9])
    marker = tmp_path / "executed"
    attack = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    folder.checkpoints.mkdir()
    folder.gallery.mkdir()
    for trial in plan_trials(folder.study()):
        folder.checkpoint(trial.id).write_bytes(attack)
        for kind in ("png", "json"):
            (folder.gallery / f"{trial.id}.{kind}").write_bytes(attack)
    page = build_report(folder.path).page
    assert not marker.exists()
    assert 'id="gallery"' not in page.read_text()


def evidence(path):
    """Published evidence of a small study."""
    folder = run_of(path / "run", q0=[0.8, 0.81, 0.82], q500=[0.9, "OOM", 0.9])
    page = build_report(folder.path).page
    home = path / "evidence"
    home.mkdir()
    (home / "study.toml").write_text((folder.path / "study.toml").read_text())
    for name in ("trials.csv", "epochs.csv", "environment.json"):
        (home / name).write_text(page.with_name(name).read_text())
    return home


def doubled(text):
    head, first, *rest = text.splitlines()
    return "\n".join([head, first, first, *rest]) + "\n"


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("trials.csv", lambda text: text.replace("finished", "owned", 1)),
        ("trials.csv", lambda text: text.replace(",500,", ",700,")),
        ("trials.csv", lambda text: text.replace("\n", ",more\n")[:-6] + "\n"),
        ("trials.csv", doubled),
        ("trials.csv", lambda text: ""),
        ("trials.csv", lambda text: "a,b\n1,2\n"),
        ("trials.csv", lambda text: text.replace("0.8,", "high,")),
        ("epochs.csv", lambda text: text.replace("5.0", "five")),
        ("epochs.csv", lambda text: text.replace("c_loss", "d_loss")),
        ("epochs.csv", lambda text: f'"{"x" * 200_000}"\n'),
        ("environment.json", lambda text: "{}}"),
        ("environment.json", lambda text: '{"started_at": 1}'),
        ("environment.json", lambda text: '[{"started_at": 1}]'),
    ],
)
def test_spoilt_evidence_is_refused(tmp_path, name, spoil):
    home = evidence(tmp_path)
    load_any(home)
    text = (home / name).read_text()
    assert spoil(text) != text
    (home / name).write_text(spoil(text))
    with pytest.raises(RunFolderError, match="is not published evidence"):
        load_any(home)


@pytest.mark.parametrize(
    ("name", "column", "cell"),
    [
        ("trials.csv", "epochs_done", "9" * 5_000),
        ("trials.csv", "peak_memory_bytes", "1000000000000000.0"),
        ("trials.csv", "session", "9" * 200_000),
        ("epochs.csv", "epoch", "9" * 200_000),
    ],
)
def test_a_damaged_cell_costs_no_more_than_its_row(tmp_path, name, column, cell):
    home = evidence(tmp_path)
    with (home / name).open(newline="") as file:
        header, first, *rest = csv.reader(file)
    first[header.index(column)] = cell
    with (home / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, first, [], *rest])
    limit = csv.field_size_limit()
    with pytest.warns(RunFolderWarning, match=f"{name}, line 2, is no row"):
        tables = load_any(home)
    assert csv.field_size_limit() == limit
    found = tables.trials if name == "trials.csv" else tables.epochs
    assert len(found[found["status"] != "waiting"]) >= len(rest)


@pytest.mark.parametrize("name", ["trials.csv", "epochs.csv"])
def test_a_row_with_a_cell_too_many_is_named(tmp_path, name):
    home = evidence(tmp_path)
    text = (home / name).read_text().splitlines()
    (home / name).write_text("\n".join([*text[:2], text[2] + ",more", *text[3:]]))
    with pytest.raises(
        RunFolderError, match=rf"{name}, line 3, has \d+ cells, and its first line"
    ):
        load_any(home)


def test_memory_is_bounded_by_what_a_table_can_say(tmp_path):
    folder = run_of(tmp_path, q0=[0.8], q500=[0.9])
    trial = plan_trials(folder.study())[0]
    write_trial(folder, trial, 0.85, peak_memory_bytes=10**15 - 1)
    home = build_report(folder.path).page.parent
    assert load_any(home).trials["peak_memory_bytes"].max() == 10**15 - 1
    with pytest.raises(ValidationError, match="peak_memory_bytes"):
        trial_row(trial, 0.85, peak_memory_bytes=10**15)


def test_evidence_of_a_trial_that_its_study_does_not_name_is_refused_by_its_id(tmp_path):
    home = evidence(tmp_path)
    study = home / "study.toml"
    study.write_text(study.read_text().replace("seeds = [1", "seeds = [99"))
    with pytest.raises(
        RunFolderError, match=r"trials.csv has \S*_s1_\S*, whose condition and seed"
    ):
        load_any(home)


@pytest.mark.parametrize("name", ["epochs.csv", "environment.json"])
def test_evidence_that_lacks_a_file_is_refused(tmp_path, name):
    home = evidence(tmp_path)
    (home / name).unlink()
    with pytest.raises(RunFolderError, match=f"not published evidence.*{name}"):
        load_any(home)


def test_a_page_built_into_its_run_folder_leaves_it_a_run(tmp_path):
    folder = run_of(tmp_path, q0=[0.8], q500=[0.9, None][:1])
    build_report(tmp_path, tmp_path)
    write_trial(folder, plan_trials(folder.study())[0], 0.85)
    assert load_any(tmp_path).is_run
    assert "85.0 %" in build_report(tmp_path).page.read_text()
    assert load(RunFolder(tmp_path)).is_run


ODD = "\x07\x1b[31m\x9b\u202e\u2066\u200b\u2028\x00x"


def test_no_text_of_others_turns_the_page_around(tmp_path):
    folder = run_of(tmp_path / "run", q0=[0.8, 0.7], q500=[0.9, 0.6])
    text = folder.study_file.read_text()
    (old,) = re.findall(r"^question = .*$", text, re.MULTILINE)
    text = text.replace(old, f"question = {json.dumps(ODD)}").replace("\n", "\r\n")
    folder.study_file.write_text(text, newline="")
    trial = plan_trials(folder.study())[0]
    write_trial(folder, trial, f"RuntimeError: {ODD}", host=ODD, device=ODD)
    with (folder.path / "study.toml").open("a") as file:
        file.write("# \u202e\t\u200b\r\n")
    page = build_report(folder.path).page.read_text()
    assert not [ascii(char) for char in ODD if not char.isprintable() and char in page]
    data = re.findall(r'<script type="application/json".*?>(.*?)</script>', page, re.DOTALL)
    assert len(data) == 3
    for each in data:
        told = json.dumps(json.loads(each), ensure_ascii=False)
        assert not [ascii(char) for char in ODD if not char.isprintable() and char in told]
    assert "\\u202e\\u2066" in page
    assert "&#13;" not in page
    assert "\\r" not in plain_text(folder.report / "index.html")
    assert "\u202e" not in folder.report.joinpath("summary.md").read_text()
