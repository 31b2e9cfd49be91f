"""Text of others on the terminal: it neither acts on a terminal nor passes for a line of ours."""

import fcntl
import io
import json
import os
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from nnclr_study import cli
from nnclr_study.cli import main
from nnclr_study.errors import RunFolderWarning, StudyError
from nnclr_study.output import Output, Terminal, console
from nnclr_study.printable import one_line, printable
from nnclr_study.study.budget import Spent
from nnclr_study.study.plan import plan_trials
from nnclr_study.sweep.terminal import Progress as TrialProgress
from tests.report.helpers import run_of, write_trial

EVIDENCE = Path(__file__).parent.parent / "reports" / "quickstart"
ACTING = "\x1b]0;owned\x07\x1b[2J\r\x08\x7f\x9b31m\u202e\u2066\u200e\u200b\ufeff\u2028\u0085\udce9"
FAKE = "error: nothing of ours"
EVIL = f"{ACTING}\n{FAKE}"
"""What a name of a file, a folder or a class may hold."""


@pytest.mark.parametrize(
    "char", EVIL.replace(FAKE, "") + "\0\t\u061c\u200f\u2069\U000e0041\U000e0fff"
)
def test_what_a_terminal_would_obey_or_hide_becomes_an_escape(char):
    assert one_line(f"a{char}b") == f"a{ascii(char)[1:-1]}b"
    assert one_line(f"a{char}b").isprintable()


def test_text_that_a_reader_can_see_stays_as_it_is():
    seen = "été Straße 猫\u3000ねこ גן\u00a0😀 \\x1b [red]x[/red]"
    assert one_line(seen) == printable(seen) == seen
    assert printable("a\n\tb\r\n\x1b") == "a\n\tb\\r\n\\x1b"
    assert one_line(one_line(EVIL)) == one_line(EVIL)


def check(shown):
    """Check that nothing of `EVIL` has reached the terminal as it is."""
    assert not [char for char in ACTING if char in shown and not char.isprintable()], ascii(shown)
    assert FAKE not in shown.splitlines(), shown
    assert "Traceback" not in shown


