"""Run folders with chosen numbers, made through the same rows that a `run` writes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nnclr_study.report.analyse import analyse
from nnclr_study.report.load import Tables, load
from nnclr_study.report.load import tables_of as load_tables
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import Trial, plan_trials, suggested_trial
from nnclr_study.study.rows import EpochRow, Session, Suggestion, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)

Outcome = float | str | int | tuple[int, str] | None
"""val_probe_top1 of a finished trial; the error of a failed one; epochs done of one that is not
over, or `(3, "stopped")`; None for one that has not begun."""

SEARCH = """
[study]
name = "hunt"
seeds = [7]
[budget]
trials = 12
[trial]
dataset = "digits"
batch_size = 32
labelled_batch_size = 8
epochs = 9
[search]
[search.space]
queue_size = { low = 40, high = 1_000, log = true }
optimizer = { choices = ["adam", "lars"] }
lars_trust = { low = 1e-4, high = 1e-2, log = true, when = { optimizer = "lars" } }
"""


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


def made_session(**told) -> Session:
    """A call of `run`, told otherwise where asked."""
    plain = {
        "started_at": NOW,
        "command": "nnclr-study run made.toml",
        "versions": {"nnclr-study": "0.1.0", "torch": "2.9.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "machine": "Linux 6.1 x86_64",
        "cpus": 2,
        "gpus": 0,
        "nodes": 1,
        "runner": "in-process",
        "workers": 1,
        "gpus_per_trial": 0,
        "max_concurrent": 2,
    }
    return Session(**plain | told)


def make_run(
    path: Path, text: str, outcome: Callable[[Trial], Outcome], gpus: int = 0
) -> RunFolder:
    """Write a run folder in which every trial of a study became what `outcome` says of it."""
    study = parse_study(text, "made.toml")
    folder = RunFolder.create(path).keep(study)
    session = folder.append_session(made_session())
    for trial in plan_trials(study):
        write_trial(folder, trial, outcome(trial), session, gpus=gpus)
    return folder


def make_search(path: Path, outcomes: list[Outcome], text: str = SEARCH) -> RunFolder:
    """Write a search whose trials became what `outcomes` says, lars_trust with lars alone."""
    study = parse_study(text, "hunt.toml")
    folder = RunFolder.create(path).keep(study)
    folder.append_session(made_session(command="nnclr-study run hunt.toml"))
    for number, outcome in enumerate(outcomes):
        params = {"queue_size": 50 + 30 * number, "optimizer": "lars" if number % 2 else "adam"}
        params |= {"lars_trust": 0.001 * (1 + number)} if number % 2 else {}
        trial = suggested_trial(study, number, params)
        folder.append_suggestion(Suggestion(trial_id=trial.id, number=number, params=params))
        write_trial(folder, trial, outcome)
    return folder


def write_trial(
    folder: RunFolder, trial: Trial, outcome: Outcome, session: int = 0, gpus: int = 0, **told
) -> None:
    """Append a trial's rows; what is `told` stands in its last one."""
    if outcome is None:
        return
    done = outcome[0] if isinstance(outcome, tuple) else outcome
    epochs = {int: done, str: 1}.get(type(done), trial.config.epochs)
    finished = isinstance(outcome, float)
    final = outcome if finished else 0.5
    for epoch in range(1, epochs + 1):
        last = finished and epoch == epochs
        row = epoch_row(epoch, trial.config.epochs, final, trial.config.seed, last)
        folder.append_epoch(trial.id, row.model_copy(update=scores(trial.config, row)))
    if not isinstance(outcome, int):
        folder.append_trial(trial_row(trial, outcome, epochs, session, gpus, **told))


def trial_row(
    trial: Trial, outcome: Outcome, epochs: int = 1, session: int = 0, gpus: int = 0, **told
) -> TrialRow:
    """The last row of a trial that ended so; what is `told` stands in it."""
    finished, stopped = isinstance(outcome, float), isinstance(outcome, tuple)
    seconds = 2.5 * epochs
    plain = {
        "trial_id": trial.id,
        "status": "finished" if finished else "stopped" if stopped else "failed",
        "seed": trial.config.seed,
        "config": trial.config.model_dump(),
        "epochs": epochs,
        "val_probe_top1": outcome if finished else None,
        "test_probe_top1": reversed_top1(outcome) if finished else None,
        "seconds": seconds,
        "gpu_seconds": gpus * seconds,
        "error": outcome if isinstance(outcome, str) else None,
        "host": "node-1",
        "device": "cpu",
        "session": session,
        "started_at": NOW - timedelta(seconds=seconds),
        "ended_at": NOW,
    }
    return TrialRow(**plain | told)


def made_tables(text: str, top1: Callable[[Trial], float]) -> Tables:
    """Return the tables of a finished study, without a run folder and without epochs."""
    study = parse_study(text, "made.toml")
    planned = plan_trials(study)
    ended = {trial.id: trial_row(trial, top1(trial)) for trial in planned}
    return load_tables(study, Path("made"), planned, ended, {}, [made_session()])


def scores(config: TrialConfig, row: EpochRow) -> dict[str, float]:
    """What is said of an epoch's features and, where there is one, its queue."""
    found = {"feature_std": 0.05, "rankme": 10.0 + row.epoch, "val_knn_top1": 0.9}
    if config.queue_size:
        share = 0.5 + 0.3 * row.epoch / config.epochs - 5.0 / config.queue_size
        age = config.queue_size / config.global_batch / 2
        found |= {"nn_same_label": max(0.1, share), "nn_age": age, "queue_used": 0.4}
    return found


def by_queue(**values: list[Outcome]) -> Callable[[Trial], Outcome]:
    """Return outcomes by queue size (`q500=[..]`), one a seed from seed 1 on."""
    return lambda trial: values[f"q{trial.condition['queue_size']}"][trial.config.seed - 1]


def analysis_of(path: Path, **values: list[Outcome]) -> dict:
    """Analyse a study of queue sizes with these outcomes."""
    return analyse(tables_of(path, **values))


def tables_of(path: Path, **values: list[Outcome]) -> Tables:
    return load(run_of(path, **values))


def run_of(path: Path, **values: list[Outcome]) -> RunFolder:
    """Write the run folder of a study of queue sizes with these outcomes."""
    sizes = [int(name[1:]) for name in values]
    seeds = range(1, len(next(iter(values.values()))) + 1)
    return make_run(path, study_text(f"queue_size = {sizes}", seeds), by_queue(**values))


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
