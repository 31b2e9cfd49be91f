"""Tables on the terminal, as wide as what they hold."""

from collections.abc import Collection, Sequence

from nnclr_study.printable import one_line


def aligned(lines: Sequence[tuple[str, ...]], right: Collection[str] = ()) -> str:
    """Return a head and its lines as a table, however wide, the columns named `right` to there.

    By hand: rich takes seconds for thousands of lines, and breaks what is to be copied.
    """
    lines = [tuple(map(one_line, cells)) for cells in lines]
    columns = [
        [cell.rjust(width) if name in right else cell.ljust(width) for cell in (name, *cells)]
        for name, *cells in zip(*lines, strict=True)
        for width in [max(map(len, (name, *cells)))]
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True)) + "\n"
