"""From the numbers to sentences: fixed templates, so that no sentence claims more than they do.

"beats" needs a simultaneous interval that excludes 0 over three or more paired seeds.
"""

from typing import Any

from nnclr_study.report.blocks import MIN_PAIRS
from nnclr_study.report.proxies import LABEL_FREE
from nnclr_study.report.remarks import remarks
from nnclr_study.report.search_findings import search_findings
from nnclr_study.report.wording import (
    Finding,
    Level,
    certainty,
    decimals_of,
    duration,
    listed,
    margin_said,
    p_said,
    percent,
    points,
    span,
)


def find(analysis: dict[str, Any]) -> dict[str, Finding]:
    """Return every sentence of the page by its place."""
    return {
        "status": _status(analysis),
        "answer": _found(analysis) if analysis["study"]["search"] else _answer(analysis),
        "sufficient": _sufficient(analysis),
        "standing": _standing(analysis),
        "confirmed": _confirmed(analysis),
        "test": _test(analysis),
        "mixed": _mixed(analysis),
        "proxies": _proxies(analysis),
        **remarks(analysis),
        **(search_findings(analysis) if analysis["search"] else {}),
    }


def _status(analysis: dict[str, Any]) -> Finding:
    status = analysis["status"]
    text = f"{status['finished']} of {status['planned']} trials finished"
    states = ("stopped", "failed", "running", "interrupted", "waiting")
    text += "".join(f", {status[state]} {state}" for state in states if status[state])
    text = f"{text}; {duration(3600 * status['hours'])} of trial time"
    budget = status["gpu_hours_budget"]
    if status["gpu_hours"] or budget:
        text += f", {status['gpu_hours']:.2f}{f' of {budget:g}' if budget else ''} GPU-hours"
    return Finding(f"{text}.", numbers=status)


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
    text = f"{name} has the highest {mean}{sofar}: {shown}"
    if best["tied"]:
        text += f", level with {listed([arms[place]['label'] for place in best['tied']])}"
    if best["arm"] == 0 and best["runner_up"] is None:
        text = f"{text}; no other condition has a finished trial."
        return Finding(_opened(text, status), numbers={"arm": arm})

    other, difference = _rival(analysis)
    tail, level = _compared(other, difference, analysis)
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
    for kind in ("interval", "simultaneous", "equivalence"):
        if turned[kind] is not None:
            low, high = turned[kind]
            turned[kind] = (-high, -low)
    return f"the runner-up {rival['label']}", turned


def _compared(
    other: str, difference: dict[str, Any], analysis: dict[str, Any]
) -> tuple[str, Level]:
    """Return the rest of the answer's sentence, about the best arm minus another."""
    mean, interval, pairs = (difference[key] for key in ("mean", "simultaneous", "pairs"))
    if pairs == 0:
        return f"; no seed finished both there and in {other}: no comparison.", "none"
    simultaneous = interval is not None
    interval = interval or difference["interval"]
    size = points(mean, decimals_of(interval))
    seeds = "1 paired seed" if pairs == 1 else f"{pairs} paired seeds"
    where = f"{size} {'below' if mean < 0 else 'above'} {other}"
    if interval is None:
        alike = ", all alike" if pairs > 1 else ""
        return f", {where} ({seeds}{alike}: no interval).", "none"

    comparisons = analysis["comparisons"] if simultaneous else 1
    together = f", simultaneous over {comparisons} comparisons" if comparisons > 1 else ""
    behind = f"95 % CI {span(interval, decimals_of(interval))}{together}; {seeds}"
    verdict = difference["verdict"]
    if verdict == "better":
        return f", and beats {other} by {size} ({behind}).", "claim"
    if analysis["status"]["interim"]:
        return f", {where} ({behind}).", "hint"
    if verdict is None:
        why = "too few seeds for a verdict" if pairs < MIN_PAIRS else "outside the comparison"
        return f", {where} ({behind}): {why}.", "hint"
    if verdict == "depends on method":
        p = difference["p_holm"]
        behind += "; all seeds alike: no paired test" if p is None else f"; Holm {p_said(p)}"
    word = f"{verdict}{_way_on(verdict, analysis)}"
    return f", {where} ({behind}): {word}.", "claim" if verdict in (
        "equivalent",
        "worse",
    ) else "hint"


