"""From a run to the study file that trains its baseline and its best again, on fresh seeds."""

import json
from collections.abc import Collection, Mapping
from itertools import count, islice
from statistics import fmean

from nnclr_study.errors import StudyFileError, UsageError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.inert import training_key
from nnclr_study.study.plan import condition_label
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.search import Value
from nnclr_study.study.spec import Study, arms, parse_study, resolved

Condition = tuple[tuple[str, Value], ...]
BEST = 3
"""Conditions that are confirmed where nobody says how many."""


def confirmation(
    folder: RunFolder,
    best: int | None,
    seeds: int,
    epochs: int | None = None,
    name: str | None = None,
) -> Study:
    """Return the study of a run's baseline and its `best` other conditions; None: up to `BEST`.

    Conditions are ranked by their mean val_probe_top1 over finished trials. The seeds are ones
    that the run has not used: the scores by which conditions were chosen flatter them. Trained
    for other `epochs` than the run's, trials cannot be held against those scores, which are then
    left out. Without a `name` it is called as the run, and `_confirm`.

    Raises:
        UsageError: fewer conditions have a finished trial, the baseline is no trial, `epochs` are
            given and varied, or `name` names no study.
        RunFolderError: a row is not one of ours.
    """
    study = folder.study()
    planned = folder.planned(study)
    ended = folder.trials(planned)
    chosen: dict[Condition, dict[str, Value]] = {}
    scores: dict[Condition, list[float]] = {}
    for trial in planned:
        row = ended.get(trial.id)
        if row is not None and row.val_probe_top1 is not None:
            key = tuple((knob, getattr(trial.config, knob)) for knob in study.knobs)
            chosen[key] = trial.condition
            scores.setdefault(key, []).append(row.val_probe_top1)
    baseline = study.baseline if study.search else arms(study)[0]
    ranked = sorted(chosen, key=lambda key: -fmean(scores[key]))
    try:
        baseline = resolved(study, baseline)
    except ValueError:
        raise UsageError(
            f"the defaults of the searched knobs make no trial to compare with; declare one in "
            f"{folder.study_file}: baseline = {{ {study.knobs[0]} = .. }}"
        ) from None
    others, trained = [], {_training(study, baseline)}
    for key in ranked:
        if (own := _training(study, dict(key))) not in trained:
            trained.add(own)
            others.append(key)
    if len(others) < (best or 1):
        asked = (
            f"fewer than -k {best}; ask for fewer, or" if others and best else "none to confirm;"
        )
        raise UsageError(
            f"{folder.path} has {len(others)} condition(s) beside the baseline with a finished "
            f"trial, {asked} `run` it further"
        )
    others = others[: best or BEST]
    # What all of them have alike names no condition.
    alike = {k: v for k, v in baseline.items() if all(dict(key)[k] == v for key in others)}
    fixed = study.fixed | alike | ({"epochs": epochs} if epochs is not None else {})
    do = "Do" if len(others) > 1 else "Does"
    if epochs is not None and "epochs" in study.knobs:
        raise UsageError(f"{folder.study_file} varies epochs: leave --epochs out")
    there = study.fixed.get("epochs", TrialConfig.model_fields["epochs"].default)
    other = epochs not in (None, there)
    used = {trial.config.seed for trial in planned} | {row.seed for row in ended.values()}
    fresh = list(islice((seed for seed in count(1) if seed not in used), seeds))
    name = name or f"{study.name[:56]}_confirm"
    lines = [
        f"# nnclr-study run {name}.toml",
        f"# The baseline of {study.name} and its best, chosen by their val_probe_top1 there"
        + (f", after {there} epochs:" if other else ":"),
        *(
            f"# {fmean(scores[key]):.1%} (n = {len(scores[key])}) {condition_label(chosen[key])}"
            for key in others
        ),
        "",
        "[study]",
        f"name = {json.dumps(name)}",
        f'question = "{do} the best of {study.name} hold on fresh seeds?"',
        f"seeds = {fresh}",
        f"margin_points = {study.margin_points}",
        "",
        "[trial]",
        *_assigned(fixed),
        "",
        "[confirmation]",
        f"run = {json.dumps(study.name)}",
    ]
    if not other:
        means = [fmean(scores[key]) for key in others]
        lines.append(f"val_probe_top1 = {means}")
    lines += [
        "",
        "[[points]]  # the baseline",
        *_assigned(baseline, alike),
    ]
    for key in others:
        lines += ["", "[[points]]", *_assigned(chosen[key], alike)]
    try:
        return parse_study("\n".join(lines) + "\n", f"{name}.toml")
    except StudyFileError as error:
        raise UsageError(f"{folder.path} cannot be confirmed: {error}") from None


def _training(study: Study, condition: Mapping[str, Value]) -> str:
    """Return what two conditions have in common if they differ only in knobs without effect."""
    return training_key(TrialConfig(**{**study.fixed, **condition}))  # type: ignore[arg-type]


def _assigned(knobs: Mapping[str, Value], but: Collection[str] = ()) -> list[str]:
    """Return lines of TOML; a knob without a value is left out."""
    told = {knob: value for knob, value in knobs.items() if value is not None and knob not in but}
    return [f"{knob} = {json.dumps(value)}" for knob, value in told.items()]
