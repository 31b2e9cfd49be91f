"""Synthetic studies, each a function that writes its run folder."""

import base64
import json
from pathlib import Path

from nnclr_study.study.confirm import confirmation
from nnclr_study.study.plan import Trial, plan_trials
from nnclr_study.study.run_folder import RunFolder
from tests.report.helpers import (
    made_session,
    make_run,
    make_search,
    run_of,
    study_text,
    write_trial,
)

SEEDS = [0.001, -0.002, 0.003, -0.001, 0.002]
"""What a seed adds in every condition."""
CHANCE = [
    [0.0004, -0.0003, 0.0001, 0.0002, -0.0004],
    [-0.0002, 0.0004, -0.0004, 0.0003, -0.0001],
    [0.0003, 0.0001, -0.0002, -0.0004, 0.0002],
    [-0.0001, -0.0004, 0.0003, 0.0001, 0.0001],
]
"""What is left, a row a condition; it sums to 0."""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""One pixel."""
OOM = "OutOfMemoryError: 2 GiB"


def column(arm, mean, scale=1.0, seeds=5):
    """Accuracies of a condition, one a seed."""
    rows = zip(SEEDS[:seeds], CHANCE[arm][:seeds], strict=True)
    return [mean + seed + scale * chance for seed, chance in rows]


def columns(means, sizes=(0, 500, 1_000, 10_000), seeds=5):
    pairs = zip(sizes, means, strict=False)
    return {f"q{size}": column(arm, mean, seeds=seeds) for arm, (size, mean) in enumerate(pairs)}


def equal(path):
    return run_of(path, **columns([0.85] * 4))


def one_better(path):
    return run_of(path, **columns([0.85, 0.85, 0.85, 0.87]))


def rising(path):
    """More helps, up to a point: 1,000 is as good as 10,000."""
    return run_of(path, **columns([0.85, 0.86, 0.869, 0.87]))


def an_arm_of_nan(path):
    return run_of(path, **columns([0.85, 0.87]), q1000=["FloatingPointError: loss is NaN"] * 5)


def one_failure(path):
    values = columns([0.85, 0.87, 0.86])
    return run_of(path, **values | {"q500": [OOM, *values["q500"][1:]]})


def one_seed(path):
    return run_of(path, **columns([0.85, 0.87], seeds=1))


def two_seeds(path):
    return run_of(path, **columns([0.85, 0.87], seeds=2))


def unequal_spread(path):
    """One arm scatters 100 times as much: the block model alone would be misled."""
    wild = column(1, 0.85, scale=100)
    return run_of(path, q0=column(0, 0.85), q500=wild, q1000=column(2, 0.86))


def all_failed(path):
    return run_of(path, q0=[OOM] * 3, q500=[OOM] * 3)


def one_arm(path):
    return run_of(path, q500=column(0, 0.85))


def two_factors(path):
    """A large queue helps where the temperature is low, and there alone."""
    text = study_text("queue_size = [0, 500]\ntemperature = [0.1, 0.2]", seeds=range(1, 6))

    def outcome(trial: Trial) -> float:
        queue, cold = trial.config.queue_size > 0, trial.config.temperature == 0.1
        own = column(2 * queue + cold, 0.85)[trial.config.seed - 1]
        return own + (0.02 if queue and cold else 0.0)

    return make_run(path, text, outcome)


def running(path):
    values = columns([0.85, 0.87])
    return run_of(path, **values | {"q500": [*values["q500"][:4], 2]})


def pruned_search(path):
    stopped = (3, "stopped")
    outcomes = [0.70, 0.72, stopped, 0.75, OOM, stopped, 0.71, stopped, 0.74, 0.69, 0.73, 0.70]
    return make_search(path, outcomes)


def confirmed(path, epochs=None) -> RunFolder:
    """The best of a study of one seed, again with three fresh ones."""
    chosen = run_of(Path(path) / "chosen", **columns([0.85, 0.869, 0.87], seeds=1))
    text = confirmation(chosen, best=1, seeds=3, epochs=epochs).text
    fresh = {0: column(0, 0.85), 1_000: column(1, 0.865)}
    return make_run(
        path, text, lambda trial: fresh[trial.config.queue_size][trial.config.seed - 2]
    )


def confirmed_for_longer(path):
    return confirmed(path, epochs=8)


def nothing_finished(path):
    return run_of(path, q0=[None] * 3, q500=[2, None, None])


def no_baseline(path):
    return run_of(path, q0=[OOM] * 5, q500=column(1, 0.85), q1000=column(2, 0.87))


def mixed_commits(path):
    """The second seed was trained by another commit, elsewhere, on images that had changed."""
    folder = make_run(path, study_text("queue_size = [0, 500]"), lambda trial: None)
    (folder.path / "sessions.jsonl").unlink()
    folder.append_session(made_session(images={"digits, 32 px": "0123456789abcdef"}))
    later = {"commit": "f" * 40, "machine": "Linux 5.4 aarch64", "versions": {"torch": "2.10.0"}}
    folder.append_session(made_session(**later, images={"digits, 32 px": "f" * 16}))
    for trial in plan_trials(folder.study()):
        value = column(int(trial.config.queue_size > 0), 0.85)[trial.config.seed - 1]
        write_trial(folder, trial, value, session=int(trial.config.seed == 2))
    return folder


def whole(path):
    """Everything that a grid's page can show at once, but for a confirmation."""
    text = study_text(
        "queue_size = [0, 500, 2_500]\ntemperature = [0.1, 0.2]",
        seeds=range(1, 6),
        question="How large must the queue be?",
    )
    text += '[[references]]\nlabel = "NNCLR, 800 epochs"\ntest_top1 = 93.7\nsource = "a paper"\n'

    def outcome(trial):
        seed, arm = trial.config.seed, int(trial.config.queue_size > 0)
        if (trial.config.queue_size, trial.config.temperature, seed) == (2_500, 0.2, 4):
            return OOM
        return column(arm, 0.85 + 0.01 * arm)[seed - 1] + 0.002 * trial.config.temperature

    folder = make_run(path, text, outcome, gpus=1)
    finished = [row.trial_id for row in folder.trials().values() if row.status == "finished"]
    folder.gallery.mkdir()
    for trial_id in finished:
        (folder.gallery / f"{trial_id}.png").write_bytes(PNG)
        row = {"label": 3, "neighbours": [3, 4, None], "similarities": [0.9, 0.8, 0.7]}
        told = json.dumps({"rows": [row] * 2})
        (folder.gallery / f"{trial_id}.json").write_text(told)
    return folder


GOLDEN = {
    each.__name__: each
    for each in (
        *(equal, one_better, rising, an_arm_of_nan, one_failure, one_seed, two_seeds),
        *(unequal_spread, all_failed, one_arm, two_factors, running, pruned_search, confirmed),
    )
}
STATES = {
    each.__name__: each
    for each in (
        *(nothing_finished, one_seed, two_seeds, no_baseline, an_arm_of_nan, all_failed),
        *(running, mixed_commits, one_arm, pruned_search, confirmed, whole),
        confirmed_for_longer,
    )
}
