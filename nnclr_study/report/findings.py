"""From the numbers to sentences: fixed templates, so that no sentence claims more than they do.

"beats" needs a simultaneous interval that excludes 0 over three or more paired seeds.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from nnclr_study.report.analyse import MIN_PAIRS
from nnclr_study.report.wording import (
    decimals_of,
    duration,
    p_value,
    percent,
    points,
    significant,
    span,
)


@dataclass(frozen=True)
class Finding:
    """A sentence, the numbers in it, and how much it may be relied on."""

    text: str
    level: Literal["claim", "hint", "none"] = "none"
    numbers: dict[str, Any] = field(default_factory=dict)


def find(analysis: dict[str, Any]) -> dict[str, Finding]:
    """Return every sentence of the page by its place."""
    return {
        "status": _status(analysis),
        "answer": _found(analysis) if analysis["study"]["search"] else _answer(analysis),
        "test": _test(analysis),
        "failed": _failed(analysis["status"]),
        "conditions": _conditions(analysis),
        "dose_response": _dose_response(analysis),
        "learning": _learning(analysis),
    }


def _status(analysis: dict[str, Any]) -> Finding:
    status = analysis["status"]
    text = f"{status['finished']} of {status['planned']} trials finished"
    states = ("stopped", "failed", "running", "interrupted", "waiting")
    text += "".join(f", {status[state]} {state}" for state in states if status[state])
    return Finding(f"{text}; {duration(3600 * status['hours'])} of trial time.", numbers=status)


def _answer(analysis: dict[str, Any]) -> Finding:
    status, arms, best = analysis["status"], analysis["arms"], analysis["best"]
    if best is None:
        if status["failed"] == status["planned"]:
            return Finding(f"All {status['planned']} trials failed: there is no answer.")
        return Finding(f"None of {status['planned']} trials has finished yet: no answer yet.")
    arm = arms[best["arm"]]
    top1 = arm["val_probe_top1"]
    shown = f"{percent(top1['mean'], decimals_of(top1['interval']))} ({certainty(arm)})"
    mean = "mean val_probe_top1" if top1["n"] > 1 else "val_probe_top1"
    if len(arms) == 1:
        text = f"The {mean} is {shown}. One condition: nothing to compare."
        return Finding(_opened(text, status), numbers={"arm": arm})

    name = f"{arm['label']}, the baseline," if best["arm"] == 0 else arm["label"]
    sofar = " so far" if status["interim"] else ""
    tied = " and ".join(arms[place]["label"] for place in best["tied"])
    text = f"{name} has the highest {mean}{sofar}: {shown}{tied and f', level with {tied}'}"
    if best["arm"] == 0 and best["runner_up"] is None:
        text = f"{text}; no other condition has a finished trial."
        return Finding(_opened(text, status), numbers={"arm": arm})

    other, difference = _rival(analysis)
    tail, level = _compared(other, difference, analysis["comparisons"], status["interim"])
    return Finding(_opened(text + tail, status), level, {"arm": arm, "other": other} | difference)


def _found(analysis: dict[str, Any]) -> Finding:
    """Return what a search found, and that it is no result yet."""
    status, arms, best = analysis["status"], analysis["arms"], analysis["best"]
    if best is None:
        return Finding(f"None of {status['planned']} trials has finished: nothing found yet.")
    arm, finished = arms[best["arm"]], status["finished"]
    top1 = percent(arm["val_probe_top1"]["mean"])
    text = (
        f"Exploratory: {arm['label']} has the highest val_probe_top1, {top1}, of the {finished} "
        f"{'trial that was' if finished == 1 else 'trials that were'} trained to the end. The "
        "highest of many single seeds looks better than it is: `nnclr-study confirm` writes the "
        "study that trains it and the baseline again with fresh seeds."
    )
    return Finding(_opened(text, status), "hint", {"arm": arm})


def certainty(arm: dict[str, Any], split: str = "val_probe_top1") -> str:
    """Return what stands behind an arm's mean: `95 % CI 90.1 to 92.3; n = 3`."""
    top1, planned = arm[split], arm["planned"]
    n = f"n = {top1['n']}" if top1["n"] == planned else f"n = {top1['n']} of {planned}"
    if top1["interval"] is not None:
        return f"95 % CI {span(top1['interval'], decimals_of(top1['interval']))}; {n}"
    if top1["n"] == 1:
        return "one seed: no uncertainty estimate" + ("" if planned == 1 else f"; {n}")
    return f"{n}, all alike: no interval"


def _opened(text: str, status: dict[str, Any]) -> str:
    if not status["interim"]:
        return text
    return f"Interim, {status['finished']} of {status['planned']} trials finished: {text}"


