"""Run folders that were torn, mixed up or made by somebody else: what is left is used."""

import json
import multiprocessing
import random
import re
import socket
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnclr_study.cli import main
from nnclr_study.errors import RunFolderError, RunFolderWarning
from nnclr_study.study.budget import spent
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import LONGEST_ID, plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.faults.test_study_files import OFTEN, values
from tests.report.helpers import make_run, make_search, study_text
from tests.study.test_run_folder import ended, epoch, hold, session
from tests.study.test_spec import GOOD

ROWS = ["epochs.jsonl", "trials.jsonl", "sessions.jsonl", "suggestions.jsonl"]
NAMES = [*ROWS, "lock", "study.toml"]
JUNK = [
    b"",
    b"\n",
    b"\0\n",
    b"\xff\xfe\n",
    b"null\n",
    b"[]\n",
    b"{}\n",
    b"1e999\n",
    b"{" * 9_000 + b"\n",
]
JUNK += [b"[" * 100_000 + b"\n", b"9" * 5_000 + b"\n", b"x" * 3_000_000 + b"\n", b'{"trial_id": ']


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the files of a grid and of a search, each with trials in several states."""
    home = tmp_path_factory.mktemp("made")
    text = study_text("queue_size = [0, 500]", seeds=(1, 2))
    outcomes = iter([0.8, "MemoryError: 12 GiB", 2, None])
    grid = make_run(home / "grid", text, lambda trial: next(outcomes))
    search = make_search(home / "search", [0.7, 0.72, "OOM", (3, "stopped"), 2])
    return [
        {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
        for folder in (grid, search)
    ]


def laid_out(files, path):
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def told(path, capsys):
    """Return the exit code of `status`, its counts and what it warned of; it never raises."""
    code = main(["status", str(path), "--json"])
    said, complaint = capsys.readouterr()
    assert code in (0, 2), complaint
    assert "Traceback" not in complaint
    plain = main(["status", str(path)])
    assert plain == code
    assert "\x1b" not in capsys.readouterr().out
    return code, json.loads(said)["counts"] if code == 0 else None, complaint


@st.composite
def spoilt(draw, lines):
    """Return lines of a file with some torn, doubled, moved, changed or strange ones."""
    lines = list(lines)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines)))
        kind = draw(st.sampled_from(["junk", "tear", "double", "shuffle", "drop", "field"]))
        if kind == "junk" or not lines:
            lines.insert(at, draw(st.one_of(st.sampled_from(JUNK), st.binary(max_size=40))))
            continue
        at = min(at, len(lines) - 1)
        if kind == "tear":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        elif kind == "double":
            lines.append(lines[at])
        elif kind == "shuffle":
            random.Random(at).shuffle(lines)
        elif kind == "drop":
            del lines[at]
        else:
            try:
                row = json.loads(lines[at])
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and row:
                key = draw(st.sampled_from([*row, "new_field"]))
                row[key] = draw(values)
                if draw(st.booleans()):
                    del row[key]
                lines[at] = json.dumps(row).encode() + b"\n"
    return b"".join(lines)


@OFTEN
@given(st.data())
def test_a_spoilt_run_folder_still_has_a_status(made, tmp_path, capsys, data):
    files = dict(data.draw(st.sampled_from(made)))
    for name in data.draw(st.lists(st.sampled_from(ROWS), min_size=1, max_size=3)):
        if name in files:
            files[name] = data.draw(spoilt(files[name].splitlines(keepends=True)))
    code, counts, _ = told(laid_out(files, tmp_path / "run"), capsys)
    assert code == 0, "the study file is whole, so that there is a status"
    if "suggestions.jsonl" not in files:
        assert sum(counts.values()) == 4


@OFTEN
@given(st.data())
def test_a_folder_of_anything_is_refused_or_told(made, tmp_path, capsys, data):
    files = dict(data.draw(st.sampled_from(made)))
    name = data.draw(st.sampled_from(NAMES))
    start = data.draw(st.integers(0, len(files.get(name, b""))))
    files[name] = files.get(name, b"")[:start] + data.draw(st.binary(max_size=60))
    told(laid_out(files, tmp_path / "run"), capsys)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_in_place_of_a_file_is_no_traceback(made, tmp_path, capsys, name):
    path = laid_out({n: c for n, c in made[1].items() if n != name}, tmp_path / "run")
    (path / name).mkdir()
    code, _, complaint = told(path, capsys)
    (path / name).rmdir()
    assert code == (0 if name == "lock" else 2)
    assert name == "lock" or name in complaint or "no study.toml" in complaint


def test_what_is_set_aside_is_named_once_and_the_rest_is_used(made, tmp_path, capsys):
    files = dict(made[0])
    first, *rest = files["trials.jsonl"].splitlines(keepends=True)
    files["trials.jsonl"] = b"".join([first, b"rubbish\n", *rest, b'{"trial_id": "x"}\n'])
    code, counts, complaint = told(laid_out(files, tmp_path / "run"), capsys)
    assert (code, counts["finished"], counts["failed"]) == (0, 1, 1)
    assert len(re.findall(r"trials\.jsonl, line 2, .*: b'rubbish", complaint)) == 1
    assert len(re.findall(r"trials\.jsonl, line 4, .*: status: Field required", complaint)) == 1
    assert "set aside; the rest is used" in complaint


def test_thousands_of_foreign_lines_are_a_few_of_warning(made, tmp_path, capsys):
    files = made[0] | {"epochs.jsonl": b"x\n" * 5_000 + made[0]["epochs.jsonl"]}
    code, counts, complaint = told(laid_out(files, tmp_path / "run"), capsys)
    assert (code, counts["finished"]) == (0, 1)
    assert "and 4,997 more lines of" in complaint
    assert len(complaint.splitlines()) < 8


def test_a_field_of_a_later_version_does_not_cost_the_row(tmp_path):
    folder = RunFolder.create(tmp_path / "run").keep(parse_study(GOOD, "good.toml"))
    row = {"trial_id": "a"} | epoch(1).model_dump() | {"new_score": {"deep": [1]}}
    (folder.path / "epochs.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    with pytest.warns(RunFolderWarning, match="fields of another version: 'new_score' ") as told:
        assert folder.epochs() == {"a": [epoch(1)]}
    assert len(told) == 1


def test_many_fields_of_another_version_are_a_line_of_warning(made, tmp_path, capsys):
    files = dict(made[0])
    first, *rest = files["trials.jsonl"].splitlines(keepends=True)
    strange = {f"{'x' * 500}\x1b[31m{number}": number for number in range(1_000)}
    first = json.dumps(json.loads(first) | strange).encode() + b"\n"
    files["trials.jsonl"] = b"".join([first, *rest])
    code, counts, complaint = told(laid_out(files, tmp_path / "run"), capsys)
    assert (code, counts["finished"]) == (0, 1)
    assert "and 997 more (set aside; the rest is used)" in complaint
    assert len(complaint) < 1_000
    assert "\x1b" not in complaint


def test_our_own_rows_have_no_fields_of_another_version(made, tmp_path, capsys):
    for number, files in enumerate(made):
        _, _, complaint = told(laid_out(files, tmp_path / f"run{number}"), capsys)
        assert complaint == ""


def test_a_foreign_line_shifts_no_session_s_number(tmp_path):
    folder = RunFolder.create(tmp_path / "run").keep(parse_study(GOOD, "good.toml"))
    first, third = (session().model_copy(update={"command": c}) for c in ("first", "third"))
    assert folder.append_session(first) == 0
    with (folder.path / "sessions.jsonl").open("a") as file:
        file.write("rubbish\n")
    assert folder.append_session(third) == 2
    with pytest.warns(RunFolderWarning, match="line 2, is no row"):
        assert [(s.number, s.command) for s in folder.sessions()] == [(0, "first"), (2, "third")]
    trial = plan_trials(folder.study())[0]
    row = ended(trial).model_copy(
        update={"session": 2, "ended_at": third.started_at + timedelta(hours=3)}
    )
    with pytest.warns(RunFolderWarning):
        found = spent(1, [row], folder.sessions())
    assert found.hours == pytest.approx(3)


def test_sessions_of_an_older_version_are_counted(tmp_path):
    folder = RunFolder.create(tmp_path / "run").keep(parse_study(GOOD, "good.toml"))
    lines = [session().model_dump(mode="json", exclude={"number"}) for _ in range(3)]
    (folder.path / "sessions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert folder.append_session(session()) == 3
    assert [each.number for each in folder.sessions()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"val_probe_top1": float("nan")},
        {"seconds": float("inf")},
        {"epoch": 0},
        {"epoch": 10**30},
        {"epoch": "one"},
        {"c_loss": None},
    ],
    ids=str,
)
def test_numbers_that_are_none_are_no_row(tmp_path, change):
    folder = RunFolder.create(tmp_path / "run").keep(parse_study(GOOD, "good.toml"))
    row = {"trial_id": "a"} | epoch(2).model_dump() | change
    folder.append_epoch("a", epoch(1))
    with (folder.path / "epochs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.warns(RunFolderWarning, match=f"line 2, is no row .*{next(iter(change))}"):
        assert folder.epochs() == {"a": [epoch(1)]}


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "..", ".x", "a/b", "a\\b", "a\0b", "a\nb", "a\n", "", "x" * 201]
)
@pytest.mark.parametrize("kind", ["suggestions", "trials", "evaluations"])
def test_ids_that_lead_elsewhere_are_no_ids(tmp_path, kind, name):
    folder = make_search(tmp_path / "hunt", [0.7, 0.8])
    if kind == "evaluations":
        line = {"trial_id": "0000_x", "protocol": "knn", "epoch": 1, "labels": 1, "val_top1": 0.5}
        line |= {"test_top1": 0.5, "chosen": {}, "seconds": 1, "device": "cpu"}
        line |= {"ended_at": "2026-01-01T00:00:00Z"}
        (folder.path / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
        assert len(folder.evaluations()) == 1
    path = folder.path / f"{kind}.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"trial_id": name}), *rest, ""]))
    with pytest.warns(RunFolderWarning, match=rf"{kind}\.jsonl, line 1, .*trial_id"):
        found = {"suggestions": folder.planned, "trials": folder.trials}.get(
            kind, folder.evaluations
        )()
    assert len(found) == len(rest)


def test_an_id_of_ours_is_a_file_name_however_much_varies(tmp_path):
    knobs = [k for k in TrialConfig.model_fields if k.startswith(("jitter", "view2", "solarise"))]
    grid = "".join(f"{knob} = [0.25, 0.123456789]\n" for knob in knobs)
    text = study_text(grid + f'dataset = ["digits", "folder:{"x" * 100}"]')
    study = parse_study(text.replace('dataset = "digits"', "", 1), "x")
    ids = [trial.id for trial in plan_trials(study)]
    assert len(ids) == len(set(ids)) == 3 * 2 ** (len(knobs) + 1)
    assert max(map(len, ids)) <= LONGEST_ID
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    for each in (ids[0], ids[-1], "folder:x_s1_0a"):
        folder.checkpoint(each).with_suffix(".safetensors.part").touch()
        assert folder.checkpoint(each).resolve().parent == folder.checkpoints.resolve()
        folder.append_trial(ended(plan_trials(study)[0]).model_copy(update={"trial_id": each}))
    assert len(folder.trials()) == 3


def test_a_suggestion_that_fits_no_trial_is_set_aside(tmp_path, capsys):
    folder = make_search(tmp_path / "hunt", [0.7, 0.8])
    path = folder.path / "suggestions.jsonl"
    path.write_text(path.read_text().replace('"queue_size": 50', '"queue_size": -50'))
    code, counts, complaint = told(folder.path, capsys)
    assert (code, counts) == (0, {"finished": 1})
    assert "suggestions.jsonl has 1 that are no trials of" in complaint


def test_a_clock_that_was_set_back_gives_no_time_back():
    trial = plan_trials(parse_study(GOOD, "good.toml"))[0]
    started = datetime(2026, 1, 1, tzinfo=UTC)
    calls = [session().model_copy(update={"number": n, "started_at": started}) for n in range(2)]
    rows = [
        ended(trial).model_copy(
            update={"session": n, "ended_at": started + timedelta(hours=hours)}
        )
        for n, hours in enumerate((3, -5))
    ]
    assert spent(2, rows, calls).hours == 3


def test_times_of_other_zones_are_the_times_they_are(tmp_path):
    trial = plan_trials(parse_study(GOOD, "good.toml"))[0]
    folder = RunFolder.create(tmp_path / "run")
    call = session().model_copy(update={"started_at": datetime(2026, 1, 1, 12, tzinfo=UTC)})
    row = ended(trial).model_dump(mode="json")
    (folder.path / "trials.jsonl").write_text(
        json.dumps(row | {"ended_at": "2026-01-01T20:00:00+05:00"})
        + "\n"
        + json.dumps(row | {"ended_at": "2026-01-01T20:00:00"})
        + "\n"
    )
    with pytest.warns(RunFolderWarning, match="line 2, .*ended_at: .*timezone"):
        rows = list(folder.trials().values())
    assert spent(1, rows, [call]).hours == 3


def test_a_second_run_ends_with_who_has_the_first(tmp_path, capsys):
    text = GOOD.replace("seeds = [1, 2]", "seeds = [1]")
    file = tmp_path / "good.toml"
    file.write_text(text)
    folder = RunFolder.create(tmp_path / "runs" / "good").keep(parse_study(text, "good.toml"))
    for trial in plan_trials(folder.study()):
        folder.append_trial(ended(trial))
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(folder, held, release))
    other.start()
    words = ["run", str(file), "--storage", str(tmp_path / "runs")]
    try:
        assert held.wait(20)
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"in use by `run`, process {other.pid} on {socket.gethostname()}; wait" in said
    finally:
        other.kill()
        other.join()
    assert f"process {other.pid}" in (folder.path / "lock").read_text(), "a stale lock"
    assert main(words) == 0
    assert "all 6 trials have ended" in capsys.readouterr().out


def test_a_run_goes_on_beside_what_was_set_aside(tmp_path, capsys):
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    folder = RunFolder.create(tmp_path / "runs" / "good").keep(parse_study(GOOD, "good.toml"))
    for trial in plan_trials(folder.study()):
        folder.append_trial(ended(trial))
    for name in ROWS:
        with (folder.path / name).open("ab") as lines:
            lines.write(b"rubbish\n")
    before = {name: (folder.path / name).read_bytes() for name in ROWS}
    assert main(["run", str(file), "--storage", str(tmp_path / "runs")]) == 0
    said, complaint = capsys.readouterr()
    assert "all 12 trials have ended: 12 finished" in said
    assert {name for name in ROWS if f"{name}, line " in complaint} == {*ROWS[:3]}, "of a grid"
    assert {name: (folder.path / name).read_bytes() for name in ROWS} == before


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run")

    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(RunFolderError, match=r"No locks available; .*--storage"), folder.lock():
        pass
    assert not folder.is_running()
