"""What other packages bring: data sets, encoders and augmentations, as their metadata name them.

A package is asked for names and a version alone; `trainer/plugins.py` imports what is used.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple

from nnclr_study.errors import PluginError, Problem, StudyFileError

GROUPS = {
    "dataset": "nnclr_study.datasets",
    "encoder": "nnclr_study.encoders",
    "aug_recipe": "nnclr_study.augmentations",
}
"""The entry-point group of each knob that may name a plug-in."""
PREFIX = "plugin:"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

Named = tuple[str, str]
"""A knob and the plug-in that it names, as ("encoder", "plugin:patches")."""


class Plugin(NamedTuple):
    """An entry point of an installed package."""

    knob: str
    value: str
    """As a study file names it."""
    distribution: str
    version: str
    entry: EntryPoint

    def __str__(self) -> str:
        return f"{self.knob} {self.value} of {self.distribution} {self.version}"


def is_plugin(value: object) -> bool:
    """Tell whether a knob's value is the name of a plug-in, installed or not."""
    return isinstance(value, str) and re.fullmatch(PREFIX + NAME, value) is not None


def installed(knob: str) -> list[Plugin]:
    """Return the plug-ins that a knob may name here, sorted by name."""
    return sorted(
        Plugin(knob, f"{PREFIX}{entry.name}", entry.dist.name, entry.dist.version, entry)
        for entry in entry_points(group=GROUPS[knob])
        if entry.dist is not None
    )


def find(knob: str, value: str) -> Plugin:
    """Return the plug-in that a knob names.

    Raises:
        PluginError: no package brings it, or several do.
    """
    known = installed(knob)
    found = [plugin for plugin in known if plugin.value == value]
    if len(found) > 1:
        raise PluginError(f"{' and '.join(map(str, found))} have one name; uninstall all but one")
    if not found:
        names = {plugin.entry.name: plugin.value for plugin in known}
        close = get_close_matches(value.removeprefix(PREFIX), names, n=1)
        hint = f'did you mean "{names[close[0]]}"? ' if close else ""
        raise PluginError(
            f"{hint}no installed package brings {knob} {value}; install the one that does, on "
            f"every machine (known here: {', '.join(names.values()) or 'none'})"
        )
    return found[0]


def require(named: Iterable[Named], path: Path) -> None:
    """Make sure that all plug-ins which a study file names are installed.

    Raises:
        StudyFileError: some are not; the error names every one.
    """
    problems: list[Problem | str] = []
    for knob, value in named:
        try:
            find(knob, value)
        except PluginError as error:
            problems.append(Problem(knob, value, str(error)))
    if problems:
        raise StudyFileError(path, problems)


def versions(named: Iterable[Named]) -> dict[str, str]:
    """Return the version of each distribution that brings a plug-in; what is missing has none."""
    wanted = set(named)
    return {
        plugin.distribution: plugin.version
        for knob in GROUPS
        for plugin in installed(knob)
        if (knob, plugin.value) in wanted
    }