def test_whatever_is_printed_passes_through_one_place(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    out = console(Output("stdout"))
    table = Table("head", EVIL)
    table.add_row(EVIL, Text(ACTING))
    out.print(EVIL)
    out.print(Text(ACTING), style="bold")
    out.print(table)
    out.write(f"{EVIL.partition(chr(10))[0]}\n")
    with Progress(console=out) as bars:
        bars.add_task(ACTING, total=3)
    check(sys.stdout.getvalue())


def test_our_own_styles_reach_a_terminal_and_those_of_others_do_not(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    out = console(Output("stdout"))
    out._force_terminal, out._color_system = True, out._color_system or 1
    out.print("\x1b[31mred", style="bold")
    assert sys.stdout.getvalue() == "\x1b[1m\\x1b[31mred\x1b[0m\n"


def test_a_line_break_in_an_error_begins_no_line():
    error = StudyError(f"{EVIL} is wrong", "a second line of ours")
    assert str(error).splitlines()[1:] == ["a second line of ours"]
    check(str(error))
    warning = RunFolderWarning("first", EVIL)
    assert len(str(warning).splitlines()) == 2
    check(str(warning))


def evil_images(folder):
    """An image folder of which a class and an image have evil names."""
    for part in ("train", "test"):
        for kind in (EVIL, "b"):
            (folder / part / kind).mkdir(parents=True)
            for shade in range(10):
                image = Image.new("RGB", (32, 32), (shade, 0, 0))
                image.save(folder / part / kind / f"{shade}.png")
    return folder


def said(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    check(captured.out + captured.err)
    return code, captured.out, captured.err


def test_names_of_classes_and_images(tmp_path, capsys):
    images = evil_images(tmp_path / "birds")
    data = ("data", "folder:birds", "--data", tmp_path, "--image-size", 32)
    code, out, _ = said(capsys, *data)
    assert code == 0
    assert f"2 classes: {one_line(EVIL)}, b" in out
    assert said(capsys, *data, "--json")[0] == 0
    (images / "train" / EVIL / f"{EVIL}.png").write_bytes(b"no image")
    code, _, err = said(capsys, *data)
    assert code == 3
    assert "\\x1b[2J" in err


@pytest.mark.parametrize(
    "words",
    [
        ["plan", EVIL],
        ["plan", EVIDENCE / "study.toml", "--like", EVIL],
        ["run", EVIL],
        ["run", EVIDENCE / "study.toml", "--tracker", EVIL],
        ["status", EVIL],
        ["report", EVIL],
        ["restore", EVIL],
        ["watch", EVIL],
        ["confirm", EVIL],
        ["trial", EVIL, "x"],
        ["trial", EVIDENCE / "study.toml", EVIL],
        ["export", EVIL, "-o", "x"],
        ["evaluate", EVIL],
        ["evaluate", EVIDENCE, EVIL],
        ["evaluate", EVIDENCE / "study.toml", "--dataset", EVIL],
        ["evaluate", EVIDENCE / "study.toml", "--dataset", "digits", "--normalise", EVIL],
        ["data", EVIL],
        ["data", f"plugin:{EVIL}"],
        ["data", "folder:x", "--from", EVIL],
        ["doctor", "--storage", EVIL, "--data", EVIL],
        ["example", EVIL],
        ["schema", EVIL],
        [EVIL],
        ["plan", f"--{EVIL}"],
        ["watch", "x", "--port", EVIL],
        ["run", "x", "--runner", EVIL],
    ],
)
def test_every_command_repeats_its_arguments_on_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if words[0] == "run":  # its storage
        words = [*words, "--storage", str(tmp_path / EVIL)]
    code, out, err = said(capsys, *words)
    assert code in (0, 2, 3)
    assert out + err


def test_a_run_folder_of_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = run_of(tmp_path / EVIL, q0=[0.8, 0.7], q500=[0.9, 0.6])
    text = folder.study_file.read_text().replace("[grid]", f'[grid]\n"{"x"!a}\\u202e" = [1]')
    failed = plan_trials(folder.study())[0]
    write_trial(folder, failed, f"RuntimeError: {EVIL}", host=EVIL, device=EVIL)
    for name in ("trials", "epochs", "sessions", "evaluations"):
        with (folder.path / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"trial_id": EVIL, EVIL: EVIL}) + "\n")
    code, out, err = said(capsys, "status", folder.path)
    assert code == 0
    assert "RuntimeError: \\x1b]0;owned" in out
    assert err.count("warning: ") == 3
    assert said(capsys, "status", folder.path, "--json")[0] == 0
    assert said(capsys, "report", folder.path, "-o", EVIL)[0] == 0
    assert said(capsys, "confirm", folder.path, "-o", f"{EVIL}.toml")[0] == 2
    with (folder.path / "lock").open("w") as lock:
        lock.write(EVIL.encode(errors="replace").decode())
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = said(capsys, "evaluate", folder.path, failed.id)
        assert code == 2
    folder.study_file.write_text(text)
    assert said(capsys, "status", folder.path)[0] == 2


def test_the_environment(tmp_path, monkeypatch, capsys):
    for name in ("RAY_TMPDIR", "BROWSER_PATH", "RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, str(tmp_path / EVIL))
    said(capsys, "doctor", "--storage", tmp_path)


def test_warnings_of_libraries(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
    monkeypatch.setattr(cli, "app", lambda _: warnings.warn(EVIL, stacklevel=1))
    main([])
    assert shown == [one_line(EVIL)]


def test_the_line_of_a_trial_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    folder = run_of(tmp_path, q0=[0.8], q500=[EVIL])
    study, ended = folder.study(), folder.trials()
    todo = plan_trials(study)
    with TrialProgress(console(Output("stdout")), study, folder, todo) as progress:
        for trial in todo:
            progress.started(trial.id)
            progress.ended(ended[trial.id], Spent(1, 0.0, 0.0, []))
        progress.say(EVIL)
    check(sys.stdout.getvalue())
    assert "failed    queue_size 500, seed 1: \\x1b]0;owned" in sys.stdout.getvalue()


def test_the_living_line_of_a_terminal_that_lacks_a_character(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    out = Terminal(file=Output("stdout"), force_terminal=True)
    with Live("猫", console=out, auto_refresh=False):  # rich replaces sys.stdout
        out.print("猫 ends")
    sys.stdout.flush()
    assert b"\\u732b ends" in raw.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_lacks_a_character_gets_an_escape(encoding, tmp_path, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    for name in ("猫", "Ω"):
        folder = tmp_path / name
        run_of(folder, q0=[0.8], q500=[0.9])
        assert main(["report", str(folder)]) == 0
    sys.stdout.flush()
    assert f"{os.sep}\\u732b{os.sep}report".encode() in raw.getvalue()


def test_every_command_prints_where_the_terminal_is_ascii(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    stderr = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr", stderr)  # as Python opens it, whatever the encoding
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "猫"
    folder = run_of(home / "run", q0=[0.8], q500=[0.9])
    (home / "birds" / "train" / "猫").mkdir(parents=True)
    for words, code in {
        ("--help",): 0,
        ("schema",): 0,
        ("example",): 0,
        ("example", "quickstart"): 0,
        ("plan", folder.study_file): 0,
        ("plan", folder.study_file, "--json"): 0,
        ("status", folder.path): 0,
        ("report", folder.path): 0,
        ("confirm", folder.path, "-o", home / "ete.toml"): 0,
        ("restore", EVIDENCE, "--storage", home): 0,
        ("status", "猫"): 2,
        ("export", folder.path, "-o", home): 2,
        ("evaluate", "猫"): 2,
        ("trial", folder.study_file, "猫"): 2,
        ("watch", "猫"): 2,
        ("doctor", "--storage", home): 0,
        ("data", "folder:birds", "--data", home): 3,
        ("example", "猫"): 2,
        ("猫",): 2,
    }.items():
        assert main([str(word) for word in words]) == code, words
