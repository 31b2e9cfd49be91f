"""A tracker in a thread of its own: the study waits for none, and fails by none."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Thread

from nnclr_study.errors import cut
from nnclr_study.study.plan import Trial
from nnclr_study.study.provenance import masked
from nnclr_study.study.rows import EpochRow, TrialRow
from nnclr_study.sweep.trackers import Tracker

LAST_SECONDS = 20.0
"""How long the end of a study waits for what trackers have not been told yet."""
LONGEST_REASON = 200
"""Characters of an error that are shown."""


class Aside:
    """Tells a tracker in the background; says once that it fails, and goes on trying.

    Args:
        name: of the tracker, as the user gave it.
        tracker: it alone is called in the thread.
        say: prints a line.
    """

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]) -> None:
        self._name = name
        self._tracker = tracker
        self._say = say
        self._failed = False
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # Its process may end while it still waits for a server.
        self._thread = Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def epoch(self, trial: Trial, row: EpochRow) -> None:
        """Tell of an epoch, some time."""
        self._calls.put(partial(self._tracker.epoch, trial, row))

    def end(self, trial: Trial, row: TrialRow) -> None:
        """Tell of what became of a trial, some time."""
        self._calls.put(partial(self._tracker.end, trial, row))

    def close(self) -> None:
        """Tell what is left, if that is soon done."""
        self._calls.put(self._tracker.close)
        self._calls.put(None)
        self._thread.join(LAST_SECONDS)
        if self._thread.is_alive():
            self._warn(f"what it was told last is not there after {LAST_SECONDS:g} s")

    def _work(self) -> None:
        for call in iter(self._calls.get, None):
            try:
                call()
            except Exception as error:  # trackers raise what they like
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self._warn(lines[0])

    def _warn(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            told = cut(masked(reason, self._name), LONGEST_REASON)
            self._say(f"warning: --tracker {masked(self._name)}: {told}; the study goes on")


@contextmanager
def aside(trackers: Mapping[str, Tracker], say: Callable[[str], None]) -> Iterator[list[Aside]]:
    """Put trackers, each by its name, into threads of their own, and end these."""
    told = [Aside(name, tracker, say) for name, tracker in trackers.items()]
    try:
        yield told
    finally:
        for one in told:
            one.close()
