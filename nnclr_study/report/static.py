"""Static images of a report's figures, for papers and slides.

They are drawn by the installed plotly in a Chrome of this machine, which kaleido drives; no host
is asked for anything.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory

import plotly.graph_objects as go

from nnclr_study.errors import UsageError, writing
from nnclr_study.report.analyse import analyse
from nnclr_study.report.evidence import load_any
from nnclr_study.report.findings import find
from nnclr_study.report.sections import drawn, sections
from nnclr_study.study.files import replacing, subfolder

KINDS = ("png", "svg")
WIDTH, HEIGHT = 720, 400
"""Pixels of a figure; many have a height of their own."""
SHARPNESS = 2
"""Dots of a PNG on a pixel."""
LEGEND_ROW, LEGEND_ENTRY = 26, 300
"""Pixels of a row of the legend, and of an entry in it, as on the page."""
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
"""What the programs that open an SVG have; `system-ui` is known to browsers alone."""


def figures_of(run: Path) -> dict[str, go.Figure]:
    """Return the figures on the page of a run folder, or of published evidence, by section."""
    tables = load_any(run)
    analysis = analyse(tables)
    return drawn(sections(tables, analysis, find(analysis)))


def write_images(figures: Mapping[str, go.Figure], out: Path) -> list[Path]:
    """Write every figure as `NAME.png` and `NAME.svg`: light, on white, 720 pixels wide.

    Returns:
        The files written.

    Raises:
        UsageError: kaleido is not installed, or it finds no Chrome that starts.
        RunFolderError: `out` cannot be written.
    """
    try:
        import kaleido
        from choreographer.browsers.chromium import Chromium
        from choreographer.errors import BrowserClosedError, BrowserDepsError, BrowserFailedError
    except ImportError:
        raise UsageError(
            "--static needs kaleido, which is not installed: pip install 'nnclr-study[static]'"
        ) from None
    no_chrome = UsageError(
        "--static needs Chrome or Chromium, and none was found that starts: install one "
        "(apt install chromium), or name its program in the environment variable BROWSER_PATH"
    )
    if not _starts(Chromium.find_browser(skip_local=False)):
        raise no_chrome
    on_white = {name: printed(figure) for name, figure in figures.items()}
    files = {f"{name}.{kind}": on_white[name] for name in figures for kind in KINDS}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        subfolder(out.parent, out.name)
        with TemporaryDirectory() as drawn_in:
            jobs = [
                {
                    "fig": figure,
                    "path": Path(drawn_in) / name,
                    "opts": {"scale": SHARPNESS if name.endswith(".png") else 1},
                }
                for name, figure in files.items()
            ]
            # MathJax would be asked of a host, and there is no formula.
            kaleido.write_fig_from_object_sync(
                jobs, cancel_on_error=True, kopts={"mathjax": False}
            )
            for name in files:
                with (
                    (Path(drawn_in) / name).open("rb") as image,
                    replacing(out.parent, f"{out.name}/{name}") as file,
                ):
                    copyfileobj(image, file)
    except (BrowserDepsError, BrowserFailedError, BrowserClosedError):
        raise no_chrome from None
    except OSError:
        with writing(out, "--output"):
            raise
    return [out / name for name in files]


def _starts(program: str | None) -> bool:
    """Tell whether a Chrome is there with all its libraries; kaleido hangs where it is not."""
    if program is None:
        return False
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def printed(figure: go.Figure) -> go.Figure:
    """Return a figure for paper, with room for its legend below it as page.js makes it."""
    entries = sum(trace.showlegend is not False for trace in figure.data)
    rows = -(-entries // (WIDTH // LEGEND_ENTRY)) if figure.layout.showlegend else 0
    return go.Figure(figure).update_layout(
        width=WIDTH,
        height=(figure.layout.height or HEIGHT) + LEGEND_ROW * rows,
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": FONT},
    )
