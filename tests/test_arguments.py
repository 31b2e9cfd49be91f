"""Odd arguments: whatever a word of the command line is, it ends in a line and an exit code."""

import os
import shutil
from pathlib import Path

import pytest

from nnclr_study.cli import main
from nnclr_study.report import live
from tests.report.helpers import make_search, run_of

ROOT = Path(__file__).parent.parent
ODD = [
    "",
    "~x",
    "-",
    "/dev/null",
    "/proc/self/mem",
    "folder",
    "file",
    "bytes",
    "file/below",
    "below/" * 2_000,
    "name" * 100,
    "a\0b",
    "byte\udce9",
    "run",
    "search",
    "evidence",
    "study.toml",
]
NO_FOLDER = ODD[3:5] + ODD[6:12]
"""Of these, words that cannot become a folder."""
CALLS = [
    ["plan", "ODD"],
    ["plan", "study.toml", "--like", "ODD"],
    ["run", "ODD"],
    ["status", "ODD"],
    ["report", "ODD"],
    ["report", "run", "-o", "TARGET"],
    ["report", "run", "search", "-o", "TARGET"],
    ["restore", "ODD"],
    ["restore", "evidence", "--storage", "ODD"],
    ["confirm", "ODD"],
    ["confirm", "run", "-o", "ODD"],
    ["trial", "ODD", "x"],
    ["trial", "study.toml", "ODD"],
    ["export", "ODD", "-o", "out"],
    ["export", "run", "-o", "ODD"],
    ["export", "run", "ODD", "-o", "out"],
    ["evaluate", "ODD"],
    ["evaluate", "ODD", "x"],
    ["evaluate", "ODD", "--dataset", "digits", "--normalise", "none"],
    ["evaluate", "file", "--dataset", "ODD"],
    ["evaluate", "file", "--dataset", "digits", "--normalise", "ODD"],
    ["evaluate", "run", "x", "--protocol", "ODD"],
    ["data", "ODD"],
    ["data", "digits", "--data", "ODD"],
    ["data", "folder:x", "--from", "ODD"],
    ["data", "folder:x", "--data", "ODD"],
    ["doctor", "--storage", "TARGET", "--data", "TARGET"],
    ["watch", "ODD", "--port", "0"],
    ["example", "ODD"],
    ["schema", "ODD"],
    ["ODD"],
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of what the odd words name."""
    home = tmp_path_factory.mktemp("odd")
    run_of(home / "run", q0=[0.8, 0.81, 0.82], q500=[0.9, "OOM", 0.9])
    make_search(home / "search", [0.7, 0.72])
    shutil.copytree(ROOT / "reports" / "quickstart", home / "evidence")
    shutil.copy(ROOT / "search_spaces" / "quickstart.toml", home / "study.toml")
    (home / "folder").mkdir()
    (home / "file").write_text("x")
    (home / "bytes").write_bytes(os.urandom(500))
    return home


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_command_takes_or_refuses_any_word(call, made, tmp_path, monkeypatch, capsys):
    home = shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(home)
    monkeypatch.setattr(live.ThreadingHTTPServer, "serve_forever", lambda _: None)
    monkeypatch.setattr("nnclr_study.report.static.write_images", lambda *_: [])
    for odd in NO_FOLDER if "TARGET" in call else ODD:
        if call[0] == "run" and odd == "study.toml":
            continue  # that one it would run
        words = [odd if word in ("ODD", "TARGET") else word for word in call]
        code = main(words)
        said = "".join(capsys.readouterr())
        assert code in (0, 2, 3), (words, said)
        assert said, words
        assert "Traceback" not in said


def test_a_path_that_the_system_refuses_is_named(capsys):
    name = "x" * 300
    assert main(["status", name]) == 2
    assert (
        capsys.readouterr().err == f"error: {name}/study.toml cannot be used: File name too long\n"
    )
