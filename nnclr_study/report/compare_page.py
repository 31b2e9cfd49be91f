"""From a comparison to its sentences and to one self-contained page without a script."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nnclr_study
from nnclr_study.errors import writing
from nnclr_study.report import export, wording
from nnclr_study.report.blocks import MIN_PAIRS
from nnclr_study.report.compare import compare
from nnclr_study.report.evidence import load_any
from nnclr_study.report.look import VERDICTS
from nnclr_study.report.page import Report, environment
from nnclr_study.report.wording import Finding, decimals_of, points, span
from nnclr_study.study.files import write_whole
from nnclr_study.study.plan import show_value

DRAWN_WIDTH = 120
"""Of a difference's drawing in its table, in pixels."""


def build_comparison(folders: Sequence[Path], out: Path) -> Report:
    """Write comparison.html and comparison.json of two or more runs into the folder `out`.

    Raises:
        RunFolderError: one is no run folder, or not one of ours, or `out` cannot be written.
    """
    comparison = compare([load_any(folder) for folder in folders])
    findings = find_differences(comparison)
    page = out / "comparison.html"
    with writing(out, "--output"):
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out, "comparison.json", export.analysis_json(comparison))
        write_whole(out, page.name, _render(comparison, findings, datetime.now(UTC)))
    return Report(" ".join(finding.text for finding in findings), page)


def find_differences(comparison: dict[str, Any]) -> list[Finding]:
    """Return a sentence or two for each pair of runs: the later one against the first."""
    return [_finding(pair, comparison) for pair in comparison["pairs"]]


def _finding(pair: dict[str, Any], comparison: dict[str, Any]) -> Finding:
    first, second = (comparison["studies"][pair[key]]["label"] for key in ("first", "second"))
    arms, trials, same = pair["arms"], pair["trials"], pair["same"]
    if not arms:
        why = "; ".join(
            f"{knob} is {show_value(now)}, not {show_value(was)}"
            for knob, (was, now) in pair["otherwise_set"].items()
        )
        text = f"{second} has no condition in common with {first}"
        return Finding(f"{text}{why and f': there {why}'}. There is nothing to compare.")
    where = "1 matched condition" if len(arms) == 1 else f"{len(arms)} matched conditions"
    opened = "Interim: " if pair["interim"] else ""
    if trials == 0:
        text = f"{second} and {first} share {where}, but no seed has finished in both"
        return Finding(f"{opened}{text}: no comparison.")
    if same == trials:
        text = (
            "the trial that finished in both is"
            if trials == 1
            else (f"all {trials} trials that finished in both are")
        )
        return Finding(f"{opened}{second} and {first}: {text} the same to the bit.", "claim")

    resolved = _resolved(pair, first, second, where, comparison["comparisons"])
    text = resolved or _unresolved(pair, first, second, where, comparison["comparisons"])
    text = f"{opened}{text} {same} of {trials} trials are the same to the bit."
    return Finding(text, "claim" if resolved else "hint")


def _resolved(pair: dict[str, Any], first: str, second: str, where: str, comparisons: int) -> str:
    """Return where a run is better or worse than the first; nothing where it is neither."""
    told = []
    for verdict, verb in (("better", "beats"), ("worse", "is worse than")):
        found = [arm for arm in pair["arms"] if arm["difference"]["verdict"] == verdict]
        if found:
            largest = _largest(found)
            most = "most at " if len(found) > 1 else ""
            size = _size(largest["difference"], comparisons)
            told.append(
                f"{second} {verb} {first} in {len(found)} of {where}: "
                f"{most}{largest['label']}, by {size}."
            )
    return " ".join(told)


def _unresolved(
    pair: dict[str, Any], first: str, second: str, where: str, comparisons: int
) -> str:
    """Return the largest difference where none is resolved, never without its interval."""
    compared = [arm for arm in pair["arms"] if arm["difference"]["pairs"]]
    largest = _largest(compared)
    side = "below" if largest["difference"]["mean"] < 0 else "above"
    size = f"{largest['label']}, {_size(largest['difference'], comparisons)} {side} {first}"
    if any(arm["difference"]["verdict"] for arm in compared):
        return (
            f"No difference between {second} and {first} is resolved in {where}; "
            f"the largest: {size}."
        )
    few = all(arm["difference"]["pairs"] < MIN_PAIRS for arm in compared)
    why = "too few paired seeds for a verdict; " if few and not pair["interim"] else ""
    return f"{second} against {first} in {where}: {why}the largest difference: {size}."


def _largest(arms: list[dict[str, Any]]) -> dict[str, Any]:
    return max(arms, key=lambda arm: abs(arm["difference"]["mean"]))


def _size(difference: dict[str, Any], comparisons: int) -> str:
    """Return the size of a difference, and what stands behind it."""
    interval, pairs = difference["simultaneous"], difference["pairs"]
    seeds = "1 paired seed" if pairs == 1 else f"{pairs} paired seeds"
    size = points(difference["mean"], decimals_of(interval))
    if interval is None:
        return f"{size} ({seeds}{', all alike' if pairs > 1 else ''}: no interval)"
    after = f" after Bonferroni over {comparisons} comparisons" if comparisons > 1 else ""
    return f"{size} (95 % CI {span(interval, decimals_of(interval))}{after}; {seeds})"


def _cautions(comparison: dict[str, Any]) -> list[str]:
    """Return what else than chance and conditions may stand behind a difference."""
    said = []
    if comparison["differing"]:
        said.append(
            f"The runs differ in {', '.join(comparison['differing'])}: what differs between "
            "them may come from there."
        )
    for study in comparison["studies"]:
        commits = study["ran_with"]["commit"]
        if not commits:
            said.append(f"{study['label']} records no session: what it ran with is not known.")
        if any(commit.endswith("+changes") for commit in commits):
            said.append(
                f"{study['label']} ran with uncommitted changes: its commit does not tell all."
            )
        if study["interim"]:
            count = f"{study['finished']} of {study['planned']} trials finished"
            said.append(f"{study['label']} is not over: {count}. Verdicts come with the last.")
    return said


def _render(comparison: dict[str, Any], findings: list[Finding], made_at: datetime) -> str:
    """Return the page; its text is escaped by the template."""
    made = environment()
    made.filters |= {
        "signed": wording.signed,
        "decimals": lambda interval: max(wording.TABLE, decimals_of(interval)),
        "reach": _reach,
        "end": lambda reach: wording.signed(reach, wording.significant(reach)),
        "across": _across,
    }
    studies = comparison["studies"]
    level = min((finding.level for finding in findings), key=("claim", "hint", "none").index)
    return made.get_template("compare.html.j2").render(
        comparison=comparison,
        findings=findings,
        level=level,
        cautions=_cautions(comparison),
        names=list(dict.fromkeys(name for study in studies for name in study["ran_with"])),
        width=DRAWN_WIDTH,
        verdicts=VERDICTS,
        made_at=made_at,
        version=nnclr_study.__version__,
    )


def _reach(pair: dict[str, Any]) -> float:
    """Return the largest bound of a pair's differences: the scale on which they are drawn."""
    differences = [arm["difference"] for arm in pair["arms"] if arm["difference"]["pairs"]]
    bounds = [
        bound for one in differences for bound in (one["mean"], *(one["simultaneous"] or ()))
    ]
    return max(map(abs, bounds), default=0.0)


def _across(difference: float, reach: float) -> str:
    """Return how far across its drawing a difference stands, in pixels; 0 is in the middle."""
    half = DRAWN_WIDTH / 2
    return f"{half + (half - 5) * difference / (reach or 1):.1f}"
