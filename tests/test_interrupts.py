"""Ctrl-C and SIGTERM: held back where they would be lost, and the same everywhere else."""

import signal
from threading import Thread

import pytest

from nnclr_study.interrupts import by_sigterm, held

BOTH = signal.SIGINT, signal.SIGTERM


def handlers():
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
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


def test_an_error_of_the_block_is_told_before_the_interrupt():
    with pytest.raises(ZeroDivisionError), held():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError


def test_sigterm_is_ctrl_c_for_as_long_as_the_block_lasts():
    before = handlers()
    with pytest.raises(KeyboardInterrupt), by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert handlers() == before


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
