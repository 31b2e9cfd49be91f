"""Text of others as anybody may print it: what a terminal would obey or hide becomes an escape."""

from unicodedata import category


def one_line(text: str) -> str:
    r"""Return text on one line, with control and format characters as escapes such as `\x1b`.

    These are line breaks, tabs, terminal control codes, characters without a width or that turn
    the direction of writing, half a surrogate pair, and code points without a meaning.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def printable(text: str) -> str:
    """Return text of several lines, each as `one_line` has it; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def _shown(char: str) -> str:
    if char.isprintable() or category(char) == "Zs":  # other spaces than ours
        return char
    return ascii(char)[1:-1]
