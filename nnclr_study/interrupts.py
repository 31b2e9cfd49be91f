"""Ctrl-C and SIGTERM: what they end, and where they have to wait."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def by_sigterm() -> Iterator[None]:
    """Have SIGTERM interrupt as Ctrl-C does: clusters and containers end by it what they run."""
    with _handled(signal.default_int_handler, signal.SIGTERM):
        yield


@contextmanager
def held() -> Iterator[None]:
    """Keep an interrupt until the block has ended; a second one breaks in.

    In what is imported, and in what forks, an interrupt may be lost or become another error.
    """
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        if caught:
            signal.default_int_handler(number, frame)
        caught.append(number)

    with _handled(note, signal.SIGINT, signal.SIGTERM):
        yield
    if caught:
        raise KeyboardInterrupt


@contextmanager
def _handled(handler: Any, *numbers: int) -> Iterator[None]:
    """Handle signals; in a thread, which hears of none, do nothing."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, usual in before.items():
            # None: it was not set from Python, and cannot be again.
            signal.signal(number, signal.SIG_DFL if usual is None else usual)
