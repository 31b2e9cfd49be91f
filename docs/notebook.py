"""Executes study.ipynb from top to bottom and keeps what it shows: `python -m docs.notebook`.

Needs a Chrome, which draws its figures, and what `.[test]` installs. In your own Jupyter the
figures are live.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FILE = Path(__file__).parent / "study.ipynb"
VARIES = "varies"
"""Tag of a cell whose output tells of a machine or a clock: it is not kept."""


def executed(renderer: str) -> NotebookNode:
    """Return the notebook with the output of a fresh kernel, started in an empty folder.

    Args:
        renderer: plotly's; `png` is what GitHub shows.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(FILE, as_version=4)
    before = os.environ.get("PLOTLY_RENDERER")
    os.environ["PLOTLY_RENDERER"] = renderer
    try:
        with TemporaryDirectory() as home:
            NotebookClient(
                notebook, timeout=600, record_timing=False, resources={"metadata": {"path": home}}
            ).execute()
    finally:
        os.environ.pop("PLOTLY_RENDERER")
        if before is not None:
            os.environ["PLOTLY_RENDERER"] = before
    for cell in notebook.cells:
        if VARIES in cell.metadata.get("tags", []):
            cell.outputs = []
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


if __name__ == "__main__":
    nbformat.write(executed("png"), FILE)
