"""The sections of the page, in order: which there are, and what each of them shows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nnclr_study.report import figures, numbers
from nnclr_study.report.figures.learning import MANY
from nnclr_study.report.load import Tables
from nnclr_study.report.search_figures import search_figures
from nnclr_study.report.wording import Finding

MAX_COLUMNS = 8
"""Values of a knob for whose means a phone has room in a row."""
MAX_ARMS = 60
"""Conditions above which a figure with a row or a line for each says nothing."""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence and a figure, with its numbers beside it."""

    key: str
    title: str
    finding: Finding
    figure: go.Figure | None = None
    caption: str = ""
    """What the figure shows and how it is read."""
    data: pd.DataFrame | None = None
    """The figure's numbers, accuracies as shares of 1."""
    exploratory: bool = False


def sections(
    tables: Tables, analysis: dict[str, Any], findings: Mapping[str, Finding]
) -> list[Section]:
    """Return what a page of this run has to show."""
    made = _search if analysis["study"]["search"] else _grid
    first = [Section("failed", "Failed trials", findings["failed"])]
    everything = [
        *made(tables, analysis, findings),
        *_proxies(analysis, findings),
        *_pace(tables, analysis, findings),
    ]
    failed = analysis["status"]["failed"]
    if failed and not analysis["status"]["finished"]:
        everything = first + everything
    elif failed:
        everything += first
    return everything


def drawn(shown: Iterable[Section]) -> dict[str, go.Figure]:
    """Return the figures of those sections that have one."""
    return {each.key: each.figure for each in shown if each.figure is not None}


def _grid(
    tables: Tables, analysis: dict[str, Any], findings: Mapping[str, Finding]
) -> Iterator[Section]:
    arms, knobs, status = analysis["arms"], analysis["study"]["knobs"], analysis["status"]
    finished, few = status["finished"] > 0, len(arms) <= MAX_ARMS

    def section(key: str, title: str, draw: Callable[[], go.Figure], caption: str) -> Section:
        return Section(key, title, findings[key], draw() if finished else None, caption)

    if few and status["planned"] > 1:
        yield Section(
            "completeness",
            "What has been trained",
            findings["completeness"],
            figures.completeness(tables.trials, arms, analysis["study"]["seeds"]),
            "A cell a trial: condition by seed. The sign tells its state without its colour.",
        )
    yield Section(
        "dose_response",
        f"val_probe_top1{f' by {knobs[0]}' if knobs else ''}",
        findings["dose_response"],
        figures.dose_response(tables.trials, arms, knobs, analysis["trend"]) if finished else None,
        "Dot: one seed. Diamond or other symbol: mean of the finished seeds. Bar: 95 % interval "
        "of the mean (Student's t). Bars may overlap where the difference paired by seed, below, "
        "is resolved. The accuracy axis does not start at 0.",
    )
    if analysis["comparisons"] and few:
        yield Section(
            "forest",
            "Differences to the baseline",
            findings["conditions"],
            figures.forest(arms, analysis["study"]["margin"]),
            f"Paired by seed, with simultaneous 95 % intervals. Grey band: differences smaller "
            f"than the margin of {100 * analysis['study']['margin']:g} points.",
            numbers.compared(arms),
        )
    said = Finding("") if analysis["comparisons"] and few else findings["conditions"]
    yield Section("conditions", "Conditions", said)
    if analysis["best_set"] and few:
        yield section(
            "best_set",
            "Which may be the best",
            lambda: figures.best_set(arms),
            "Each condition minus the best of the others (Hsu's multiple comparisons with the "
            "best). Filled: not ruled out. The set holds the truly best one in 95 % of studies.",
        )
    if analysis["blocks"] and few:
        yield section(
            "paired_seeds",
            "Seed by seed",
            lambda: figures.paired_seeds(tables.trials, arms, knobs),
            "A line a seed. Where lines run alike, pairing by seed takes their common part out.",
        )
    if few:
        yield _learning(
            tables,
            findings,
            lambda: figures.learning_curves(tables.epochs, arms),
            "Thick line: mean over the finished seeds, with its 95 % band (Student's t) from 3 "
            f"seeds on. {'Thin lines: single seeds. ' if status['planned'] <= MANY else ''}Failed "
            "trials are left out. The accuracy axis is cut below the first quarter of the epochs.",
            numbers.curves,
        )
    if findings["cost"].text and few:
        yield section(
            "cost",
            "What it costs",
            lambda: figures.cost(tables.trials, arms),
            "Means with 95 % intervals. The line joins conditions that none beats in both.",
        )
    if few and finished and any(v is not None for v in arms[-1]["health"].values()):
        yield Section(
            "queue_health",
            "Queue and features",
            findings["queue_health"],
            figures.queue_health(tables.epochs, arms),
            "Means over finished seeds. Features whose standard deviation falls towards 0 "
            "collapse.",
            numbers.health(arms),
        )
    if analysis["interaction"]:
        yield section(
            "interaction",
            f"{knobs[0]} and {knobs[1]} together",
            lambda: figures.interaction(analysis["interaction"]),
            "Means over the seeds that all conditions have finished. Parallel lines: the two "
            "knobs simply add.",
        )
        if len(analysis["interaction"]["levels"][0]) <= MAX_COLUMNS:
            yield Section(
                "cell_means",
                f"Every pair of {knobs[0]} and {knobs[1]}",
                findings["cell_means"],
                figures.cell_means(analysis["interaction"]) if finished else None,
                "The same means. The darker, the higher.",
            )
    if findings["confirmation"].text:
        yield section(
            "confirmation",
            "From choice to confirmation",
            lambda: figures.confirmation(arms, analysis["study"]["confirmation"]),
            "Grey: the score by which a condition was chosen. Solid: its mean on fresh seeds, "
            "with the 95 % interval. Only the latter is a result.",
        )


