"""From a run folder to one self-contained page that asks no host for anything."""

import base64
import gzip
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

import nnclr_study
from nnclr_study.errors import RunFolderError
from nnclr_study.report import export, figures, look, wording
from nnclr_study.report.analyse import analyse
from nnclr_study.report.findings import Finding, certainty, find
from nnclr_study.report.load import Tables, load
from nnclr_study.study.plan import condition_label, show_value
from nnclr_study.study.run_folder import RunFolder, write_whole

VERDICTS = {"better": "▲", "worse": "▼", "not resolved": "○", "depends on method": "◇"}
STATES = {
    "finished": "✓",
    "stopped": "◂",
    "failed": "✕",
    "running": "▸",
    "interrupted": "‖",
    "waiting": "·",
}


@dataclass(frozen=True)
class Report:
    """A built report: its answer in a sentence, and the page."""

    answer: str
    page: Path


def build_report(run: Path, out: Path | None = None) -> Report:
    """Write index.html, trials.csv, summary.md and analysis.json of a run, finished or not.

    Raises:
        RunFolderError: there is no run folder, it is not one of ours, or `out` (by default
            the run folder's `report/`) cannot be written.
    """
    folder = RunFolder.open(run)
    tables = load(folder)
    analysis = analyse(tables)
    findings = find(analysis)
    target = out or folder.report
    files = {
        "analysis.json": export.analysis_json(analysis),
        "trials.csv": export.trials_csv(tables),
        "summary.md": export.summary_md(analysis, findings),
        "index.html": render(tables, analysis, findings, datetime.now(UTC)),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_whole(target / name, text)
    except OSError as error:
        raise RunFolderError(
            f"{target} cannot be written: {error.strerror}; choose another folder with --output"
        ) from None
    return Report(findings["answer"].text, target / "index.html")


def render(
    tables: Tables, analysis: dict[str, Any], findings: dict[str, Finding], made_at: datetime
) -> str:
    """Return the page; its text is escaped by the template."""
    environment = Environment(
        loader=PackageLoader("nnclr_study.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": wording.number,
        "span": wording.span,
        "p_value": wording.p_value,
        "duration": wording.duration,
        "difference": export.difference,
        "certainty": certainty,
        "value": show_value,
        "label": condition_label,
        "tied": lambda text: text.replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0"),
        "base64": lambda text: base64.b64encode(text.encode()).decode(),
    }
    trials = tables.trials.astype(object)
    if tables.study.search:
        trials = trials.sort_values("val_probe_top1", ascending=False, kind="stable")
    return environment.get_template("template.html.j2").render(
        analysis=analysis,
        findings=findings,
        trials=trials.where(trials.notna(), None).to_dict("records"),
        sessions=tables.sessions,
        study_file=tables.study.text,
        trials_csv=export.trials_csv(tables),
        figures=_drawn(tables, analysis),
        palette=list(zip(look.LIGHT, look.DARK, strict=True)),
        plotly_js=_packed_plotly(),
        verdicts=VERDICTS,
        states=STATES,
        made_at=made_at,
        version=nnclr_study.__version__,
    )


def _drawn(tables: Tables, analysis: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that there is something to draw in, as Plotly's JSON."""
    drawn: dict[str, go.Figure] = {}
    search, knobs = analysis["study"]["search"], analysis["study"]["knobs"]
    if analysis["status"]["finished"]:
        drawn["dose_response"] = (
            figures.slices(tables.trials, knobs)
            if search
            else figures.dose_response(tables.trials, analysis["arms"], knobs)
        )
    if (tables.epochs["status"] != "failed").any():
        best = analysis["best"]["arm"] if analysis["best"] else None
        drawn["learning"] = (
            figures.search_curves(tables.epochs, best)
            if search
            else figures.learning_curves(tables.epochs, analysis["arms"])
        )
    return {name: json.loads(figure.to_json()) for name, figure in drawn.items()}


@cache
def _packed_plotly() -> str:
    """Return the installed plotly's own plotly.js, gzipped, in base64."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
