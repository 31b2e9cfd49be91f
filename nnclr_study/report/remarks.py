"""What each figure and table of the page shows, in a sentence."""

from collections import Counter
from itertools import chain, product
from typing import Any

from nnclr_study.report.intervals import ALPHA
from nnclr_study.report.wording import (
    Finding,
    decimals_of,
    duration,
    listed,
    margin_said,
    p_said,
    percent,
    points,
    signed,
    significant,
    span,
)
from nnclr_study.study.plan import condition_label, show_value

HELPS = 0.1
"""Correlation within a seed above which pairing is said to have helped."""
SAME_COST = 0.02
"""Share within which two conditions cost the same."""
SLOWER = 0.1
"""Share by which the slowest host must lag for its timings not to be compared."""


def remarks(analysis: dict[str, Any]) -> dict[str, Finding]:
    """Return the sentence of each section; an empty one where there is nothing to say."""
    return {
        "completeness": _completeness(analysis),
        "dose_response": _dose_response(analysis),
        "conditions": _conditions(analysis),
        "best_set": _best_set(analysis),
        "paired_seeds": _paired_seeds(analysis["blocks"]),
        "learning": _learning(analysis),
        "cost": _cost(analysis),
        "queue_health": _queue_health(analysis["arms"]),
        "interaction": _interaction(analysis["interaction"]),
        "cell_means": _cell_means(analysis["interaction"]),
        "confirmation": _confirmation(analysis),
        "throughput": _throughput(analysis["setup"]["hosts"]),
        "failed": _failed(analysis),
    }


def _completeness(analysis: dict[str, Any]) -> Finding:
    status, blocks = analysis["status"], analysis["blocks"]
    said = [f"{status[state]} {state}" for state in ("failed", "left") if status[state]]
    text = f"{status['finished']} of {status['planned']} trials finished"
    text = f"{text}{''.join(f', {each}' for each in said)}."
    if blocks is not None:
        out = [arm["label"] for n, arm in enumerate(analysis["arms"]) if n not in blocks["arms"]]
        seeds, planned = len(blocks["seeds"]), len(analysis["study"]["seeds"])
        if seeds < planned:
            text += f" Verdicts use the {seeds} seeds of {planned} that every condition finished."
        if out:
            text += f" Too few finished to be compared: {listed(out)}."
    return Finding(text, numbers=status)


def _conditions(analysis: dict[str, Any]) -> Finding:
    if analysis["study"]["search"]:
        return Finding("A search suggests conditions one by one: each stands among the trials.")
    baseline, *others = analysis["arms"]
    if not others:
        return Finding("One condition: nothing to compare.")
    if analysis["status"]["interim"]:
        return Finding("Interim: verdicts and p-values come with the last trial.")
    if analysis["blocks"] is not None and not analysis["comparisons"]:
        return Finding(
            f"The baseline ({baseline['label']}) finished too few seeds to be compared with; "
            "another one can be declared in the study file, as baseline = { queue_size = 0 }.",
            "hint",
        )
    words = Counter(arm["vs_baseline"]["verdict"] or "without a verdict" for arm in others)
    counts = ", ".join(f"{count} {word}" for word, count in words.items())
    text = f"Against the baseline ({baseline['label']}): {counts}."
    seeds = analysis["blocks"] and analysis["blocks"]["seeds_for_margin"]
    if words["not resolved"] and seeds:
        margin = margin_said(analysis["study"]["margin"])
        text += f" About {seeds} seeds would resolve {margin} (80 % power)."
    return Finding(text, numbers=dict(words))


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
    text = f"{means} lies between {low} and {high}.{text}"
    trend = analysis["trend"]
    return Finding(f"{text} {_trend(trend)}" if trend else text, numbers=spread | (trend or {}))


def _trend(trend: dict[str, Any]) -> str:
    """Return how accuracy goes with the dose, and whether it flattens."""
    slope, interval = trend["slope"], trend["slope_interval"]
    if interval is None:
        return ""
    decimals = decimals_of(interval)
    size = f"{points(slope, decimals)} per doubling"
    behind = f"95 % CI {span(interval, decimals)}; {trend['n']} seeds"
    if interval[0] <= 0 <= interval[1]:
        change = f"{signed(slope, decimals)} points per doubling ({behind})"
        return f"No trend over {trend['knob']} is resolved: {change}."
    text = f"It {'rises' if slope > 0 else 'falls'} by {size} of {trend['knob']} ({behind})"
    if not trend["saturated"]:
        bent = trend["model"] == "line" and trend["lack_of_fit_p"] < ALPHA
        not_straight = f"; no straight line (lack of fit {p_said(trend['lack_of_fit_p'])})"
        return f"{text}; no saturation is seen in the range{not_straight if bent else ''}."
    at, low, high = (
        f"{_round(x):,}" for x in (trend["saturation"], *trend["saturation_interval"])
    )
    return f"{text} and flattens near {at} ({low} to {high})."


def _round(dose: float) -> float:
    """Return a dose to two figures, as far as it is known."""
    rounded = float(f"{dose:.2g}")
    return int(rounded) if rounded >= 1 else rounded


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


def _best_set(analysis: dict[str, Any]) -> Finding:
    best_set = analysis["best_set"]
    if best_set is None:
        return Finding("Needs 3 seeds that two or more conditions have finished.")
    labels = [analysis["arms"][place]["label"] for place in best_set]
    compared = len(analysis["blocks"]["arms"])
    if len(labels) == 1 and not analysis["status"]["interim"]:
        others = "the other one" if compared == 2 else f"each of the {compared - 1} others"
        text = f"{labels[0]} is the best: {others} is ruled out."
        return Finding(text, "claim", {"best_set": best_set})
    sofar = " so far" if analysis["status"]["interim"] else ""
    text = f"{len(labels)} of {compared} conditions cannot be ruled out as the best{sofar}."
    return Finding(text, "hint", {"best_set": best_set})


