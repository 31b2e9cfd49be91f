"""The files beside the page: tables as CSV, Markdown and LaTeX, and all numbers as JSON."""

import json
import re
from collections.abc import Callable
from io import StringIO
from typing import Any
from unicodedata import category, normalize

import pandas as pd

from nnclr_study.printable import one_line
from nnclr_study.report.load import Tables
from nnclr_study.report.wording import TABLE, Finding, decimals_of, number, signed, span

_FORMULA = ("=", "+", "-", "@")
"""First characters, also of full width, by which a spreadsheet takes a cell for a formula."""
_ODD = ("'", "\t", "\r", "\n")
"""First characters that some spreadsheets take off."""
_HEAD = ("condition", "finished", "mean", "95 % CI", "SD", "vs baseline", "verdict", "test")
_NOTE = "mean, CI and SD: val_probe_top1 in % over finished seeds, Student's t."
_NOTE_VERSUS = (
    "vs baseline: paired difference in points with its simultaneous 95 % interval (Dunnett, "
    "blocks of seeds)."
)
_NOTE_TEST = "test: mean test_probe_top1 in %."
_NOTE_BOLD = "Bold: the best set, all conditions that are not ruled out as best."


def trials_csv(tables: Tables) -> str:
    """Return a row a planned trial, accuracies as shares of 1, missing values empty."""
    return to_csv(tables.trials.drop(columns="arm"))


def epochs_csv(tables: Tables) -> str:
    """Return a row an epoch."""
    return to_csv(tables.epochs.drop(columns=["status", "arm"]))


def to_csv(table: pd.DataFrame) -> str:
    """Return a table of whose cells a spreadsheet runs none."""
    text = table.select_dtypes(exclude="number").columns
    # As objects: whole numbers beside a missing one would turn into floats.
    inert = {n: pd.Series([*map(_inert, table[n])], table.index, dtype=object) for n in text}
    rows = _Rows()
    # Characters of the line terminator are quoted within a cell, and so would end no row.
    table.assign(**inert).to_csv(rows, index=False, lineterminator="\r\n")
    return rows.getvalue()


def environment_json(tables: Tables) -> str:
    """Return every call of `run`: software, machine and command."""
    sessions = [session.model_dump(mode="json") for session in tables.sessions]
    return json.dumps(sessions, indent=1) + "\n"


def analysis_json(analysis: dict[str, Any]) -> str:
    """Return the analysis as a file."""
    return json.dumps(analysis, indent=1, allow_nan=False) + "\n"


def summary_md(analysis: dict[str, Any], findings: dict[str, Finding]) -> str:
    """Return status, answer and arm table as Markdown."""
    study = analysis["study"]
    keys = ("answer", "sufficient", "standing", "confirmed", "test", "mixed", "failed", "status")
    # What a run folder tells of machines is anybody's text; the other sentences are our own.
    said = (plain(t) if key == "mixed" else t for key in keys if (t := findings[key].text))
    title, question = f"# {study['name']}", plain(study["question"])
    parts = [title, question, *said, arms_md(analysis), _note(analysis)]
    return "\n\n".join(part for part in parts if part) + "\n"


def arms_md(analysis: dict[str, Any]) -> str:
    """Return the arm table as Markdown."""
    table = _arms(analysis, "**{}**")
    rows = [tuple(table), ("---",) * len(table.columns), *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def arms_tex(analysis: dict[str, Any]) -> str:
    """Return the arm table as LaTeX, for the package booktabs."""
    table = _arms(analysis, r"\textbf{{{}}}", _tex)
    layout = "".join("l" if name in ("condition", "verdict") else "r" for name in table)
    table.columns = table.columns.map(_tex)
    text = table.style.hide(axis="index").to_latex(hrules=True, column_format=layout)
    return f"% {_note(analysis)}\n{text}"


def _compared(analysis: dict[str, Any]) -> bool:
    """A search has no comparisons, nor has a single condition."""
    return any(arm["vs_baseline"] for arm in analysis["arms"])


def _note(analysis: dict[str, Any]) -> str:
    if not _compared(analysis):
        return f"{_NOTE} {_NOTE_TEST}"
    return f"{_NOTE} {_NOTE_VERSUS} {_NOTE_TEST} {_NOTE_BOLD}"


def _arms(
    analysis: dict[str, Any], bold: str, escaped: Callable[[str], str] = str
) -> pd.DataFrame:
    """Return the arm table with the labels of the best set in bold."""
    table = pd.DataFrame(map(_row, analysis["arms"]), columns=list(_HEAD)).map(escaped)
    table["condition"] = [
        bold.format(label) if arm["in_best_set"] else label
        for label, arm in zip(table["condition"], analysis["arms"], strict=True)
    ]
    return table if _compared(analysis) else table.drop(columns=["vs baseline", "verdict"])


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


class _Rows(StringIO):
    """The rows of a CSV file, each of which ends in a line feed alone."""

    def write(self, row: str) -> int:
        """Add a row."""
        return super().write(row.removesuffix("\r\n") + "\n")


def _inert(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs: an apostrophe before it makes it text.

    Reading takes that one off again.
    """
    if not isinstance(cell, str):
        return cell
    seen = (char for char in cell if not char.isspace() and not category(char).startswith("C"))
    runs = normalize("NFKC", next(seen, "")) in _FORMULA
    return f"'{cell}" if runs or cell.startswith(_ODD) else cell


def plain(text: str) -> str:
    """Return text on one line that Markdown and HTML leave as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~&!])", r"\\\1", one_line(" ".join(text.split())))


def _tex(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    return re.sub(r"([&%$#_{}])", r"\\\1", re.sub(r"[\\~^]", " ", text))
