"""The study files that come with the package, to start from: those of search_spaces/."""

from pathlib import Path

from nnclr_study.errors import UsageError

_PACKAGE = Path(__file__).parents[1]
_HOMES = (_PACKAGE / "search_spaces", _PACKAGE.parent / "search_spaces")
"""In a wheel, and in a checkout."""


def example_names() -> list[str]:
    """Return the names of all of them."""
    return sorted(path.stem for path in _home().glob("*.toml"))


def example_text(name: str) -> str:
    """Return the text of one, without the paths that hold in a checkout alone.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in example_names():
        raise UsageError(f"there is no example {name!r}; choose from {', '.join(example_names())}")
    text = (_home() / f"{name}.toml").read_text(encoding="utf-8")
    _schema, _, rest = text.partition("\n")
    return rest.replace("search_spaces/", "")


def _home() -> Path:
    return next(home for home in _HOMES if home.is_dir())