def _paired_seeds(blocks: dict[str, Any] | None) -> Finding:
    if blocks is None:
        return Finding("")
    r = blocks["correlation"]
    helped = "pairing helped" if r > HELPS else "pairing gained little"
    return Finding(
        f"Seeds explain {percent(blocks['seed_share'], 0)} of the variance; two conditions with "
        f"the same seed correlate by r = {r:.2f}: {helped}. Within a seed, trials scatter by "
        f"{points(blocks['residual_sd'], 2)} (residual SD).",
        numbers=blocks,
    )


def _cost(analysis: dict[str, Any]) -> Finding:
    """Return what the best costs beside the baseline."""
    arms, best = analysis["arms"], analysis["best"]
    if best is None or best["runner_up"] is None:
        return Finding("")
    first, other = arms[best["arm"]], arms[0 if best["arm"] else best["runner_up"]]
    unit = "mean_gpu_seconds" if first["mean_gpu_seconds"] else "mean_seconds"
    ours, theirs = first[unit], other[unit]
    if not ours or not theirs:
        return Finding("")
    change = ours / theirs - 1
    more = f"{percent(abs(change), 0)} {'more' if change > 0 else 'less'} than {other['label']}"
    if abs(change) < SAME_COST:
        more = f"about as much as {other['label']}"
    of = "GPU time" if unit == "mean_gpu_seconds" else "time"
    return Finding(
        f"A trial of {first['label']}, the highest mean, takes {duration(ours)} of {of}: {more}.",
        numbers={"mean": ours, "other": theirs},
    )


def _queue_health(arms: list[dict[str, Any]]) -> Finding:
    shares = {a["label"]: s for a in arms if (s := a["health"]["nn_same_label"]) is not None}
    if not shares:
        return Finding("")
    low, high = min(shares, key=lambda label: shares[label]), max(shares, key=lambda x: shares[x])
    text = f"In the last epoch {percent(shares[high])} of the neighbours found by {high} have "
    text += "their query's label"
    if low != high:
        text += f", and {percent(shares[low])} by {low}"
    return Finding(f"{text}.", numbers=shares)


def _interaction(found: dict[str, Any] | None) -> Finding:
    if found is None:
        return Finding("")
    (knob, other), interval = found["knobs"], found["interval"]
    decimals = decimals_of(interval)
    low, high = map(show_value, found["of"][knob])
    ends = " to ".join(map(show_value, found["of"][other]))
    behind = f"95 % CI {span(interval, decimals)}; " if interval else ""
    text = (
        f"From {other} {ends}, accuracy changes by {signed(found['difference'], decimals)} points "
        f"more at {knob} {high} than at {low} ({behind}interaction {p_said(found['p'])})."
    )
    return Finding(text, "claim" if found["p"] < ALPHA else "hint", found)


def _cell_means(found: dict[str, Any] | None) -> Finding:
    if found is None:
        return Finding("")
    pairs = product(*found["levels"])
    means = {
        condition_label(dict(zip(found["knobs"], pair, strict=True))): mean
        for pair, mean in zip(pairs, chain(*found["means"]), strict=True)
    }
    low, high = min(means, key=lambda label: means[label]), max(means, key=lambda x: means[x])
    text = f"Means reach from {percent(means[low])} ({low}) to {percent(means[high])} ({high})."
    return Finding(text, numbers=means)


def _confirmation(analysis: dict[str, Any]) -> Finding:
    confirmation, arms = analysis["study"]["confirmation"], analysis["arms"]
    if confirmation is None or confirmation["val_probe_top1"] is None:
        return Finding("")
    chosen = confirmation["val_probe_top1"]
    held = [
        (arm["label"], arm["val_probe_top1"]["mean"], before)
        for arm, before in zip(arms[1:], chosen, strict=True)
        if arm["val_probe_top1"]["mean"] is not None
    ]
    if not held:
        return Finding("No chosen condition has finished yet.")
    label, mean, before = held[0]
    way = "below" if mean < before else "above"
    return Finding(
        f"On fresh seeds {label} scored {percent(mean)}, {points(mean - before)} {way} the score "
        f"by which {confirmation['run']} chose it.",
        "claim",
        {"mean": mean, "chosen_at": before},
    )


def _throughput(hosts: list[dict[str, Any]]) -> Finding:
    paces = {each["host"]: each["images_per_second"] for each in hosts}
    if not paces:
        return Finding("")
    slow, fast = min(paces, key=lambda h: paces[h]), max(paces, key=lambda h: paces[h])
    if len(paces) == 1:
        return Finding(f"One host, {paces[slow]:,.0f} images a second in training steps.")
    lag = 1 - paces[slow] / paces[fast]
    if lag < SLOWER:
        text = f"{len(paces)} hosts within {percent(lag, 0)} of each other."
        return Finding(text, numbers=paces)
    text = f"{slow} ran {percent(lag, 0)} slower than {fast}: times on the two do not compare."
    return Finding(text, "hint", paces)


def _failed(analysis: dict[str, Any]) -> Finding:
    status = analysis["status"]
    if not status["failed"]:
        return Finding("")
    trials = f"{status['failed']} of {status['planned']} trials failed"
    return Finding(f"{trials}; a failed trial is in no mean.", numbers=status)