def _way_on(verdict: str, analysis: dict[str, Any]) -> str:
    """Return what makes an unresolved difference resolved, or an equivalence one."""
    margin = margin_said(analysis["study"]["margin"])
    if verdict == "equivalent":
        return f" (within {margin})"
    seeds = analysis["blocks"] and analysis["blocks"]["seeds_for_margin"]
    if verdict != "not resolved" or seeds is None:
        return ""
    return f"; about {seeds} seeds would resolve {margin}"


def _sufficient(analysis: dict[str, Any]) -> Finding:
    """Return which value to use where more costs more."""
    found = analysis["sufficient"]
    if found is None:
        return Finding("")
    arms, margin = analysis["arms"], margin_said(analysis["study"]["margin"])
    arm, largest = arms[found["arm"]]["label"], arms[found["largest"]]["label"]
    if found["arm"] == found["largest"]:
        text = f"The next value below {largest} is not shown to be within {margin} of it."
        return Finding(text, "none", found)
    text = (
        f"Use {arm}: the smallest that is not worse than {largest} by {margin} or more "
        "(one-sided 95 %, stepping down)."
    )
    return Finding(text, "claim", found)


def _standing(analysis: dict[str, Any]) -> Finding:
    """Return the best set in a line."""
    best_set = analysis["best_set"]
    if best_set is None:
        return Finding("")
    labels = listed([analysis["arms"][place]["label"] for place in best_set])
    numbers = {"best_set": best_set}
    if analysis["status"]["interim"]:
        return Finding(f"Not ruled out as the best so far: {labels}.", "hint", numbers)
    if len(best_set) == 1:
        text = f"Best set: {labels} alone; all others are ruled out (one-sided 95 %)."
        return Finding(text, "claim", numbers)
    text = f"Best set: {labels}; none of them can be ruled out (one-sided 95 %)."
    return Finding(text, "hint", numbers)


def _confirmed(analysis: dict[str, Any]) -> Finding:
    study, status = analysis["study"], analysis["status"]
    if status["interim"] or analysis["best"] is None:
        return Finding("")
    if study["confirmation"]:
        run, scores = study["confirmation"]["run"], study["confirmation"]["val_probe_top1"]
        other = "" if scores else ", whose trials had another number of epochs"
        return Finding(f"These are fresh seeds, not those by which {run} chose{other}.", "claim")
    if study["search"] or len(analysis["arms"]) < 3:
        return Finding("")
    return Finding("Not yet confirmed on fresh seeds: `nnclr-study confirm` writes that study.")


def _mixed(analysis: dict[str, Any]) -> Finding:
    """Return what differed from trial to trial and should not have."""
    mixed = analysis["setup"]["mixed"]
    if not mixed:
        return Finding("")
    parts = [f"{what} ({', '.join(map(str, values))})" for what, values in mixed.items()]
    text = (
        f"Not all trials ran alike: they differ in {listed(parts)}. Verdicts count them as equal."
    )
    return Finding(text, "hint", mixed)


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


def _proxies(analysis: dict[str, Any]) -> Finding:
    """Return which label-free score ranks conditions best, and what choosing by any costs."""
    found = analysis["proxies"]
    free = [
        score
        for score in (found["scores"] if found else [])
        if score["score"] in LABEL_FREE and score["across"] is not None
    ]
    if not free:
        return Finding("")
    first = max(free, key=lambda score: score["across"]["rho"])
    nearest = f"({_rho(first['across'])}; n = {first['across']['n']} conditions)"
    if first["across"]["rho"] > 0:
        text = (
            f"Of the scores without labels {first['score']} ranks conditions most as "
            f"test_probe_top1 does {nearest}. "
        )
    else:
        text = (
            "No score without labels ranks conditions as test_probe_top1 does; "
            f"{first['score']} comes nearest {nearest}. "
        )
    backwards = [
        f"{score['score']} ({_rho(score['across'])})"
        for score in free
        if max(score["across"]["interval"] or [score["across"]["rho"]]) < 0
    ]
    if backwards:
        text += f"Backwards: {listed(backwards)}. "
    lost = [f"{points(score['cost'])} by {score['score']}" for score in free if score["cost"] > 0]
    text += (
        f"Choosing by one loses against the best: {listed(lost)}."
        if lost
        else "Each of them picks the condition that is best on test."
    )
    return Finding(text, "hint", found)


def _rho(told: dict[str, Any]) -> str:
    interval = told["interval"]
    behind = f"; 95 % CI {interval[0]:.2f} to {interval[1]:.2f}" if interval else ""
    return f"rho {told['rho']:.2f}{behind}"