def _search(
    tables: Tables, analysis: dict[str, Any], findings: Mapping[str, Finding]
) -> Iterator[Section]:
    knobs, finished = analysis["study"]["knobs"], analysis["status"]["finished"] > 0
    drawn = search_figures(tables, analysis["search"])
    yield Section(
        "dose_response",
        f"val_probe_top1 by {', '.join(knobs)}",
        findings["dose_response"],
        figures.slices(tables.trials, knobs) if finished else None,
        "Dot: one finished trial. Other knobs vary from dot to dot: what looks like a trend may "
        "be theirs.",
        exploratory=True,
    )
    for key, title, caption in _SEARCH:
        if key in drawn or not finished:
            yield Section(key, title, findings[key], drawn.get(key), caption, exploratory=True)
    best = analysis["best"]["arm"] if analysis["best"] else None
    yield _learning(
        tables,
        findings,
        lambda: figures.search_curves(tables.epochs, best),
        "A line a trial; the more trials, the fewer of its epochs it is drawn through. All of "
        "them are in epochs.csv, beside this page.",
    )


_SEARCH = [
    ("history", "The search as it went", "Dot: a finished trial. Line: the best until then."),
    ("importance", "Which knobs mattered", "PED-ANOVA over the finished trials."),
    ("parallel", "Trials across all knobs", "A line a finished trial."),
    ("contour", "The two that mattered most", "A disc a finished trial."),
    ("edf", "How good most trials were", "Share of finished trials at or below an accuracy."),
    ("pareto", "Accuracy and cost", "The line joins trials that none beats in both."),
]


def _learning(
    tables: Tables,
    findings: Mapping[str, Finding],
    draw: Callable[[], go.Figure],
    caption: str,
    tabulate: Callable[[Tables], pd.DataFrame] | None = None,
) -> Section:
    there = bool((tables.epochs["status"] != "failed").any())
    return Section(
        "learning",
        "Learning curves",
        findings["learning"],
        draw() if there else None,
        caption,
        tabulate(tables) if tabulate and there else None,
    )


def _proxies(analysis: dict[str, Any], findings: Mapping[str, Finding]) -> Iterator[Section]:
    found, arms = analysis["proxies"], analysis["arms"]
    if findings["proxies"].text:
        yield Section(
            "proxies",
            "Which score could choose",
            findings["proxies"],
            figures.proxies(found, arms),
            "Spearman's rank correlation with test_probe_top1, and its 95 % interval (Bonett and "
            "Wright). Scores are turned so that 1 ranks as accuracy does: of alignment and "
            "uniformity less is better. The last two rows need labels. At the right: the "
            "condition with the best mean score, and how far its test_probe_top1 is below the "
            "best one's.",
            numbers.ranked(found, arms),
        )


def _pace(
    tables: Tables, analysis: dict[str, Any], findings: Mapping[str, Finding]
) -> Iterator[Section]:
    hosts = analysis["setup"]["hosts"]
    if hosts:
        yield Section(
            "throughput",
            "Throughput",
            findings["throughput"],
            figures.throughput(tables.trials),
            "Images a second in the training steps of each finished trial.",
            pd.DataFrame(hosts),
        )
    began, ended = (tables.trials[name].dropna() for name in ("started_at", "ended_at"))
    if len(began) > 1:
        first, last = (f"{at:%Y-%m-%d %H:%M}" for at in (min(began), max([*began, *ended])))
        yield Section(
            "timeline",
            "When trials ran",
            Finding(f"Trials ran from {first} to {last} UTC."),
            figures.timeline(tables.trials),
            "A bar a trial, from its start in its last session to its end.",
        )
