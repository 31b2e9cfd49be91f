"""An internal error has an exit code of its own and leaves a log to report."""

import errno
import os
import re
import tempfile
from pathlib import Path

import pytest
import typer

from nnclr_study import crash
from nnclr_study.cli import app, main
from nnclr_study.errors import DataError
from nnclr_study.study import spec
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.trainer.loop import DivergedError

QUICKSTART = Path(__file__).parent.parent / "search_spaces" / "quickstart.toml"
URL = "mysql://me:hunter2@host/optuna"


class UnprintableError(Exception):
    def __str__(self):
        raise ValueError


def cyclic():
    error = ValueError("it caused itself")
    error.__cause__ = error
    return error


def fail(monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(spec, "load_study", fails)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def logs(folder):
    return [*folder.glob("nnclr-study-error-*.log")]


@pytest.mark.parametrize(
    "error, said",
    [
        (KeyError("x"), "KeyError: 'x'"),
        (EOFError(), "EOFError"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "BrokenPipeError: [Errno 32] Broken pipe"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (SystemExit(0), "SystemExit: 0"),
        (SystemExit("no way on"), "SystemExit: no way on"),
        (GeneratorExit(), "GeneratorExit"),
        (RuntimeError(f"no {URL}\nand more"), "RuntimeError: no mysql://me:***@host/optuna"),
        (
            ExceptionGroup("two", [KeyError("x"), OSError()]),
            "ExceptionGroup: two (2 sub-exceptions)",
        ),
        (UnprintableError(), "UnprintableError"),
        (cyclic(), "ValueError: it caused itself"),
    ],
)
def test_an_internal_error_ends_with_70_and_a_line(monkeypatch, capfd, temporary, error, said):
    fail(monkeypatch, error)
    assert main(["plan", "file.toml"]) == 70
    (log,) = logs(temporary)
    line = f"internal error: {said}; details in {log}; please report it with that file"
    assert capfd.readouterr().err.splitlines() == [line]
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "in fails\n" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "error, code, said",
    [
        (MemoryError(), 3, "the machine ran out of memory"),
        (RuntimeError("CUDA out of memory."), 3, "CUDA out of memory.; more micro_batches"),
        (DivergedError("c_loss is nan", 1), 1, "c_loss is nan in epoch 1; no epoch was good"),
    ],
)
def test_what_a_trial_lacks_or_ends_in_is_a_message(
    monkeypatch, capfd, temporary, error, code, said
):
    fail(monkeypatch, error)
    assert main(["plan", "file.toml"]) == code
    assert capfd.readouterr().err.startswith(f"error: {said}")
    assert logs(temporary) == []


def test_the_log_says_what_was_called_with_what_and_no_password(monkeypatch, temporary, capfd):
    fail(monkeypatch, KeyError("x"))
    assert main(["run", "a file.toml", "--optuna-storage", URL]) == 70
    text = logs(temporary)[0].read_text()
    command = "nnclr-study run 'a file.toml' --optuna-storage 'mysql://me:***@host/optuna'"
    assert f"command   {command}\n" in text
    assert re.search(r"^versions  nnclr-study .*torch 2.*ray 2", text, re.MULTILINE)


def test_it_lies_in_the_run_folder_where_there_is_one(monkeypatch, temporary, capfd):
    def fails(*_):
        raise KeyError("x")

    monkeypatch.setattr(RunFolder, "keep", fails)
    storage = temporary / "runs"
    assert main(["run", str(QUICKSTART), "--storage", str(storage)]) == 70
    assert len(logs(storage / "quickstart")) == 1
    assert logs(temporary) == []
    monkeypatch.undo()
    fail(monkeypatch, KeyError("x"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert main(["plan", "file.toml"]) == 70
    assert len(logs(temporary)) == 1, "the next command has another folder, or none"


def test_where_no_log_can_be_written_the_terminal_has_it(monkeypatch, temporary, capfd):
    fail(monkeypatch, KeyError("x"))
    monkeypatch.setattr(tempfile, "mkstemp", lambda *_: os.open("/nowhere/log", os.O_RDONLY))
    assert main(["plan", "file.toml"]) == 70
    shown = capfd.readouterr().err
    assert "Traceback (most recent call last)" in shown
    last = "internal error: KeyError: 'x'; no folder takes a log of it: please report it with the "
    assert shown.splitlines()[-1] == f"{last}lines above"


def test_a_log_is_written_even_where_nothing_is_known_of_the_machine(monkeypatch, temporary):
    monkeypatch.setattr(crash.provenance, "machine", lambda: 1 / 0)
    text = crash.write_log(KeyError("x"), ["plan"]).read_text()
    assert "nothing else is known: ZeroDivisionError" in text
    assert "KeyError: 'x'" in text


def test_every_command_is_guarded():
    for info in app.registered_commands:
        assert info.callback.__wrapped__.__module__ == "nnclr_study.cli"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("no images"), typer.Exit(1)])
def test_what_is_no_internal_error_keeps_its_code(monkeypatch, temporary, capfd, error):
    fail(monkeypatch, error)
    code, said = {
        KeyboardInterrupt: (130, "interrupted; the same command goes on where it was\n"),
        DataError: (3, "error: no images\n"),
        typer.Exit: (1, ""),
    }[type(error)]
    assert main(["plan", "file.toml"]) == code
    assert capfd.readouterr().err == said
    assert logs(temporary) == []


def test_what_fails_because_of_an_interrupt_is_one(monkeypatch, temporary, capfd):
    def fails(*_):
        try:
            raise KeyboardInterrupt
        finally:
            raise ConnectionError("Ray is gone already")

    monkeypatch.setattr(spec, "load_study", fails)
    assert main(["plan", "file.toml"]) == 130
    assert logs(temporary) == []
