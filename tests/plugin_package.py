"""Packages with plug-ins, put where this process and its children find them."""

import tomllib
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "docs" / "plugin_example"


def install_example(folder, version=None):
    """Put the example of docs/plugins.md into a folder, as pip would."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    source = (EXAMPLE / "shapes_for_nnclr.py").read_text()
    points = project["entry-points"]
    return install(folder, project["name"], source, points, version or project["version"])


def install(folder, name, source, points, version="1.0"):
    """Put a package of one module, and what pip would write of it, into a folder.

    `points` has the entry points of each group: names with what they refer to.
    """
    module = name.replace("-", "_")
    about = folder / f"{module}-{version}.dist-info"
    about.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        line
        for group, entries in points.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder
