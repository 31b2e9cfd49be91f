"""From a run folder to one self-contained page that asks no host for anything."""

import base64
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

import nnclr_study
from nnclr_study.errors import writing
from nnclr_study.printable import printable
from nnclr_study.report import export, look, wording
from nnclr_study.report.analyse import analyse
from nnclr_study.report.evidence import load_any
from nnclr_study.report.figures.learning import thinned
from nnclr_study.report.findings import find
from nnclr_study.report.gallery import galleries, gallery_said
from nnclr_study.report.load import Tables
from nnclr_study.report.methods import BIBTEX, methods
from nnclr_study.report.sections import drawn, sections
from nnclr_study.report.wording import Finding
from nnclr_study.study.files import subfolder, write_whole
from nnclr_study.study.plan import show_value
from nnclr_study.study.run_folder import RunFolder

SOURCES = ("study.toml", "trials.csv", "epochs.csv", "environment.json")
"""Files of published evidence, from which a page is built again."""
CURVE_POINTS = 100
"""Of a trial's own curve; longer ones are thinned."""


@dataclass(frozen=True)
class Report:
    """A built report: its answer in a sentence, and the page."""

    answer: str
    page: Path


def build_report(run: Path, out: Path | None = None, option: str | None = None) -> Report:
    """Write the page of a run, finished or not, and the files beside it.

    These are study.toml, analysis.json, trials.csv, epochs.csv, summary.md, table.tex and
    environment.json: the folder is evidence, from which the page can be built again.

    Args:
        run: a run folder, or the published evidence of one.
        out: where to; by default the run folder's `report/`, or where the evidence lies.
        option: of the command, by which another folder can be named; None: it has none.

    Raises:
        RunFolderError: there is no run folder, it is not one of ours, or `out` cannot be written.
    """
    tables = load_any(run)
    analysis = analyse(tables)
    findings = find(analysis)
    target = out or (RunFolder(run).report if tables.is_run else run)
    files = {
        "study.toml": tables.study.text,
        "analysis.json": export.analysis_json(analysis),
        "trials.csv": export.trials_csv(tables),
        "epochs.csv": export.epochs_csv(tables),
        "summary.md": export.summary_md(analysis, findings),
        "table.tex": export.arms_tex(analysis),
        "environment.json": export.environment_json(tables),
        "index.html": render(tables, analysis, findings, datetime.now(UTC)),
    }
    if not tables.is_run and target.resolve() == run.resolve():
        # What the page was built from stays as it is: some rows may have been set aside.
        files = {name: text for name, text in files.items() if name not in SOURCES}
    with writing(target, option):
        if target == RunFolder(run).report:
            subfolder(run, target.name)
        target.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_whole(target, name, text)
    return Report(findings["answer"].text, target / "index.html")


def environment() -> Environment:
    """Return what fills the templates: it escapes all text, and has our ways of printing."""
    made = Environment(
        loader=PackageLoader("nnclr_study.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Text in JSON, such as that of figures, is shown by scripts as it is.
    made.policies["json.dumps_function"] = _dumps
    made.filters |= {
        "number": wording.number,
        "span": wording.span,
        "p_value": wording.p_value,
        "duration": wording.duration,
        "difference": export.difference,
        "value": show_value,
        "tied": _tied,
        "csv": export.to_csv,
        "rows": _rows,
        "uri": _data_uri,
    }
    return made


def _shown(value: Any) -> Any:
    """Return what a template prints, with control and format characters as escapes."""
    if isinstance(value, str):
        text = printable(value.replace("\r\n", "\n"))
        return Markup(text) if isinstance(value, Markup) else text
    return value


def _dumps(value: Any, **options: Any) -> str:
    return json.dumps(_each_shown(value), **options)


def _each_shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {_shown(key): _each_shown(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_each_shown, value))
    return _shown(value)


def render(
    tables: Tables, analysis: dict[str, Any], findings: dict[str, Finding], made_at: datetime
) -> str:
    """Return the page; its text is escaped by the template."""
    trials = tables.trials.astype(object)
    if tables.study.search:
        trials = trials.sort_values("val_probe_top1", ascending=False, kind="stable")
    shown = sections(tables, analysis, findings)
    return (
        environment()
        .get_template("template.html.j2")
        .render(
            analysis=analysis,
            findings=findings,
            sections=shown,
            figures={name: json.loads(figure.to_json()) for name, figure in drawn(shown).items()},
            trials=trials.where(trials.notna(), None).to_dict("records"),
            details=_details(tables),
            gallery=galleries(tables, analysis),
            gallery_said=gallery_said(analysis),
            methods=methods(analysis),
            downloads=_downloads(tables, analysis),
            sessions=tables.sessions,
            study_file=tables.study.text,
            palette=list(zip(look.LIGHT, look.DARK, strict=True)),
            plotly_js=_packed_plotly(),
            verdicts=look.VERDICTS,
            states=look.STATES,
            made_at=made_at,
            version=nnclr_study.__version__,
        )
    )


def _details(tables: Tables) -> dict[str, Any]:
    """Return what a row of the trial table opens to, by trial id."""
    curves = tables.epochs.groupby("trial_id", sort=False)["val_probe_top1"].agg(list).to_dict()
    baseline = tables.arms[0] if tables.arms else {}
    found = {}
    for trial in tables.trials.to_dict("records"):
        trial_id, condition = str(trial["trial_id"]), tables.arms[trial["arm"]]
        curve = thinned(curves.get(trial_id, []), CURVE_POINTS)
        found[trial_id] = {
            "differs": {
                knob: show_value(value)
                for knob, value in condition.items()
                if tables.study.search or value != baseline.get(knob)
            },
            "curve": [round(100 * value, 1) for value in curve],
            "error": trial["error"],
            "checkpoint": f"checkpoints/{trial_id}.safetensors",
            "session": trial["session"],
            "ended": trial["ended_at"] and f"{trial['ended_at']:%Y-%m-%d %H:%M} UTC",
        }
    return found


def _downloads(tables: Tables, analysis: dict[str, Any]) -> list[tuple[str, str, str | bytes]]:
    """Return name, kind and content of each file that the page carries."""
    parquet = tables.trials.drop(columns="arm").convert_dtypes()
    mixed = parquet.select_dtypes(object).columns
    parquet = parquet.assign(
        **{name: parquet[name].map(str, na_action="ignore") for name in mixed}
    )
    return [
        ("trials.csv", "text/csv", export.trials_csv(tables)),
        ("trials.parquet", "application/vnd.apache.parquet", parquet.to_parquet(index=False)),
        ("analysis.json", "application/json", export.analysis_json(analysis)),
        ("table.md", "text/markdown", f"{export.arms_md(analysis)}\n"),
        ("table.tex", "application/x-tex", export.arms_tex(analysis)),
        ("references.bib", "application/x-bibtex", BIBTEX % nnclr_study.__version__),
    ]


def _rows(table: pd.DataFrame) -> Sequence[Sequence[str]]:
    """Return a table's cells as a reader sees them."""
    return [[_cell(cell) for cell in row] for row in table.itertuples(index=False)]


def _cell(cell: Any) -> str:
    if cell is None or cell != cell:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _tied(text: str) -> Markup:
    """Return a sentence whose numbers stay with their signs, and whose commands look like some."""
    tied = re.sub(r"\b([nr]) = ", "\\1\u00a0=\u00a0", text.replace(" %", "\u00a0%"))
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(tied))))


def _data_uri(content: str | bytes, kind: str) -> str:
    data = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@cache
def _packed_plotly() -> str:
    """Return the installed plotly's own plotly.js, gzipped, in base64."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
