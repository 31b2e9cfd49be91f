"""What the commands print to, which may end before they do."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from nnclr_study.printable import one_line, printable


class Output:
    """`sys.stdout` or `sys.stderr`, as it is when something is printed.

    Where it cannot be written any more, as its reader or its terminal is gone, what is printed
    goes nowhere: a study outlives that. `lost` then is the error. Characters that its encoding
    does not have are printed as escapes.

    Args:
        name: `stdout` or `stderr`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Print a text, if somebody listens."""
        try:
            try:
                return self._stream.write(text)  # type: ignore[no-any-return]
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                known = text.encode(encoding, "backslashreplace").decode(encoding)
                return self._stream.write(known)  # type: ignore[no-any-return]
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
    def rich_proxied_file(self) -> "Output":
        """What rich writes to while its living line stands in for the stream: this, as ever."""
        return self

    @property
    def _stream(self) -> Any:
        stream = getattr(sys, self._name)
        return getattr(stream, "rich_proxied_file", stream)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        # What it holds yet is written again as the process ends, and must go somewhere.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class Terminal(Console):
    """A console that prints text word for word, and escapes what a terminal would obey.

    A string is one line: a line break in it comes from a name or a message of others.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich renders it, on one line."""
        return super().render_str(one_line(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is printed of anything else, such as a table; its line breaks stay."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield Segment(text, segment.style, segment.control)

    def write(self, text: str) -> None:
        """Print lines that are laid out already; rich takes seconds for thousands of lines."""
        self.file.write(printable(text))


def console(output: Any) -> Terminal:
    """Return what prints there, word for word."""
    return Terminal(file=output, highlight=False, markup=False, emoji=False, soft_wrap=True)
