"""Ctrl-C, SIGTERM and SIGHUP: what they end, and where they have to wait."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def by_sigterm() -> Iterator[None]:
    """Have SIGTERM and SIGHUP interrupt as Ctrl-C does.

    Clusters and containers send SIGTERM to what they end, and a terminal that is closed sends
    SIGHUP.
    """
    with _handled(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def held() -> Iterator[None]:
    """Keep an interrupt until the block has ended, even by an error; a second one breaks in.

    In what is imported, and in what forks, an interrupt may be lost or become another error.
    """
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        if caught:
            signal.default_int_handler(number, frame)
        caught.append(number)

    with _handled(note, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        try:
            yield
        except Exception as error:
            if caught:
                raise KeyboardInterrupt from error
            raise
    if caught:
        raise KeyboardInterrupt


@contextmanager
def hangup_blocked() -> Iterator[None]:
    """Keep SIGHUP from processes that the block starts, for as long as they live.

    A terminal that is closed sends it to a whole process group. This process receives it after
    the block, and can then end the others in order.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handled(handler: Any, *numbers: int) -> Iterator[None]:
    """Handle signals in the main thread; do nothing in another one, which receives none.

    A signal that the parent process told this one to ignore stays ignored: `nohup` does so with
    SIGHUP, and a shell script with SIGINT for what it starts by `&`. Handlers that the block
    itself sets are taken back.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
        for number, usual in before.items():
            if usual != signal.SIG_IGN:
                signal.signal(number, handler)
    try:
        yield
    finally:
        for number, usual in before.items():
            # None: it was not set from Python, and cannot be again.
            signal.signal(number, signal.SIG_DFL if usual is None else usual)