def _rival(analysis: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the baseline, or the runner-up of a best baseline, and best minus it."""
    arms, best = analysis["arms"], analysis["best"]
    if best["arm"] != 0:
        return arms[0]["label"], arms[best["arm"]]["vs_baseline"]
    rival = arms[best["runner_up"]]
    turned = dict(rival["vs_baseline"])
    words = {"better": "worse", "worse": "better"}
    turned["verdict"] = words.get(turned["verdict"], turned["verdict"])
    if turned["mean"] is not None:
        turned["mean"] = -turned["mean"]
    for kind in ("interval", "simultaneous"):
        if turned[kind] is not None:
            low, high = turned[kind]
            turned[kind] = (-high, -low)
    return f"the runner-up {rival['label']}", turned


def _compared(
    other: str, difference: dict[str, Any], comparisons: int, interim: bool
) -> tuple[str, Literal["claim", "hint", "none"]]:
    """Return the rest of the answer's sentence, about the best arm minus another."""
    mean, interval, pairs = (difference[key] for key in ("mean", "simultaneous", "pairs"))
    if pairs == 0:
        return f"; no seed finished both there and in {other}: no comparison.", "none"
    size = points(mean, decimals_of(interval))
    seeds = "1 paired seed" if pairs == 1 else f"{pairs} paired seeds"
    where = f"{size} {'below' if mean < 0 else 'above'} {other}"
    if interval is None:
        alike = ", all alike" if pairs > 1 else ""
        return f", {where} ({seeds}{alike}: no interval).", "none"

    after = f" after Bonferroni over {comparisons} comparisons" if comparisons > 1 else ""
    behind = f"95 % CI {span(interval, decimals_of(interval))}{after}; {seeds}"
    verdict = difference["verdict"]
    if verdict == "better":
        return f", and beats {other} by {size} ({behind}).", "claim"
    if interim:
        return f", {where} ({behind}).", "hint"
    if pairs < MIN_PAIRS:
        return f", {where} ({behind}): too few seeds for a verdict.", "hint"
    if verdict == "depends on method":
        behind += f"; Holm p = {p_value(difference['p_holm'])}"
    return f", {where} ({behind}): {verdict}.", "claim" if verdict == "worse" else "hint"


def _test(analysis: dict[str, Any]) -> Finding:
    best = analysis["best"]
    if best is None or analysis["arms"][best["arm"]]["test_probe_top1"]["n"] == 0:
        return Finding("")
    arm = analysis["arms"][best["arm"]]
    top1 = arm["test_probe_top1"]
    shown = percent(top1["mean"], decimals_of(top1["interval"]))
    behind = certainty(arm, "test_probe_top1")
    return Finding(
        f"Its test_probe_top1 is {shown} ({behind}): reported, never selected on.", numbers=top1
    )


def _failed(status: dict[str, Any]) -> Finding:
    if not status["failed"]:
        return Finding("")
    trials = f"{status['failed']} of {status['planned']} trials failed"
    return Finding(f"{trials}; a failed trial is in no mean.", numbers=status)


def _conditions(analysis: dict[str, Any]) -> Finding:
    if analysis["study"]["search"]:
        return Finding("A search suggests conditions one by one: each stands among the trials.")
    baseline, *others = analysis["arms"]
    if not others:
        return Finding("One condition: nothing to compare.")
    if analysis["status"]["interim"]:
        return Finding("Interim: verdicts and p-values come with the last trial.")
    words = Counter(arm["vs_baseline"]["verdict"] or "without a verdict" for arm in others)
    counts = ", ".join(f"{count} {word}" for word, count in words.items())
    return Finding(f"Against the baseline ({baseline['label']}): {counts}.", numbers=dict(words))


def _dose_response(analysis: dict[str, Any]) -> Finding:
    spread = analysis["spread"]
    if spread is None:
        return Finding("Appears with the first finished trial.")
    lowest, highest, seeds = (spread[key] for key in ("lowest", "highest", "between_seeds"))
    decimals = significant(highest - lowest)
    low, high = percent(lowest, decimals), percent(highest, decimals)
    text = "" if seeds is None else f" Seeds of one condition differ by up to {points(seeds)}."
    if len(analysis["arms"]) == 1:
        return Finding(text.strip() or "One condition and one seed.", numbers=spread)
    means = "val_probe_top1" if seeds is None else "Mean val_probe_top1"
    return Finding(f"{means} lies between {low} and {high}.{text}", numbers=spread)


def _learning(analysis: dict[str, Any]) -> Finding:
    if analysis["best"] is None:
        return Finding("No trial has finished yet; single seeds appear as they go.")
    learning = analysis["learning"]
    if analysis["study"]["search"]:
        return Finding("A line a trial; the best is drawn thick. Stopped trials end early.")
    if learning is None:
        return Finding("Too few epochs to tell whether accuracy still rises.")
    change, decimals = learning["change"], significant(learning["change"])
    verb = "rose by" if change > 0 else "fell by" if change < 0 else "changed by"
    epochs = "epoch" if learning["last"] == 1 else f"{learning['last']} epochs"
    arms = analysis["arms"]
    of = f" of {arms[learning['arm']]['label']}" if len(arms) > 1 else ""
    return Finding(
        f"In the last {epochs} of {learning['epochs']}, mean val_probe_top1{of} "
        f"{verb} {points(change, decimals)}.",
        numbers=learning,
    )
