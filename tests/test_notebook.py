"""docs/study.ipynb runs from top to bottom, and what it holds is what it shows."""

import re

import nbformat
import pytest

from docs.notebook import FILE, VARIES, executed


def shown(notebook):
    """What each cell prints and returns as text, without numbers that a processor rounds."""
    texts = []
    for cell in notebook.cells:
        told = [
            output.get("text") or output.get("data", {}).get("text/plain", "")
            for output in cell.get("outputs", [])
        ]
        texts.append(" ".join(re.sub(r"-?\d+\.\d+", "#", " ".join(told)).split()))
    return texts


def test_it_is_small_and_has_the_output_of_every_cell_that_shows_something():
    assert FILE.stat().st_size < 300_000
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            told = (
                VARIES not in cell.metadata.get("tags", []) and "import pandas" not in cell.source
            )
            assert bool(cell.outputs) == told, cell.source
            assert all(output.output_type != "error" for output in cell.outputs)
    assert "/home/" not in FILE.read_text()


@pytest.mark.slow
def test_it_runs_from_top_to_bottom_in_a_fresh_kernel_and_shows_what_it_holds():
    """Starts Ray; plotly's figures are drawn as data, so that no Chrome is needed."""
    kept = nbformat.read(FILE, as_version=4)
    again = executed("plotly_mimetype")
    assert shown(again) == shown(kept)
    figures = [
        output
        for cell in again.cells
        for output in cell.get("outputs", [])
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]
    assert len(figures) == FILE.read_text().count('"image/png"') > 3
