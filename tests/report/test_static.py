"""Figures as files: in a Chrome where there is one, and told plainly where there is none."""

import importlib.util
import re
import struct
import sys

import plotly.graph_objects as go
import pytest

from nnclr_study.cli import main
from nnclr_study.errors import UsageError
from nnclr_study.report.look import empty_figure
from nnclr_study.report.page import build_report
from nnclr_study.report.static import figures_of, write_images

needs_kaleido = pytest.mark.skipif(
    importlib.util.find_spec("kaleido") is None, reason="the extra [static] is not installed"
)


@pytest.fixture
def chrome():
    """A Chrome as kaleido finds it."""
    chromium = pytest.importorskip("choreographer.browsers.chromium").Chromium
    if chromium.find_browser(skip_local=False) is None:
        pytest.skip("kaleido finds no Chrome")


def drawn(**layout):
    figure = empty_figure("head")
    for name in ("one", "two", "three"):
        figure.add_scatter(x=[1, 2], y=[3, 4], name=name)
    return figure.update_layout(**layout)


def png_size(path):
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", head[16:])


def test_a_figure_is_a_png_and_an_svg_on_white(tmp_path, chrome):
    figures = {"plain": drawn(showlegend=False), "legend": drawn(showlegend=True, height=200)}
    paths = write_images(figures, tmp_path / "figures")
    assert [path.name for path in paths] == ["plain.png", "plain.svg", "legend.png", "legend.svg"]
    assert png_size(paths[0]) == (2 * 720, 2 * 400)
    assert png_size(paths[2]) == (2 * 720, 2 * (200 + 2 * 26)), "two rows of the legend"
    svg = paths[3].read_text()
    assert "rgb(255, 255, 255); fill-opacity: 1" in svg
    assert "system-ui" not in svg
    assert {word for word in ("head", "one", "two", "three") if f">{word}<" in svg} == {
        *("head", "one", "two", "three")
    }
    assert set(re.findall(r"https?://([^/\"]+)", svg)) == {"www.w3.org"}
    assert figures["plain"].layout.paper_bgcolor is None, "the page's own figure is as it was"


def test_the_page_and_the_files_have_the_same_figures(finished):
    page = build_report(finished.path).page.read_text()
    assert list(figures_of(finished.path)) == re.findall(r'id="plot-(\w+)"', page)


def test_the_command_writes_them_beside_the_page(finished, monkeypatch, capsys):
    given = {}

    def written(figures, out):
        given[out] = figures
        return [out / f"{name}.png" for name in figures]

    monkeypatch.setattr("nnclr_study.report.static.write_images", written)
    assert main(["report", str(finished.path), "--static"]) == 0
    ((out, figures),) = given.items()
    assert out == finished.report / "figures"
    assert all(isinstance(figure, go.Figure) for figure in figures.values())
    assert f"figures: {len(figures)} files in {out}" in capsys.readouterr().out


def test_without_kaleido_the_command_says_what_to_install(finished, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    assert main(["report", str(finished.path), "--static"]) == 2
    assert "pip install 'nnclr-study[static]'" in capsys.readouterr().err
    assert (finished.report / "index.html").exists(), "the page needs no kaleido"


@needs_kaleido
@pytest.mark.parametrize("program", [None, "missing", "broken"])
def test_without_a_chrome_that_starts_it_says_so(tmp_path, monkeypatch, program):
    from choreographer.browsers.chromium import Chromium

    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o700)
    found = program and str(tmp_path / program)
    monkeypatch.setattr(Chromium, "find_browser", lambda skip_local: found)
    with pytest.raises(UsageError, match="BROWSER_PATH"):
        write_images({"plain": drawn()}, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
