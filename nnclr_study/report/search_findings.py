"""What a search's trials tell, in a sentence a figure; all of them exploratory."""

from typing import Any

from nnclr_study.report.search_diagnostics import MIN_FINISHED, place_on
from nnclr_study.report.wording import Finding, duration
from nnclr_study.report.wording import percent as in_words
from nnclr_study.study.plan import condition_label, show_value
from nnclr_study.study.search import Value


def search_findings(analysis: dict[str, Any]) -> dict[str, Finding]:
    """Return the sentence of every search figure; `analysis["search"]` is what `diagnose` says."""
    found = analysis["search"]
    if not found["finished"]:
        names = ("history", "importance", "parallel", "contour", "edf", "pareto")
        return dict.fromkeys(names, Finding("Appears with the first finished trial."))
    return {
        "history": _history_said(found),
        "importance": _importance_said(found),
        "parallel": _parallel_said(found),
        "contour": _contour_said(found),
        "edf": _edf_said(found),
        "pareto": _pareto_said(found["pareto"]),
    }


def _history_said(found: dict[str, Any]) -> Finding:
    n, luck = found["finished"], found["luck"]
    finished = [row for row in found["history"] if row["status"] == "finished"]
    best = max(finished, key=lambda row: row["val_probe_top1"])
    text = (
        f"the best of {n} finished trials is number {best['trial']}, at "
        f"{in_words(best['val_probe_top1'])}; if all {n} were equally good, the best would still "
        f"look about {luck:.1f} seed standard deviations too good."
        if n > 1
        else "one trial has finished: nothing to choose from yet."
    )
    if found["objectives"] != ["val_probe_top1"]:
        text += f" The search aimed at {' and '.join(found['objectives'])}."
    return _exploratory(text, {"n": n, "best": best, "luck": luck})


def _importance_said(found: dict[str, Any]) -> Finding:
    importance, n = found["importance"], found["finished"]
    if importance is None:
        need = f"Importances need {MIN_FINISHED} finished trials that differ; {n} finished so far."
        return Finding(need, numbers={"n": n})
    knob, share = next(iter(importance["shares"].items()))
    times = importance["times_chance"][knob]
    decides = f"{knob} decides most whether a trial is among the best third, with"
    chance = f"no knob stands out from chance; {knob} comes first with"
    text = (
        f"{decides if times > 1 else chance} {in_words(share, 0)} of all importance, {times:.1f} "
        f"times what chance gives (PED-ANOVA, {importance['n']} completed trials)."
    )
    if alike := found["alike"]:
        text += f" All of these have {condition_label(alike)}, of which it says nothing."
    return _exploratory(text, importance)


def _parallel_said(found: dict[str, Any]) -> Finding:
    scales = found["scales"]
    good = {k: v for k, v in found["good_values"].items() if v and k not in found["alike"]}
    if found["contour"] is None:
        return Finding("One knob: there are no two to set against each other.")
    if not good:
        return _exploratory(
            "the best trials differ from the others in no knob that applies to them.", {}
        )
    knob = min(good, key=lambda name: _width(scales[name], good[name]))
    text = (
        f"the best third, {len(found['good'])} of {found['finished']} finished trials, agree most "
        f"in {knob}: {_listed(scales[knob], good[knob])}."
    )
    return _exploratory(text, {"knob": knob, "values": good[knob]})


def _contour_said(found: dict[str, Any]) -> Finding:
    contour, scales, good = found["contour"], found["scales"], found["good_values"]
    if contour is None:
        return Finding("One knob: there are no two to set against each other.")
    knobs = [knob for knob in contour["knobs"] if good[knob]]
    where = " and ".join(f"{knob} {_listed(scales[knob], good[knob])}" for knob in knobs)
    text = f"the best third of the trials have {where or 'none of the two knobs'}."
    if contour["means"]:
        text += " The lines join equal means of the finished trials near by, in per cent."
    return _exploratory(text, {knob: good[knob] for knob in knobs})


def _edf_said(found: dict[str, Any]) -> Finding:
    edf, n = found["edf"], found["finished"]
    stopped = sum(row["status"] == "stopped" for row in found["history"])
    text = f"half of {n} finished trials reach" if n > 1 else "the one finished trial reaches"
    text += f" {in_words(edf['median'])}"
    if edf["best_tenth"] is not None:
        text += f", one in ten {in_words(edf['best_tenth'])}"
    if stopped:
        text += f"; {stopped} stopped early, have no final accuracy and are left out"
    kept = {key: edf[key] for key in ("median", "best_tenth")}
    return _exploratory(f"{text}.", {"n": n, "stopped": stopped} | kept)


def _pareto_said(pareto: dict[str, Any]) -> Finding:
    points = {point["trial"]: point for point in pareto["points"]}
    front = [points[trial] for trial in pareto["front"]]
    low, high = [
        f"{in_words(point['val_probe_top1'])} in {duration(3600 * point['hours'])}"
        for point in (front[0], front[-1])
    ]
    of = "GPU time" if pareto["cost"] == "GPU-hours" else "trial time"
    if len(front) == 1:
        text = f"number {front[0]['trial']} is the best and took the least {of}: {low}."
    else:
        text = (
            f"{len(front)} of {len(points)} finished trials are beaten by none in both accuracy "
            f"and {of}: from {low} to {high}."
        )
    return _exploratory(text, {"front": front})


def _exploratory(text: str, numbers: dict[str, Any]) -> Finding:
    return Finding(f"Exploratory: {text}", "hint", numbers)


def _width(scale: dict[str, Any], values: list[Any]) -> float:
    """Return which share of its scale a knob's values take up."""
    if "choices" in scale:
        return len(values) / len(scale["choices"])
    return place_on(scale, values[1]) - place_on(scale, values[0])


def _listed(scale: dict[str, Any], values: list[Any]) -> str:
    texts = dict.fromkeys(rounded(value) for value in values)
    return (" or " if "choices" in scale else " to ").join(texts)


def rounded(value: Value) -> str:
    """Return a value to three figures, as a sampler's floats are of any length."""
    return f"{value:.3g}" if isinstance(value, float) else show_value(value)
