"""What is sent through ray:// shows no password on the cluster's side."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray

from nnclr_study.sweep import client

SECRET = "postgresql+psycopg://user:hunter2@127.0.0.1:1/db"


@pytest.fixture
def seen(monkeypatch):
    """Have a study's process tell its words; return the command lines that began one."""
    lines = []
    usual = subprocess.Popen

    def begun(words, **how):
        lines.append(words)
        code = words[2].replace("from nnclr_study.cli import main", "main = lambda: sys.argv[1:]")
        return usual(
            [*words[:2], code.replace("sys.exit(main())", "sys.exit(repr(main()))")], **how
        )

    monkeypatch.setattr(subprocess, "Popen", begun)
    context = SimpleNamespace(gcs_address="10.0.0.7:6379")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    return lines


def test_its_words_reach_a_study_and_its_command_line_holds_none(seen, capfd):
    flags = [f"--optuna-storage={SECRET}", "--storage=s3://key:hunter2@b/x", "--retry-failed"]
    assert client._run("[study]\n", flags) == 1
    told = capfd.readouterr().err
    for word in ("'run'", "study.toml", *flags, "'--address', '10.0.0.7:6379'"):
        assert word in told
    assert "hunter2" not in str(seen)
    assert seen[0][0] == sys.executable


def test_a_study_that_cannot_begin_ends_with_its_code(seen, monkeypatch):
    monkeypatch.setattr(client, "STUDY", "import sys; sys.stdin.read(); sys.exit(3)")
    assert client._run("[study]\n", []) == 3
