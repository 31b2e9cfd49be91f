"""What is printed when nobody can read it any more: a study goes on, and a lost table is told."""

import errno
import os
import subprocess
import sys
from pathlib import Path

from nnclr_study.output import Output, console

RUN = [sys.executable, "-m", "nnclr_study.cli"]
EVIDENCE = Path("reports/quickstart").resolve()


def test_lines_of_a_study_go_nowhere_once_their_reader_has_left(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output("stdout")
    for line in range(3):
        console(output).print(f"finished {line}")
    assert isinstance(output.lost, BrokenPipeError)
    stream.close()  # what it held went nowhere: nothing is left to fail


def test_a_terminal_that_is_gone_is_no_reason_to_end(monkeypatch):
    ours, its = os.openpty()
    stream = os.fdopen(its, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output("stdout")
    console(output).print("seen")
    assert os.read(ours, 100) == b"seen\r\n"
    os.close(ours)
    console(output).print("not seen")
    assert output.lost.errno == errno.EIO
    stream.close()


def test_what_cannot_be_printed_is_told():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*RUN, "plan", EVIDENCE / "study.toml"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "error: what was to be printed is lost: No space left on device\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    with subprocess.Popen(
        [*RUN, "plan", EVIDENCE / "study.toml", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
