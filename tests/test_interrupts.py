"""Ctrl-C, SIGTERM and SIGHUP: held back where they would be lost, the same everywhere else."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from nnclr_study.interrupts import by_sigterm, hangup_blocked, held

ROOT = Path(__file__).parent.parent
ALL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def handlers():
    return [signal.getsignal(number) for number in ALL]


@pytest.fixture(autouse=True)
def not_ignored():
    """Take what a shell did that started these tests in the background: SIGINT is ignored then."""
    before = handlers()
    for number, handler in zip(
        ALL, (signal.default_int_handler, *[signal.SIG_DFL] * 2), strict=True
    ):
        signal.signal(number, handler)
    yield
    for number, handler in zip(ALL, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_an_interrupt_waits_for_the_end_of_the_block(number):
    before, done = handlers(), []
    with pytest.raises(KeyboardInterrupt), held():
        signal.raise_signal(number)
        done.append("to its end")
    assert done
    assert handlers() == before


def test_a_second_one_does_not_wait():
    before, done = handlers(), []
    with pytest.raises(KeyboardInterrupt), held():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        done.append("not reached")
    assert not done
    assert handlers() == before


def test_an_interrupt_is_told_where_the_block_ends_by_an_error_after_it():
    with pytest.raises(KeyboardInterrupt) as caught, held():
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_of_the_block_without_an_interrupt_stays():
    with pytest.raises(ZeroDivisionError), held():
        raise ZeroDivisionError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_is_ctrl_c_for_as_long_as_the_block_lasts(number):
    before = handlers()
    with pytest.raises(KeyboardInterrupt), by_sigterm():
        signal.raise_signal(number)
    assert handlers() == before


@pytest.mark.parametrize("number", ALL)
def test_what_the_parent_process_ignores_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    with by_sigterm(), held():
        signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_IGN
        signal.signal(number, signal.default_int_handler)  # as Ray does, for as long as it starts
    assert signal.getsignal(number) == signal.SIG_IGN


def test_processes_that_are_started_without_hangup_outlive_it_and_this_one_hears_of_it():
    with pytest.raises(KeyboardInterrupt), by_sigterm():
        with hangup_blocked():
            child = subprocess.Popen(["sleep", "60"])
            signal.raise_signal(signal.SIGHUP)
            heard_late = True
        pytest.fail("not reached")
    child.send_signal(signal.SIGHUP)
    child.terminate()
    assert child.wait() == -signal.SIGTERM
    assert heard_late
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


WAITS = """
import sys
from nnclr_study.interrupts import by_sigterm, held
with by_sigterm(), held():
    print("held", flush=True)
    sys.stdin.readline()
print("to its end", flush=True)
"""


@pytest.mark.parametrize("ignored", [True, False])
def test_a_script_s_background_process_outlives_ctrl_c_in_its_terminal(ignored):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL
        ),
    )
    assert process.stdout.readline() == "held\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    output, errors = process.communicate("\n", timeout=60)
    assert (output == "to its end\n") is ignored, errors
    assert ("KeyboardInterrupt" in errors) is not ignored


def test_a_thread_hears_of_no_signals_and_may_use_both():
    seen = []

    def work():
        with by_sigterm(), held():
            seen.append(handlers())

    before = handlers()
    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
