"""Run folders with chosen numbers, made through the same rows that a `run` writes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from nnclr_study.report.analyse import analyse
from nnclr_study.report.load import Tables, load
from nnclr_study.study.plan import Trial, plan_trials
from nnclr_study.study.rows import EpochRow, Session, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)

Outcome = float | str | int | None
"""val_probe_top1 of a finished trial; the error of a failed one; epochs done of one that is not
over; None for one that has not begun."""


def study_text(
    grid="queue_size = [0, 500, 1_000, 10_000]", seeds=(1, 2, 3), epochs=4, question=""
):
    return f"""
[study]
name = "made"
question = {json.dumps(question)}
seeds = {list(seeds)}

[trial]
dataset = "digits"
epochs = {epochs}
batch_size = 64
labelled_batch_size = 8

[grid]
{grid}
"""


def make_run(path: Path, text: str, outcome: Callable[[Trial], Outcome]) -> RunFolder:
    """Write a run folder in which every trial of a study became what `outcome` says of it."""
    study = parse_study(text, "made.toml")
    folder = RunFolder.create(path).keep(study)
    session = folder.append_session(
        Session(
            started_at=NOW,
            command="nnclr-study run made.toml",
            versions={"nnclr-study": "0.1.0", "torch": "2.9.0"},
            commit="0123456789abcdef0123456789abcdef01234567",
            machine="Linux 6.1 x86_64",
            cpus=2,
            gpus=0,
            nodes=1,
            runner="in-process",
            workers=1,
            gpus_per_trial=0,
            max_concurrent=2,
        )
    )
    for trial in plan_trials(study):
        write_trial(folder, trial, outcome(trial), session)
    return folder


def write_trial(folder: RunFolder, trial: Trial, outcome: Outcome, session: int = 0) -> None:
    if outcome is None:
        return
    epochs = {int: outcome, str: 1}.get(type(outcome), trial.config.epochs)
    final = outcome if isinstance(outcome, float) else 0.5
    finished = isinstance(outcome, float)
    for epoch in range(1, epochs + 1):
        last = finished and epoch == epochs
        row = epoch_row(epoch, trial.config.epochs, final, trial.config.seed, last)
        folder.append_epoch(trial.id, row)
    if isinstance(outcome, int):
        return
    folder.append_trial(
        TrialRow(
            trial_id=trial.id,
            status="finished" if finished else "failed",
            seed=trial.config.seed,
            config=trial.config.model_dump(),
            epochs=epochs,
            val_probe_top1=final if finished else None,
            test_probe_top1=reversed_top1(final) if finished else None,
            seconds=2.5 * epochs,
            error=None if finished else outcome,
            host="node-1",
            device="cpu",
            session=session,
            ended_at=NOW,
        )
    )


def by_queue(**values: list[Outcome]) -> Callable[[Trial], Outcome]:
    """Return outcomes by queue size (`q500=[..]`), one a seed from seed 1 on."""
    return lambda trial: values[f"q{trial.condition['queue_size']}"][trial.config.seed - 1]


def analysis_of(path: Path, **values: list[Outcome]) -> dict:
    """Analyse a study of queue sizes with these outcomes."""
    return analyse(tables_of(path, **values))


def tables_of(path: Path, **values: list[Outcome]) -> Tables:
    sizes = [int(name[1:]) for name in values]
    seeds = range(1, len(next(iter(values.values()))) + 1)
    text = study_text(f"queue_size = {sizes}", seeds)
    return load(make_run(path, text, by_queue(**values)))


def reversed_top1(val_top1: float) -> float:
    """Return a test accuracy that ranks conditions the wrong way round."""
    return 0.9 - 0.1 * val_top1


def epoch_row(epoch, epochs, final, seed, last):
    """An epoch on a curve that rises to `final`, each seed on its own way."""
    wiggle = 0.01 * ((epoch * 7 + seed * 3) % 5 - 2) / 2
    top1 = final - (final - 0.1) * 0.8**epoch * (1 - epoch / epochs) + wiggle
    return EpochRow(
        epoch=epoch,
        c_loss=5.0,
        c_acc=0.5,
        r_acc=0.1,
        p_loss=1.0,
        p_acc=0.5,
        val_p_loss=1.0,
        val_p_acc=0.5,
        val_probe_top1=final if epoch == epochs else top1,
        test_probe_top1=reversed_top1(final) if last else None,
        train_seconds=2.0,
        seconds=2.5,
    )
