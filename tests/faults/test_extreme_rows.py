"""Values at the edge of what a row can hold are used or set aside, and never a traceback."""

import json
import shutil

import pytest

from nnclr_study.cli import main
from nnclr_study.report.page import build_report
from nnclr_study.study.rows import EpochRow, Session, TrialRow
from tests.report.helpers import make_run, make_search, study_text

NUMBERS = ["1e308", "-1e308", "5e-324", "1" + "0" * 400, "NaN", "-1", "true", "1e39", "2e-31"]
TEXTS = ['"\\ud800"', json.dumps("\x1b]0;x\x07\0"), json.dumps("x" * 300_000), "[]", "{}", "null"]
TIMES = ['"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"', '"2026-01-01T00:00:00"']
VALUES = NUMBERS + TEXTS + TIMES
FILES = {"epochs.jsonl": EpochRow, "trials.jsonl": TrialRow, "sessions.jsonl": Session}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A grid, a search and the evidence of each, with trials in several states."""
    home = tmp_path_factory.mktemp("made")
    outcomes = iter([0.8, "MemoryError: 12 GiB", 2, 0.7])
    text = study_text("queue_size = [0, 500]", (1, 2))
    folders = {
        "grid": make_run(home / "grid", text, lambda _: next(outcomes)),
        "search": make_search(home / "search", [0.7, 0.72, "OOM", (3, "stopped"), 2]),
    }
    for name, folder in folders.items():
        build_report(folder.path, home / f"{name}_evidence")
    return home


def commands(path, tmp_path):
    yield ["status", str(path)]
    yield ["report", str(path), "-o", str(tmp_path / "page")]
    yield ["confirm", str(path), "-o", str(tmp_path / "confirm.toml")]
    yield ["export", str(path), "-o", str(tmp_path / "out")]
    yield ["plan", "search_spaces/quickstart.toml", "--like", str(path)]


def changed(path, field, value):
    """Write a value into a field of every line of a file."""
    lines = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        row[field] = "@"
        lines.append(json.dumps(row).replace('"@"', value))
    path.write_text("\n".join([*lines, ""]))


# Every value in some field: a few of the hundreds of pairs.
PAIRS = [(name, field) for name, kind in FILES.items() for field in kind.model_fields]
CASES = [(*PAIRS[7 * i % len(PAIRS)], value) for i, value in enumerate(VALUES)]


@pytest.mark.parametrize("study", ["grid", "search"])
@pytest.mark.filterwarnings("ignore::nnclr_study.errors.RunFolderWarning")
def test_no_command_ends_in_a_traceback(made, tmp_path, study, capsys):
    for place, (name, field, value) in enumerate(CASES):
        run = tmp_path / str(place)
        shutil.copytree(made / study, run)
        changed(run / name, field, value)
        some = list(commands(run, tmp_path / f"{place}out"))
        for words in (some[0], some[1 + place % 4]):
            code = main(words)
            said = capsys.readouterr().err
            assert code in (0, 2), (name, field, value[:20], words[0], said)
            assert "Traceback" not in said
            assert words[0] not in ("status", "report") or code == 0, (name, field, value[:20])


def test_a_row_out_of_bounds_in_evidence_is_set_aside_and_named(made, tmp_path, capsys):
    evidence = tmp_path / "evidence"
    shutil.copytree(made / "grid_evidence", evidence)
    for name, old, new in (
        ("trials.csv", ",0.8,", ",,"),  # a finished trial without a score
        ("epochs.csv", "5.0", "1e308"),
        ("environment.json", '"max_concurrent": ', '"max_concurrent": -'),
    ):
        text = (evidence / name).read_text()
        assert old in text, name
        (evidence / name).write_text(text.replace(old, new))
    before = {path.name: path.read_bytes() for path in evidence.glob("*.csv")}
    assert main(["report", str(evidence)]) == 0
    assert {path.name: path.read_bytes() for path in evidence.glob("*.csv")} == before
    said = capsys.readouterr().err
    assert "trials.csv, line 2, is no row" in said
    assert "epochs.csv, line 2, is no row" in said
    assert "environment.json, entry 1, is no row" in said
    assert main(["restore", str(evidence), "--storage", str(tmp_path / "runs")]) == 0


def test_rows_of_other_trials_are_counted_and_not_kept(made, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(made / "grid", run)
    row = json.loads((run / "trials.jsonl").read_text().splitlines()[0])
    with (run / "trials.jsonl").open("a") as file:
        file.writelines(json.dumps(row | {"trial_id": f"x{n}"}) + "\n" for n in range(1_500))
    assert main(["status", str(run)]) == 0
    said = capsys.readouterr().err
    assert "trials.jsonl has 1,500 rows of trials that are not part of the study" in said


def test_plan_prints_a_bounded_number_of_trials(tmp_path, capsys):
    text = study_text(f"queue_size = {list(range(100, 1_300))}", (1,))
    (tmp_path / "s.toml").write_text(text)
    assert main(["plan", str(tmp_path / "s.toml")]) == 0
    said = capsys.readouterr().out
    assert "... 200 more trials; --json prints them all" in said
    assert "queue_size-100_s1" in said and "queue_size-1299_s1" in said
    assert len(said.splitlines()) < 1_100


@pytest.mark.parametrize("command", ["status", "report"])
def test_epochs_that_a_half_copied_folder_lacks_are_named(made, tmp_path, capsys, command):
    run = tmp_path / "run"
    shutil.copytree(made / "grid", run)
    rows = (run / "epochs.jsonl").read_text().splitlines(keepends=True)
    (run / "epochs.jsonl").write_text("".join(rows[1:]))
    assert main([command, str(run)]) == 0
    said = capsys.readouterr().err
    assert "lacks 1 epoch row(s) of 1 trial(s) that ended" in said
    assert "(3 of 4 are there)" in said


def test_evidence_that_lacks_epochs_is_not_told_to_run(made, tmp_path, capsys):
    evidence = tmp_path / "evidence"
    shutil.copytree(made / "grid_evidence", evidence)
    header, _, *rows = (evidence / "epochs.csv").read_text().splitlines(keepends=True)
    (evidence / "epochs.csv").write_text("".join([header, *rows]))
    assert main(["report", str(evidence)]) == 0
    said = capsys.readouterr().err
    assert "lacks 1 epoch row(s)" in said
    assert "nnclr-study run" not in said
