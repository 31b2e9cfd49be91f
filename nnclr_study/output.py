"""What the commands print to, which may end before they do."""

import os
import sys
from contextlib import suppress
from typing import Any

from rich.console import Console


class Output:
    """`sys.stdout` or `sys.stderr`, as it is when something is printed.

    Where it cannot be written any more, as its reader or its terminal is gone, what is printed
    goes nowhere: a study outlives that. `lost` then is the error.

    Args:
        name: `stdout` or `stderr`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Print a text, if somebody listens."""
        try:
            return self._stream.write(text)  # type: ignore[no-any-return]
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Have it printed now."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def _stream(self) -> Any:
        return getattr(sys, self._name)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        # What it holds yet is written again as the process ends, and must go somewhere.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def console(output: Any) -> Console:
    """Return what prints there, word for word."""
    return Console(file=output, highlight=False, markup=False, emoji=False, soft_wrap=True)
