"""The files beside the page: trials.csv, summary.md and analysis.json."""

import json
import re
from typing import Any

from nnclr_study.report.findings import Finding
from nnclr_study.report.load import Tables
from nnclr_study.report.wording import TABLE, decimals_of, number, signed, span

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet run a cell; an apostrophe before it makes it text."""


def trials_csv(tables: Tables) -> str:
    """Return a row a planned trial, accuracies as shares of 1, missing values empty."""
    knobs = tables.study.knobs
    numbers = ["val_probe_top1", "test_probe_top1", "seconds", "epochs_done"]
    table = tables.trials[["trial_id", "status", "seed", *knobs, *numbers, "error"]]
    return table.map(_inert).to_csv(index=False, lineterminator="\n")


def analysis_json(analysis: dict[str, Any]) -> str:
    """Return the analysis as a file."""
    return json.dumps(analysis, indent=1, allow_nan=False) + "\n"


def summary_md(analysis: dict[str, Any], findings: dict[str, Finding]) -> str:
    """Return status, answer and arm table as Markdown."""
    study = analysis["study"]
    said = (findings[key].text for key in ("answer", "test", "failed", "status"))
    head = ("condition", "finished", "mean", "95 % CI", "SD", "vs baseline", "verdict", "test")
    rows = [head, ("---",) * len(head), *(_row(arm) for arm in analysis["arms"])]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    parts = [f"# {study['name']}", _plain(study["question"]), *said, table, _NOTE]
    return "\n\n".join(part for part in parts if part) + "\n"


_NOTE = (
    "mean, CI and SD: val_probe_top1 in % over finished seeds, Student's t. vs baseline: paired "
    "difference in points with its simultaneous 95 % interval (Bonferroni). test: mean "
    "test_probe_top1 in %."
)


def _row(arm: dict[str, Any]) -> tuple[str, ...]:
    val, test, versus = arm["val_probe_top1"], arm["test_probe_top1"], arm["vs_baseline"]
    return (
        arm["label"],
        f"{arm['finished']}/{arm['planned']}",
        number(val["mean"]),
        span(val["interval"]) if val["interval"] else "-",
        number(val["sd"]),
        difference(versus) if versus else "baseline",
        (versus and versus["verdict"]) or "-",
        number(test["mean"]),
    )


def difference(versus: dict[str, Any]) -> str:
    """Return a comparison as a table's cell: `+1.2 (-0.3 to 2.7)`."""
    if versus["mean"] is None:
        return "-"
    interval = versus["simultaneous"]
    decimals = max(TABLE, decimals_of(interval))
    shown = signed(versus["mean"], decimals)
    return f"{shown} ({span(interval, decimals)})" if interval else shown


def _inert(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _plain(text: str) -> str:
    """Return text on one line that Markdown and HTML leave as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~&!])", r"\\\1", " ".join(text.split()))
